"""What was acknowledged is there after the owner was killed, and after the power went."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stores import writer
from tests.stores.conftest import needs
from tests.stores.disks import ext4


@pytest.fixture(params=writer.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "milvus_lite":
        needs("milvus_lite", "milvus")
    return request.param


@pytest.mark.parametrize("acknowledged", [1, 300, 1500])
async def test_a_killed_owner_loses_nothing_acknowledged(tmp_path: Path, kind: str, acknowledged: int) -> None:
    lines = _write_until(kind, tmp_path / "store", acknowledged, then=lambda: None)
    assert await writer.check(kind, tmp_path / "store", lines) >= acknowledged


async def test_an_owner_that_is_killed_again_and_again_loses_nothing(tmp_path: Path, kind: str) -> None:
    lines: list[str] = []
    for _ in range(4):
        lines += _write_until(kind, tmp_path / "store", 100, then=lambda: None)
        await writer.check(kind, tmp_path / "store", lines)


@pytest.mark.parametrize("acknowledged", [1, 200])
async def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path, kind: str, acknowledged: int) -> None:
    with ext4(tmp_path, size_mib=256) as disk:
        lines = _write_until(kind, disk.path / "store", acknowledged, then=disk.cut_power)
        disk.restore_power()
        assert await writer.check(kind, disk.path / "store", lines) >= acknowledged


def _write_until(kind: str, path: Path, acknowledged: int, then: Callable[[], None]) -> list[str]:
    """What a writer said until it was killed, after so many writes were done and `then` had happened."""
    process = subprocess.Popen([sys.executable, "-m", "tests.stores.writer", kind, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines: list[str] = []
        done = 0
        while done < acknowledged:
            line = process.stdout.readline()
            assert line, f"the writer ended by itself: {process.wait()}"
            lines.append(line)
            done += line.startswith("done")
        then()
    finally:
        process.kill()
        rest, _ = process.communicate()
    return lines + [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
