"""With a key, nothing but the page and the two probes answers without it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from bgeserve.api import create_app
from bgeserve.errors import SettingsError
from tests.api.backend import Stage
from tests.api.conftest import LIMITS

KEY = "geheim-ß"


@pytest.fixture
async def locked(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(stage.service, LIMITS, api_key=KEY))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/models", "/openapi.json", "/v1/collections/default", "/nowhere", "/healthz/"])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Basic " + KEY.encode(),
        KEY.encode(),
        b"Bearer " + KEY.encode()[:-1],
        b"Bearer \xff\xfe",
    ],
)
async def test_no_key_no_answer(locked: httpx.AsyncClient, path: str, authorization: bytes | None) -> None:
    response = await locked.get(path, headers=None if authorization is None else {b"authorization": authorization})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "unauthorized")
    assert KEY not in response.text


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer"])
async def test_the_key_opens(locked: httpx.AsyncClient, scheme: bytes) -> None:
    response = await locked.get("/v1/models", headers={b"authorization": scheme + b" " + KEY.encode()})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
async def test_probes_and_the_page_need_none(locked: httpx.AsyncClient, path: str) -> None:
    assert (await locked.get(path)).status_code == 200


async def test_the_description_says_that_a_key_is_needed(locked: httpx.AsyncClient) -> None:
    description = (await locked.get("/openapi.json", headers={b"authorization": b"Bearer " + KEY.encode()})).json()
    assert description["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    secured = {path for path, methods in description["paths"].items() for operation in methods.values() if "security" in operation}
    assert set(description["paths"]) - secured == {"/healthz", "/readyz"}


def test_an_empty_key_is_a_mistake(stage: Stage) -> None:
    with pytest.raises(SettingsError, match="empty"):
        create_app(stage.service, LIMITS, api_key="")
