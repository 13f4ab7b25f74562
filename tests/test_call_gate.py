"""Bulk calls wait at whoever sends them, by tenant, and never for a place that is free."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from bgeserve.call_gate import CallGate
from bgeserve.deadline import NO_DEADLINE, Deadline
from bgeserve.errors import DeadlineExceeded
from bgeserve.types import Lane


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Calls:
    """Calls through one gate that end when a test says."""

    def __init__(self, max_in_flight: int) -> None:
        self.gate = CallGate(max_in_flight)
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    def start(self, name: str, tenant: str = "", size: int = 10, sent_as: Lane = "bulk") -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._call(name, tenant, size, sent_as))

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()

    async def cancel(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _call(self, name: str, tenant: str, size: int, sent_as: Lane) -> None:
        async with self.gate.passed(size, tenant, sent_as, NO_DEADLINE):
            self.inside.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.inside.remove(name)


async def test_so_many_at_a_time_and_the_next_when_one_ends() -> None:
    calls = Calls(20)
    for name in ("a", "b", "c", "d"):
        calls.start(name)
    await settle()
    assert calls.inside == ["a", "b"]
    await calls.end("a")
    assert calls.inside == ["b", "c"]
    await calls.end("c")
    await calls.end("b")
    assert calls.inside == ["d"]
    await calls.end("d")


async def test_tenants_take_turns() -> None:
    calls = Calls(1)
    for n in range(5):
        calls.start(f"flood {n}", "flood")
    await settle()
    calls.start("other", "other")
    await settle()
    await calls.end("flood 0")
    await calls.end("flood 1")
    assert calls.inside == ["other"]
    await calls.cancel()


async def test_a_large_request_of_a_person_does_not_wait_for_the_jobs_of_the_same_tenant() -> None:
    calls = Calls(1)
    for n in range(5):
        calls.start(f"job {n}")
    await settle()
    calls.start("large", sent_as="interactive")
    await settle()
    await calls.end("job 0")
    await calls.end("job 1")
    assert calls.inside == ["large"]
    await calls.cancel()


async def test_the_deadline_ends_the_wait() -> None:
    calls = Calls(1)
    calls.start("a")
    await settle()
    with pytest.raises(DeadlineExceeded):
        async with calls.gate.passed(1, "", "bulk", Deadline(0.01)):
            pytest.fail("nothing was free")
    await calls.end("a")
    calls.start("b")
    await settle()
    assert calls.inside == ["b"]
    await calls.end("b")


async def test_calls_that_are_called_off_at_any_moment_never_keep_a_place() -> None:
    random = Random(0)
    calls = Calls(30)
    sizes = {str(n): random.randrange(50) for n in range(300)}
    for name, size in sizes.items():
        calls.start(name, tenant=random.choice("ab"), size=size)
        if random.random() < 0.5:
            await settle()
        if random.random() < 0.5:
            random.choice(list(calls.tasks.values())).cancel()
        if random.random() < 0.6 and calls.inside:
            calls._ends[random.choice(calls.inside)].set()
        assert sum(sizes[name] for name in calls.inside[:-1]) < 30  # the last one may have gone beyond it
    for end in calls._ends.values():
        end.set()
    await asyncio.gather(*calls.tasks.values(), return_exceptions=True)
    for name in ("x", "y", "z"):
        calls.start(name)
    await settle()
    assert set(calls.inside) == {"x", "y", "z"}
    for name in ("x", "y", "z"):
        await calls.end(name)
