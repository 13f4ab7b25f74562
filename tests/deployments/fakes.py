"""A deployment handle whose answers are listed beforehand: a value, an exception to raise, or an event to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Sequence
from typing import Any

from bgeserve.errors import BgeServeError
from deployments.joined import AnswersJoined, JoinedCall


class FakeResponse:
    def __init__(self, outcome: object) -> None:
        self._outcome = outcome
        self.was_cancelled = False

    def __await__(self) -> Generator[Any, None, Any]:
        if isinstance(self._outcome, asyncio.Event):
            yield from self._outcome.wait().__await__()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def cancel(self) -> None:
        self.was_cancelled = True


class FakeReplica(AnswersJoined):
    """The real answering of joined calls, over a handle whose calls are fake."""

    def __init__(self, call: Callable[[str, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()
        self._call = call

    def __getattr__(self, method: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            response = self._call(method, args, kwargs)
            try:
                return await response
            except asyncio.CancelledError:
                response.cancel()
                raise

        return call

    def __call__(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FakeStream:
        return FakeStream(self.answer_joined(*args))


class FakeStream:
    def __init__(self, messages: Any) -> None:
        self._messages = messages
        self._next: asyncio.Future[Any] | None = None

    def __aiter__(self) -> AsyncIterator[list[tuple[str, Any]]]:
        return self

    async def __anext__(self) -> list[tuple[str, Any]]:
        self._next = asyncio.ensure_future(anext(self._messages))
        return await self._next

    def cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()


async def _ending_with(error: Exception) -> AsyncGenerator[Any]:
    raise error
    yield


class FakeBroadcast:
    def __init__(self, sending: Coroutine[Any, Any, Any]) -> None:
        self._sending = sending

    async def results_async(self, *, return_exceptions: bool, timeout_s: float | None = None) -> list[Any]:
        """As Ray's: one that takes longer leaves nothing of the others' answers."""
        (answer,) = await asyncio.wait_for(asyncio.gather(self._sending, return_exceptions=return_exceptions), timeout_s)
        return [answer]


class FakeHandle:
    """`calls` says of each call its method, arguments and options, and whether it went by reference."""

    deployment_name = "fake"

    def __init__(self, outcomes: Sequence[object], deaths: Sequence[Exception] = ()) -> None:
        """deaths: what the first joined calls end with, before any of them is computed."""
        self._outcomes = list(outcomes)
        self.deaths = list(deaths)
        self._by_reference = False
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any], bool]] = []
        self.responses: list[FakeResponse] = []
        self.called = asyncio.Event()
        self.joined: list[Sequence[JoinedCall]] = []
        self.replica = FakeReplica(self.call)

    def options(self, *, _by_reference: bool = False, stream: bool = False, **_: Any) -> FakeHandle:
        other = FakeHandle([])
        other.joined, other.replica, other.deaths = self.joined, self.replica, self.deaths
        other._outcomes, other.calls, other.responses, other.called = self._outcomes, self.calls, self.responses, self.called
        other._by_reference = _by_reference
        return other

    def __getattr__(self, method: str) -> FakeMethod:
        return FakeMethod(self, method)

    def broadcast(self, method: str, *args: Any) -> FakeBroadcast:
        return FakeBroadcast(getattr(self.replica, method)(*args))

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method == "answer_joined":
            self.joined.append(args[0])
            if self.deaths:
                return FakeStream(_ending_with(self.deaths.pop(0)))
            return self.replica(method, args, kwargs)
        self.called.set()
        self.calls.append((method, args, kwargs, self._by_reference))
        outcome = self._outcomes.pop(0)
        response = FakeResponse(outcome(*args, **kwargs) if callable(outcome) else outcome)
        self.responses.append(response)
        return response


class FakeMethod:
    def __init__(self, handle: FakeHandle | AsyncHandle | PieceHandle, name: str) -> None:
        self._handle = handle
        self._name = name

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        return self._handle.call(self._name, args, kwargs)


class AsyncHandle:
    """A handle whose every method is one coroutine function."""

    def __init__(self, answer: Callable[..., Coroutine[Any, Any, object]]) -> None:
        self._answer = answer

    def options(self, **_: Any) -> AsyncHandle:
        return self

    def __getattr__(self, method: str) -> FakeMethod:
        return FakeMethod(self, method)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method == "answer_joined":
            return FakeReplica(self.call)(method, args, kwargs)
        return asyncio.ensure_future(self._answer(*args, **kwargs))


class PieceHandle:
    """A handle to a piece of this process; `calls` says what was asked of it."""

    def __init__(self, deployment_name: str, piece: object) -> None:
        self.deployment_name = deployment_name
        self.calls: list[str] = []
        self._piece = piece

    def options(self, **_: Any) -> PieceHandle:
        return self

    def __getattr__(self, method: str) -> FakeMethod:
        return FakeMethod(self, method)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method == "answer_joined":
            return FakeReplica(self.call)(method, args, kwargs)
        self.calls.append(f"{self.deployment_name}.{method}")
        return asyncio.ensure_future(self._answered(method, args, kwargs))

    async def _answered(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """What a piece refuses is an answer between two processes, as `deployments.replica` has it."""
        try:
            return await getattr(self._piece, method)(*args, **kwargs)
        except BgeServeError as error:
            return error
