from __future__ import annotations

import asyncio

import pytest

from bgeserve.group_commit import GroupCommit

INTERVAL_S = 0.02


class Disk:
    """Counts flushes; each holds on what was written when it began."""

    def __init__(self) -> None:
        self.written = 0
        self.durable = 0
        self.flushes = 0
        self.broken = False
        self.flushing = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def flush(self) -> None:
        self.flushes += 1
        self.flushing.set()
        seen = self.written
        await self.gate.wait()
        if self.broken:
            raise OSError("disk")
        self.durable = seen


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def commits(disk: Disk) -> GroupCommit:
    return GroupCommit(disk.flush, INTERVAL_S)


async def write(disk: Disk, commits: GroupCommit) -> None:
    commits.changed()
    disk.written += 1
    mine = disk.written
    await commits.commit()
    assert disk.durable >= mine


async def test_nothing_written_needs_no_flush(disk: Disk, commits: GroupCommit) -> None:
    await commits.commit()
    await write(disk, commits)
    await commits.commit()
    assert disk.flushes == 1


async def test_writers_of_one_interval_share_a_flush(disk: Disk, commits: GroupCommit) -> None:
    await asyncio.gather(*(write(disk, commits) for _ in range(100)))
    assert disk.flushes == 1


async def test_who_comes_during_a_flush_waits_for_the_next(disk: Disk, commits: GroupCommit) -> None:
    disk.gate.clear()
    first = asyncio.create_task(write(disk, commits))
    await disk.flushing.wait()
    second = asyncio.create_task(write(disk, commits))
    await asyncio.sleep(3 * INTERVAL_S)
    assert not first.done()
    assert not second.done()
    disk.gate.set()
    await asyncio.gather(first, second)
    assert disk.flushes == 2


async def test_a_failed_flush_fails_its_own_waiters_and_no_others(disk: Disk, commits: GroupCommit) -> None:
    disk.broken = True
    failed = await asyncio.gather(*(write(disk, commits) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [OSError] * 3
    disk.broken = False
    await write(disk, commits)
    assert disk.durable == 4


async def test_what_a_failed_flush_left_behind_is_not_taken_for_durable(disk: Disk, commits: GroupCommit) -> None:
    disk.broken = True
    with pytest.raises(OSError, match="disk"):
        await write(disk, commits)
    disk.broken = False
    await commits.commit()
    assert disk.durable == disk.written == 1


async def test_one_writer_that_gives_up_leaves_the_flush_to_the_others(disk: Disk, commits: GroupCommit) -> None:
    disk.gate.clear()
    leaving, staying = (asyncio.create_task(write(disk, commits)) for _ in range(2))
    await disk.flushing.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    disk.gate.set()
    await staying
    assert disk.flushes == 1


async def test_a_steady_stream_is_flushed_once_an_interval(disk: Disk, commits: GroupCommit) -> None:
    began_s = asyncio.get_running_loop().time()

    async def writer() -> None:
        for _ in range(10):
            await write(disk, commits)

    await asyncio.gather(*(writer() for _ in range(8)))
    intervals = (asyncio.get_running_loop().time() - began_s) / INTERVAL_S
    assert disk.flushes <= intervals + 2
