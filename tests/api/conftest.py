from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from bgeserve.api import create_app
from bgeserve.settings import IngressSettings
from tests.api.backend import Stage
from tests.api.serving import Forward, serving

LIMITS = IngressSettings(timeout_s=20, max_body_bytes=200_000, max_texts=50, max_top_k=100)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """The app itself, without a server in between."""
    transport = httpx.ASGITransport(create_app(stage.service, LIMITS))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, Forward]]:
    forward = Forward()
    with serving(forward) as address:
        yield address, forward


@pytest.fixture
def url(stage: Stage, server: tuple[str, Forward]) -> str:
    """This test's own app, behind a real server that all tests share."""
    address, forward = server
    forward.app = create_app(stage.service, LIMITS)
    return address
