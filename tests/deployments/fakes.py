"""A deployment handle whose answers are listed beforehand: a value, an exception to raise, or an event to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any

from bgeserve.errors import BgeServeError


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


class FakeHandle:
    """`calls` says of each call its method, arguments and options, and whether it went by reference."""

    deployment_name = "fake"

    def __init__(self, outcomes: Sequence[object]) -> None:
        self._outcomes = list(outcomes)
        self._by_reference = False
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any], bool]] = []
        self.responses: list[FakeResponse] = []
        self.called = asyncio.Event()

    def options(self, *, _by_reference: bool = False, **_: Any) -> FakeHandle:
        other = FakeHandle([])
        other._outcomes, other.calls, other.responses, other.called = self._outcomes, self.calls, self.responses, self.called
        other._by_reference = _by_reference
        return other

    def __getattr__(self, method: str) -> FakeMethod:
        return FakeMethod(self, method)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FakeResponse:
        self.called.set()
        self.calls.append((method, args, kwargs, self._by_reference))
        outcome = self._outcomes.pop(0)
        response = FakeResponse(outcome(*args, **kwargs) if callable(outcome) else outcome)
        self.responses.append(response)
        return response


class FakeMethod:
    def __init__(self, handle: FakeHandle, name: str) -> None:
        self._handle = handle
        self._name = name

    def remote(self, *args: Any, **kwargs: Any) -> FakeResponse:
        return self._handle.call(self._name, args, kwargs)


class AsyncHandle:
    """A handle whose every method is one coroutine function."""

    def __init__(self, answer: Callable[..., Coroutine[Any, Any, object]]) -> None:
        self._answer = answer

    def options(self, **_: Any) -> AsyncHandle:
        return self

    def __getattr__(self, method: str) -> AsyncHandle:
        return self

    def remote(self, *args: Any, **kwargs: Any) -> asyncio.Task[object]:
        return asyncio.ensure_future(self._answer(*args, **kwargs))


class PieceHandle:
    """A handle to a piece of this process; `calls` says what was asked of it."""

    def __init__(self, deployment_name: str, piece: object) -> None:
        self.deployment_name = deployment_name
        self.calls: list[str] = []
        self._piece = piece

    def options(self, **_: Any) -> PieceHandle:
        return self

    def __getattr__(self, method: str) -> PieceMethod:
        return PieceMethod(self, method)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> asyncio.Task[Any]:
        self.calls.append(f"{self.deployment_name}.{method}")
        return asyncio.ensure_future(self._answered(method, args, kwargs))

    async def _answered(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """What a piece refuses is an answer between two processes, as `deployments.replica` has it."""
        try:
            return await getattr(self._piece, method)(*args, **kwargs)
        except BgeServeError as error:
            return error


class PieceMethod:
    def __init__(self, handle: PieceHandle, name: str) -> None:
        self._handle = handle
        self._name = name

    def remote(self, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return self._handle.call(self._name, args, kwargs)
