from __future__ import annotations

from collections.abc import Iterator

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
        started.process.kill()
        raise
    leader_pid = started.driver_pid()
    assert started.stop() == 0, started.said
    assert session.processes(leader_pid) == []
