"""One call to another deployment, with what goes wrong between two processes: a dead replica (asked again once), a full one (routed
elsewhere once), a message too large for gRPC (sent through the object store), a caller who has gone (the replica drops the work).

Does not know what is called, nor which calls go over together (`joined.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from bgeserve.caller import ANYONE, Caller
from bgeserve.deadline import Deadline
from bgeserve.errors import BgeServeError, DeadlineExceeded, Overloaded, ReplicaFull, Unavailable
from bgeserve.types import Embeddings, Output
from bgeserve.unmet import UnmetHere
from deployments.joined import MAX_JOINED_BYTES, JoinedCalls, send_alone
from deployments.refusals import Refusals

MAX_GRPC_BYTES = 3 * 2**20
"""Serve's gRPC refuses messages over 4 MiB; what is larger travels through the object store, which small messages would find slower."""
PAUSE_S = 0.1
"""Between two tries, for the router to notice a death."""
START_RETRY_S = 5.0
"""What is said of when to come again where Serve has given up starting replicas: until somebody mends it, or Serve tries anew."""
EACH_S = 2.0
"""For an answer that takes a replica no time."""

Send = Callable[[str, Sequence[Any], Mapping[str, Any]], Coroutine[Any, Any, Any]]


class Remote:
    def __init__(self, handle: DeploymentHandle[Any], *, max_replicas: int = 1, max_joined_bytes: int = 0) -> None:
        """max_replicas: of the deployment. Only where there may be others is a call that one refused sent again at once.

        max_joined_bytes: small calls are joined up to so many bytes of text; the deployment must be one that `AnswersJoined`. 0: none are.
        """
        # What goes over is data: Ray's default looks at each object for code to carry along.
        self._by_value = handle.options(request_serialization="pickle", response_serialization="pickle")
        self._by_reference = handle.options(_by_reference=True)
        self._joined = JoinedCalls(self._by_value, max_joined_bytes) if max_joined_bytes else None
        self._refusals = Refusals()
        self.unmet = UnmetHere()
        self._tries = min(2, max_replicas)

    async def call(
        self,
        method: str,
        *args: Any,
        asked: Mapping[str, Any] | None = None,
        caller: Caller = ANYONE,
        text_bytes: int = 0,
        answer_bytes: int = 0,
    ) -> Any:
        """The replica's answer to `method(*args, **asked)`. It may be asked again, so what it does must bear being done twice.

        caller: whose call it is; a method that should know is told by `asked` too. text_bytes, answer_bytes: what goes over, about.
        Raises what the replica raised; Unavailable (a second replica died), Overloaded (no room), DeadlineExceeded.
        """
        try:
            return await self._call(self._way(text_bytes, answer_bytes), method, args, asked or {}, caller, text_bytes)
        except Overloaded:
            self.unmet.refused(text_bytes)
            raise

    async def _call(self, send: Send, method: str, args: Sequence[Any], asked: Mapping[str, Any], caller: Caller, text_bytes: int) -> Any:
        refusals = 0
        if caller.lane != "bulk":
            self._refusals.check(caller.lane, caller.tenant)
        dead: set[str] = set()
        while True:
            try:
                told = {**asked, "caller": self.unmet.told_by(caller)} if "caller" in asked else asked
                return await _answer(partial(send, method, args, told), caller.deadline)
            except RayActorError as death:
                # Until the router has heard of a death it may choose the dead replica again, which then has computed nothing.
                if dead and not (death.actor_id and death.actor_id in dead):
                    raise Unavailable("two replicas in a row died under this request", retry_after_s=1) from death
                dead.add(death.actor_id or "unnamed")
                pause_s = PAUSE_S
            except ReplicaFull as full:
                refusals += 1
                # Half of the backlog, so that a replica never runs dry while its next call waits.
                pause_s = 0 if refusals < self._tries else (full.retry_after_s or PAUSE_S) / 2
                if refusals >= self._tries and caller.lane != "bulk":  # a job waits; a person is better told at once
                    self._refusals.remember(caller.lane, caller.tenant, full)
                    raise Overloaded(full.message, retry_after_s=full.retry_after_s) from None
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED or send == self._send_by_reference:
                    raise
                send, pause_s = self._send_by_reference, 0
            with self.unmet.waiting(text_bytes):
                await asyncio.sleep(min(pause_s, caller.deadline.remaining_s() or pause_s))

    async def call_each(self, method: str) -> list[Any]:
        """What each running replica answers to `method()`; nothing at all where one hangs for EACH_S. Starts none."""
        try:
            answers = await self._by_value.broadcast(method).results_async(timeout_s=EACH_S, return_exceptions=True)
        except (TimeoutError, RayError, RayServeException):  # none runs, or nobody can say which do
            return []
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def _way(self, text_bytes: int, answer_bytes: int) -> Send:
        payload_bytes = text_bytes + answer_bytes
        if payload_bytes > MAX_GRPC_BYTES:
            return self._send_by_reference
        if self._joined is None or payload_bytes > MAX_JOINED_BYTES:
            return partial(send_alone, self._by_value)
        return partial(self._joined.call, text_bytes=text_bytes)

    async def _send_by_reference(self, method: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        return await send_alone(self._by_reference, method, args, keywords)


async def _answer(ask: Callable[[], Coroutine[Any, Any, Any]], deadline: Deadline) -> Any:
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            answer = await ask()
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed while a replica was at work") from None
    except DeploymentUnavailableError as error:
        raise Unavailable(f"no replica can start: {error.message}", retry_after_s=START_RETRY_S) from None
    if isinstance(answer, BgeServeError):
        raise answer
    return answer


def bytes_of_answer(texts: Sequence[str], outputs: Sequence[Output]) -> int:
    """A guess at float32 vectors of 1,024 dimensions, four characters a token."""
    per_vector = 4 * 1024
    tokens = sum(map(len, texts)) // 4
    return per_vector * (("dense" in outputs) * len(texts) + ("multi_vector" in outputs) * tokens)


def bytes_of(embeddings: Embeddings) -> int:
    dense = 0 if embeddings.dense is None else embeddings.dense.nbytes
    sparse = sum(vector.indices.nbytes + vector.values.nbytes for vector in embeddings.sparse or ())
    return dense + sparse + sum(vectors.nbytes for vectors in embeddings.multi_vector or ())
