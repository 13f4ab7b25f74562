from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graphs import session
from tests.ray.processes import Up, up


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The quickstart, started once for all tests that only use it. Its end is a test too: nothing may stay behind."""
    started = up(tmp_path_factory.mktemp("service"))
    try:
        started.wait_until_ready()
        yield started
    except BaseException:
        started.abort()
        raise
    leader_pid = started.driver_pid()
    assert started.stop() == 0, started.said
    assert session.processes(leader_pid) == []


@pytest.fixture
def bring_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """`up` in the test's own folder, which does not outlive the test."""
    started: list[Up] = []

    def start(*arguments: str, **options: Any) -> Up:
        started.append(up(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.abort()
