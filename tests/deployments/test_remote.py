from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from bgeserve.caller import Caller
from bgeserve.deadline import Deadline
from bgeserve.errors import DeadlineExceeded, InvalidRequest, Overloaded, ReplicaFull, Unavailable
from bgeserve.types import Lane
from deployments import remote
from deployments.refusals import REMEMBERED_SHARE
from deployments.remote import MAX_GRPC_BYTES, Remote
from tests.deployments.fakes import FakeHandle

UNAVAILABLE = ActorUnavailableError("gone", b"0" * 16)
ANOTHER_UNAVAILABLE = ActorUnavailableError("gone too", b"1" * 16)
FULL = ReplicaFull("no room", retry_after_s=0.01)


def too_large() -> grpc.aio.AioRpcError:
    metadata = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, metadata, metadata, details="Received message larger than max")


async def ask(handle: FakeHandle, *, lane: Lane = "interactive", timeout_s: float | None = 5, payload_bytes: int = 0) -> object:
    caller = Caller(lane, Deadline(timeout_s))
    return await Remote(cast("Any", handle), max_replicas=2).call("encode", "x", caller=caller, answer_bytes=payload_bytes)


@pytest.mark.parametrize("death", [ActorDiedError(), UNAVAILABLE])
async def test_a_call_is_sent_again_once_when_its_replica_dies(death: Exception) -> None:
    handle = FakeHandle([death, "answer"])
    assert await ask(handle) == "answer"
    assert len(handle.calls) == 2


async def test_the_death_of_a_second_replica_is_reported_as_unavailable() -> None:
    handle = FakeHandle([UNAVAILABLE, ANOTHER_UNAVAILABLE, "never asked for"])
    with pytest.raises(Unavailable) as caught:
        await ask(handle)
    assert caught.value.retry_after_s
    assert len(handle.calls) == 2


async def test_a_model_none_of_whose_replicas_can_start_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no replica can start") as caught:
        await ask(FakeHandle([DeploymentUnavailableError(DeploymentID("embedder-m3", "search"))]))
    assert caught.value.retry_after_s


async def test_a_dead_replica_that_the_router_still_chooses_is_no_second_death() -> None:
    assert await ask(FakeHandle([UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, "answer"])) == "answer"


async def test_a_full_replica_is_tried_once_more_and_then_refuses_a_lone_interactive_call() -> None:
    assert await ask(FakeHandle([FULL, "answer"])) == "answer"
    with pytest.raises(Overloaded) as caught:
        await ask(FakeHandle([FULL, FULL, "never asked for"]))
    assert type(caught.value) is Overloaded
    assert caught.value.retry_after_s == FULL.retry_after_s


async def test_who_would_be_refused_again_is_told_without_asking_and_others_are_not() -> None:
    full = ReplicaFull("no room", retry_after_s=2)
    handle = FakeHandle([full, full, "answer", "answer", full, full])
    remote = Remote(cast("Any", handle), max_replicas=2)

    async def call(lane: Lane = "interactive", tenant: str = "a") -> object:
        return await remote.call("encode", "x", caller=Caller(lane, Deadline(5), tenant))

    for _ in range(3):
        with pytest.raises(Overloaded, match="no room") as caught:
            await call()
        assert caught.value.retry_after_s is not None
        assert 1.9 < caught.value.retry_after_s <= 2
    assert len(handle.calls) == 2
    assert await call(tenant="b") == "answer"
    assert await call(lane="bulk") == "answer"
    await asyncio.sleep(REMEMBERED_SHARE * 2)
    with pytest.raises(Overloaded):
        await call()
    assert len(handle.calls) == 6


async def test_a_job_waits_for_room() -> None:
    assert await ask(FakeHandle([FULL] * 5 + ["answer"]), lane="bulk") == "answer"


async def test_waiting_for_room_ends_with_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        await ask(FakeHandle([FULL] * 1000), lane="bulk", timeout_s=0.05)


async def test_what_the_replica_refused_is_raised_here_as_it_was() -> None:
    with pytest.raises(InvalidRequest, match="too long") as caught:
        await ask(FakeHandle([InvalidRequest("too long", field="texts")]))
    assert caught.value.field == "texts"


async def test_the_deadline_and_a_caller_who_goes_away_cancel_the_call() -> None:
    handle = FakeHandle([asyncio.Event()])
    with pytest.raises(DeadlineExceeded):
        await ask(handle, timeout_s=0.01)
    assert handle.responses[0].was_cancelled

    handle = FakeHandle([asyncio.Event()])
    task = asyncio.create_task(ask(handle))
    await handle.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.responses[0].was_cancelled


async def test_large_payloads_go_by_reference_and_so_does_what_grpc_found_too_large() -> None:
    handle = FakeHandle(["answer"])
    await ask(handle, payload_bytes=MAX_GRPC_BYTES + 1)
    assert [by_reference for *_, by_reference in handle.calls] == [True]

    handle = FakeHandle([too_large(), "answer"])
    assert await ask(handle) == "answer"
    assert [by_reference for *_, by_reference in handle.calls] == [False, True]

    with pytest.raises(grpc.aio.AioRpcError):
        await ask(FakeHandle([too_large(), too_large()]))


async def test_the_next_call_tells_what_was_refused_before_and_no_call_more() -> None:
    full = ReplicaFull("no room", retry_after_s=0.01)
    handle = FakeHandle([full, full, "answer", "answer"])
    remote = Remote(cast("Any", handle), max_replicas=2)

    async def call(size: int) -> object:
        caller = Caller(deadline=Deadline(5))
        return await remote.call("encode", "x", asked={"caller": caller}, caller=caller, text_bytes=size)

    with pytest.raises(Overloaded):
        await call(400)
    with pytest.raises(Overloaded):  # told so without asking
        await call(500)
    await asyncio.sleep(0.01)
    for _ in range(2):
        await call(1)
    assert [kwargs["caller"].refused_bytes for _, _, kwargs, _ in handle.calls] == [0, 0, 900, 0]


async def test_a_job_that_waits_for_room_is_told_as_waiting() -> None:
    handle = FakeHandle([FULL, FULL, "answer"])
    remote = Remote(cast("Any", handle), max_replicas=1)
    caller = Caller("bulk", Deadline(5))
    job = asyncio.create_task(remote.call("encode", "x", caller=caller, text_bytes=700))
    await asyncio.wait_for(handle.called.wait(), 5)
    await asyncio.sleep(0)
    assert remote.unmet.told_by(caller).waiting_bytes == 700
    assert await job == "answer"
    assert remote.unmet.told_by(caller).waiting_bytes == 0


async def answers_of_each(outcome: object) -> list[Any]:
    return await Remote(cast("Any", FakeHandle([outcome]))).call_each("current_load")


async def test_each_replica_is_asked_and_those_that_fail_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await answers_of_each("busy") == ["busy"]
    assert await answers_of_each(UNAVAILABLE) == []
    monkeypatch.setattr(remote, "EACH_S", 0.01)
    assert await answers_of_each(asyncio.Event()) == []


async def test_of_a_deployment_without_replicas_nobody_is_asked() -> None:
    class Nobody(FakeHandle):
        def options(self, **_: Any) -> Nobody:
            return self

        def broadcast(self, method: str, *args: Any) -> Any:
            raise DeploymentUnavailableError(DeploymentID("fake", "app"))

    assert await Remote(cast("Any", Nobody([]))).call_each("current_load") == []
