"""Small calls of several requests, sent to a replica as one: a call over Ray costs milliseconds of CPU, whatever it carries.

Both sides of it: `JoinedCalls` gathers at the caller, `AnswersJoined` is what a deployment inherits. Each call keeps its own lane,
deadline, tenant and options; it is answered as soon as it is done, and no longer computed once its caller has gone. Knows no models.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from bgeserve.errors import ServiceError
from bgeserve.redaction import said
from bgeserve.travels import travels
from deployments import logs

logger = logging.getLogger("ray.serve")

MAX_JOINED = 48
MAX_JOINED_BYTES = 64 * 2**10
"""Of one call and its answer: MAX_JOINED of them fit into one message of gRPC, and larger ones are worth a call of their own."""
GATHER_SHARE = 0.05
MAX_GATHER_S = 0.005
"""A call waits here for others for so much of what the latest one waited for a worker, at most so long: nothing while workers are free."""
FORGET_WITHIN_S = 0.02
"""Callers that go away within this are told to the replicas together."""


@travels
class JoinedCall:
    """One call as it goes over."""

    id: str
    method: str
    args: Sequence[Any]
    keywords: Mapping[str, Any]
    request_id: str = ""
    """Of the request that it is a part of: what carries it over belongs to any one of them."""


@dataclass(slots=True, eq=False)
class _Waiting:
    call: JoinedCall
    text_bytes: int
    answer: asyncio.Future[Any]
    sent: _Sent | None = None


@dataclass(slots=True, eq=False)
class _Sent:
    """Calls on their way to one replica, by id; those that were answered or called off are taken out."""

    calls: dict[str, _Waiting]
    task: asyncio.Task[None] | None = None


async def send_alone(handle: DeploymentHandle[Any], method: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """One call as it is, which the replica drops when its caller goes away."""
    response = getattr(handle, method).remote(*args, **keywords)
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise


class JoinedCalls:
    """For one event loop and the replicas of one deployment."""

    def __init__(self, handle: DeploymentHandle[Any], max_call_bytes: int) -> None:
        """max_call_bytes: of the texts of all calls that are sent as one."""
        self._handle = handle
        self._stream = handle.options(stream=True)
        self._max_call_bytes = max_call_bytes
        prefix = os.urandom(8).hex()  # replicas tell the calls of several callers apart
        self._names = (f"{prefix}-{n}" for n in count())
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone: list[str] = []
        self._latest_wait_s = 0.0

    async def call(self, method: str, args: Sequence[Any], keywords: Mapping[str, Any], text_bytes: int) -> Any:
        """The replica's answer, which may be a BgeServeError. Raises what ended the call that carried it, such as RayActorError."""
        loop = asyncio.get_running_loop()
        if self._waiting and sum(waiting.text_bytes for waiting in self._waiting) + text_bytes > self._max_call_bytes:
            self._send()
        call = JoinedCall(next(self._names), method, args, keywords, logs.request_id())
        waiting = _Waiting(call, text_bytes, loop.create_future())
        self._waiting.append(waiting)
        if len(self._waiting) == MAX_JOINED:
            self._send()
        elif self._sending is None:
            self._sending = loop.call_later(self._gather_s(), self._send) if self._tasks else loop.call_soon(self._send)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._call_off(waiting)
            raise

    def _gather_s(self) -> float:
        return min(MAX_GATHER_S, GATHER_SHARE * self._latest_wait_s)

    def _send(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        # A call that has just been called off takes itself out a moment later.
        waiting, self._waiting = [one for one in self._waiting if not one.answer.done()], []
        if not waiting:
            return
        sent = _Sent({one.call.id: one for one in waiting})
        for one in waiting:
            one.sent = sent
        calls = [one.call for one in waiting]
        sent.task = asyncio.get_running_loop().create_task(self._alone(sent, *calls) if len(calls) == 1 else self._together(sent, calls))
        self._tasks.add(sent.task)
        sent.task.add_done_callback(partial(self._ended, sent))

    async def _alone(self, sent: _Sent, call: JoinedCall) -> None:
        self._settle(sent, [(call.id, await send_alone(self._handle, call.method, call.args, call.keywords))])

    async def _together(self, sent: _Sent, calls: Sequence[JoinedCall]) -> None:
        response: Any = self._stream.answer_joined.remote(calls)  # a generator, since it is of the handle with stream=True
        try:
            async for answers in response:
                self._settle(sent, answers)
        except asyncio.CancelledError:
            response.cancel()
            raise

    def _settle(self, sent: _Sent, answers: Sequence[tuple[str, Any]]) -> None:
        for id, answer in answers:
            waiting = sent.calls.pop(id, None)
            if waiting is not None and not waiting.answer.done():
                waiting.answer.set_result(answer)
        # A refusal has no timings.
        waits_ms = [answer.timings_ms["wait"] for _, answer in answers if getattr(answer, "timings_ms", None)]
        self._latest_wait_s = max(waits_ms, default=1000 * self._latest_wait_s) / 1000

    def _ended(self, sent: _Sent, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        for waiting in sent.calls.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(error or ServiceError("the replica ended the call without an answer"))

    def _call_off(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        elif waiting.sent is not None and waiting.sent.calls.pop(waiting.call.id, None):
            if not waiting.sent.calls:
                if waiting.sent.task is not None:
                    waiting.sent.task.cancel()
                return
            if not self._gone:
                asyncio.get_running_loop().call_later(FORGET_WITHIN_S, self._forget)
            self._gone.append(waiting.call.id)

    def _forget(self) -> None:
        gone, self._gone = self._gone, []
        task = asyncio.get_running_loop().create_task(self._tell_replicas(gone))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_replicas(self, gone: list[str]) -> None:
        try:
            await self._handle.broadcast("forget", gone).results_async(return_exceptions=True)
        except (RayError, RayServeException) as error:  # who is not there computes nothing
            logger.info("%d calls were not called off: %s", len(gone), error)


class AnswersJoined:
    """For a deployment whose methods may be called in joined calls."""

    def __init__(self) -> None:
        self._joined: dict[str, asyncio.Task[Any]] = {}

    async def answer_joined(self, calls: Sequence[JoinedCall]) -> AsyncGenerator[list[tuple[str, Any]]]:
        """Each call's id and answer as it is done; what is done at the same time goes back in one message."""
        ended: asyncio.Queue[str] = asyncio.Queue()
        tasks = {call.id: asyncio.create_task(self._answer(call)) for call in calls}
        for id, task in tasks.items():
            task.add_done_callback(lambda _, id=id: ended.put_nowait(id))
        self._joined |= tasks
        try:
            left = len(tasks)
            while left:
                ids = [await ended.get()]
                while not ended.empty():
                    ids.append(ended.get_nowait())
                left -= len(ids)
                if answers := [(id, tasks[id].result()) for id in ids if not tasks[id].cancelled()]:
                    yield answers
        finally:
            for id, task in tasks.items():
                task.cancel()
                del self._joined[id]

    async def forget(self, ids: Sequence[str]) -> None:
        """The callers of these have gone. Ids of other replicas' calls are ignored: everyone is told."""
        for id in ids:
            if id in self._joined:
                self._joined[id].cancel()

    async def _answer(self, call: JoinedCall) -> Any:
        logs.work_for(call.request_id)
        try:
            return await getattr(self, call.method)(*call.args, **call.keywords)
        except Exception as error:
            # The others of this joined call must not end with it.
            logger.exception("%s failed", call.method)
            return ServiceError(f"{call.method} failed: {said(error)}")
