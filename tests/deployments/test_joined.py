"""Small calls of several callers go over as one, and stay calls of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from ray.exceptions import ActorUnavailableError

from bgeserve.errors import InvalidRequest, ServiceError
from deployments import logs
from deployments.joined import FORGET_WITHIN_S, MAX_JOINED, JoinedCalls
from deployments.remote import Remote
from tests.deployments.fakes import FakeHandle

DEATH = ActorUnavailableError("gone", b"0" * 16)


@dataclass(frozen=True)
class Answer:
    of: str
    timings_ms: dict[str, float] = field(default_factory=lambda: {"wait": 0.0})


def answer(text: str) -> Answer:
    return Answer(text)


def answer_after_a_second(text: str) -> Answer:
    return Answer(text, {"wait": 1000.0})


def joined(handle: FakeHandle, max_call_bytes: int = 1000) -> JoinedCalls:
    return JoinedCalls(cast("Any", handle), max_call_bytes)


def start(calls: JoinedCalls, texts: Sequence[str]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(calls.call("encode", (text,), {}, len(text))) for text in texts]


async def test_calls_of_one_moment_go_over_as_one_and_each_gets_its_own_answer() -> None:
    handle = FakeHandle([answer] * 3)
    answers = await asyncio.gather(*start(joined(handle), ["a", "b", "c"]))
    assert [each.of for each in answers] == ["a", "b", "c"]
    assert [len(together) for together in handle.joined] == [3]


async def test_a_lone_call_is_just_that_call() -> None:
    handle = FakeHandle([answer])
    (only,) = await asyncio.gather(*start(joined(handle), ["a"]))
    assert only.of == "a"
    assert handle.joined == []
    assert [method for method, *_ in handle.calls] == ["encode"]


async def test_calls_wait_for_others_only_while_workers_are_busy() -> None:
    for latest, together in ((answer, 1), (answer_after_a_second, 2)):
        busy = asyncio.Event()
        handle = FakeHandle([latest, busy, answer, answer])
        calls = joined(handle)
        await asyncio.gather(*start(calls, ["how long did you wait?"]))
        in_flight = start(calls, ["in flight"])
        await asyncio.sleep(0.01)
        one = start(calls, ["a"])
        for _ in range(3):  # long enough for "a" to go if it does not wait, and far less than it waits
            await asyncio.sleep(0)
        other = start(calls, ["b"])
        await asyncio.gather(*one, *other)
        assert len(handle.calls) == 4
        assert [len(each) for each in handle.joined] == ([] if together == 1 else [2])
        busy.set()
        await asyncio.gather(*in_flight)


async def test_each_is_answered_as_soon_as_it_is_done() -> None:
    slow = asyncio.Event()
    first, second = start(joined(FakeHandle([slow, answer])), ["a", "b"])
    assert (await second).of == "b"
    assert not first.done()
    slow.set()
    assert await first is slow


async def test_what_goes_over_together_is_bounded() -> None:
    handle = FakeHandle([answer] * 500)
    await asyncio.gather(*start(joined(handle, max_call_bytes=30), ["x" * 10] * 7))
    assert [len(together) for together in handle.joined] == [3, 3]
    assert len(handle.calls) == 7
    await asyncio.gather(*start(joined(handle, max_call_bytes=10_000), ["x"] * 100))
    assert max(len(together) for together in handle.joined) == MAX_JOINED


async def test_the_failure_of_one_is_not_that_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    handle = FakeHandle([answer, InvalidRequest("too long"), ZeroDivisionError("a bug")])
    fine, refused, failed = await asyncio.gather(*start(joined(handle), ["a", "b", "c"]), return_exceptions=True)
    assert fine.of == "a"
    assert isinstance(refused, ServiceError)  # a real deployment's `answers_refusals` answers it as it is
    assert isinstance(failed, ServiceError)
    assert "ZeroDivisionError" in failed.message
    assert "a bug" not in failed.message
    assert "ZeroDivisionError" in caplog.text


async def test_a_caller_who_goes_away_is_forgotten_and_the_others_are_not() -> None:
    handle = FakeHandle([asyncio.Event(), asyncio.Event()])
    calls = joined(handle)
    first, second = start(calls, ["a", "b"])
    await handle.called.wait()
    first.cancel()
    await asyncio.sleep(2 * FORGET_WITHIN_S)
    assert [response.was_cancelled for response in handle.responses] == [True, False]
    assert not second.done()
    second.cancel()
    await asyncio.sleep(0.01)
    assert [response.was_cancelled for response in handle.responses] == [True, True]
    assert handle.replica._joined == {}


async def test_what_cannot_be_sent_is_said_to_everyone_who_waits() -> None:
    class Broken(FakeHandle):
        def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            raise RuntimeError("the handle was shut down")

        def options(self, **_: Any) -> FakeHandle:
            return self

    for texts in (["a"], ["a", "b"]):
        answers = await asyncio.gather(*start(joined(Broken([])), texts), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["the handle was shut down"] * len(texts)


async def test_a_caller_who_goes_away_before_the_call_does_is_never_sent() -> None:
    handle = FakeHandle([answer])
    calls = joined(handle)
    first, second = start(calls, ["a", "b"])
    await asyncio.sleep(0)  # both have begun to wait, and nothing has been sent
    first.cancel()
    assert (await second).of == "b"
    assert [args for _, args, *_ in handle.calls] == [("b",)]


async def test_all_calls_of_a_replica_that_died_are_sent_again() -> None:
    handle = FakeHandle([answer] * 3, deaths=[DEATH])
    remote = Remote(cast("Any", handle), max_joined_bytes=1000)
    answers = await asyncio.gather(*(remote.call("encode", text, text_bytes=1) for text in "abc"))
    assert [each.of for each in answers] == ["a", "b", "c"]
    # Each waits on its own before it asks again: on a busy machine not all of them end in one moment.
    assert [call.args[0] for call in handle.joined[0]] == ["a", "b", "c"]
    assert sorted(call[1][0] for call in handle.calls) == ["a", "b", "c"]


async def test_each_is_worked_on_for_its_own_request() -> None:
    """What carries them over belongs to one of them; what the replica says of each is about that one."""
    handle = FakeHandle([lambda _: logs.request_id()] * 2)
    calls = joined(handle)

    async def ask(request_id: str) -> str:
        logs.work_for(request_id)
        return await calls.call("encode", (request_id,), {}, 1)

    assert await asyncio.gather(ask("first"), ask("second")) == ["first", "second"]
    assert len(handle.joined) == 1
