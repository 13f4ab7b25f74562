"""When a client sends, how long it waits before it sends again, and which error a failure is. Does no I/O: a generator says Send or Wait
and is told what came of it, so that the sync and the async client cannot differ.

Every call of the API may be repeated safely, so failures that may pass are retried within the deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from random import uniform
from time import monotonic
from typing import Any, TypeVar

import httpx

from bgeserve import errors, wire
from bgeserve.errors import BgeServeError, DeadlineExceeded, RequestError, ServiceError, Unavailable
from bgeserve.protocols import Readiness
from bgeserve.types import ModelStatus

T = TypeVar("T")

CONNECT_RETRY_S = 3.0
"""How long a service that cannot be reached is tried: within that time a front sends to another replica than the one that died."""
RECONNECT_RETRY_S = 20.0
"""One that has answered before is there, and comes back: within this time the only front is started anew after its death."""
GRACE_S = 1.0
"""The service ends a call at its deadline with an answer that says more than our own timeout would; that may still be on its way."""
POLL_S = 0.25


@dataclass(slots=True)
class Policy:
    """Of one client."""

    timeout_s: float
    """Of a call that states none, retries included."""
    retry: bool
    has_answered: bool = False
    """Whether the service ever has."""


@dataclass(frozen=True, slots=True)
class Send:
    request: wire.Request[Any]
    content: bytes | None
    timeout_s: float

    def arguments(self) -> dict[str, Any]:
        """Of httpx's `request`."""
        headers = {"x-timeout-ms": str(max(1, int(self.timeout_s * 1000)))}
        if self.content is not None:
            headers["content-type"] = "application/json"
        if self.request.lane is not None:
            headers["x-lane"] = self.request.lane
        return {
            "method": self.request.method,
            "url": self.request.path,
            "params": self.request.query,
            "content": self.content,
            "headers": headers,
            "timeout": self.timeout_s + GRACE_S,
        }


Wait = float
"""Seconds."""
Outcome = httpx.Response | httpx.TransportError | None
"""Of a Send: an answer or why there is none. Of a Wait: None."""
Steps = Generator[Send | Wait, Outcome, T]


def attempts(request: wire.Request[T], policy: Policy) -> Steps[T]:
    """Until there is an answer, an error that will not pass, or no time left."""
    content = request.content()
    timeout_s = policy.timeout_s if request.timeout_s is None else request.timeout_s
    started = monotonic()
    failures = 0
    while True:
        left_s = started + timeout_s - monotonic()
        outcome = yield Send(request, content, max(left_s, 0.001))
        if isinstance(outcome, httpx.Response) and outcome.status_code in request.accepted:
            policy.has_answered = True
            return _answer(request, outcome)
        error = _error(outcome, timeout_s)
        reconnect_s = RECONNECT_RETRY_S if policy.has_answered else CONNECT_RETRY_S
        wait_s = _wait_s(error, failures, monotonic() - started < reconnect_s) if policy.retry else None
        if wait_s is None or monotonic() + wait_s >= started + timeout_s:
            raise error
        failures += 1
        yield wait_s


def polls(timeout_s: float) -> Steps[Readiness]:
    """Until the service is ready. Raises Unavailable, saying what it still waits for."""

    def waits(readiness: Readiness) -> str | None:
        return None if readiness.ready else f"it waits for {', '.join(readiness.waiting_for)}"

    return _until(wire.ready(), waits, "the service is not ready", timeout_s)


def polls_model(name: str, timeout_s: float) -> Steps[ModelStatus]:
    """Until the model is available. Raises UnknownModel at once; Unavailable, saying what it still waits for."""

    def status_of(statuses: Sequence[ModelStatus]) -> ModelStatus:
        named = {status.name: status for status in statuses}
        if name not in named:
            raise errors.UnknownModel(f"model {name!r} is not served here; the models are {sorted(named)}", field="model")
        return named[name]

    def waits(statuses: Sequence[ModelStatus]) -> str | None:
        status = status_of(statuses)
        counts = ", ".join(f"{count} {state}" for state, count in status.replicas.items())
        return None if status.available else f"its replicas are {counts or 'not there yet'}"

    return status_of((yield from _until(wire.statuses(), waits, f"model {name!r} is not available", timeout_s)))


def _until(request: wire.Request[T], waits: Callable[[T], str | None], problem: str, timeout_s: float) -> Steps[T]:
    """Asks until there is an answer that waits for nothing, which `waits` puts into words otherwise."""
    started = monotonic()
    while True:
        outcome = yield Send(request, None, max(started + timeout_s - monotonic(), POLL_S))
        if isinstance(outcome, httpx.Response) and outcome.status_code in request.accepted:
            answer = _answer(request, outcome)
            reason = waits(answer)
            if reason is None:
                return answer
        else:
            error = _error(outcome, timeout_s)
            if isinstance(error, RequestError):
                raise error
            reason = error.message
        if monotonic() + POLL_S >= started + timeout_s:
            raise Unavailable(f"{problem} after {timeout_s:g} s: {reason}")
        yield POLL_S


def _answer(request: wire.Request[T], response: httpx.Response) -> T:
    try:
        return request.parse(response.json())
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ServiceError(f"{response.request.url} answered something that is not this API's: {response.text[:200]!r}") from error


def _wait_s(error: BgeServeError, failures: int, may_reconnect: bool) -> float | None:
    """None: sending again would not help."""
    if error.retry_after_s is not None:
        # Everyone who was refused hears the same number: not all of them should come back at once.
        return error.retry_after_s * uniform(1, 1.1)
    if isinstance(error, Unavailable) and may_reconnect:
        return min(0.05 * 2**failures, 1.0) * uniform(0.5, 1)
    return None


def _error(outcome: Outcome, timeout_s: float) -> BgeServeError:
    if isinstance(outcome, httpx.TimeoutException):
        return DeadlineExceeded(f"no answer within {timeout_s:g} s")
    if isinstance(outcome, httpx.Response):
        return _error_of_answer(outcome)
    return Unavailable(f"the service cannot be reached: {outcome}")


def _error_of_answer(response: httpx.Response) -> BgeServeError:
    """The error that the service raised; by status alone where something in between (a proxy) answered."""
    try:
        detail = response.json()["error"]
        message, field, code = str(detail["message"]), detail["param"], detail["code"]
    except (ValueError, KeyError, TypeError):
        message, field, code = f"{response.status_code} from {response.request.url}: {response.text[:200]!r}", None, None
    kind = _BY_STATUS_OF_A_FRONT.get(response.status_code) if code is None else _BY_CODE.get(code)
    kind = kind or (RequestError if response.status_code < 500 else ServiceError)
    return kind(message, field=field, retry_after_s=_retry_after_s(response.headers))


def _retry_after_s(headers: httpx.Headers) -> float | None:
    for name, per_s in (("retry-after-ms", 1000), ("retry-after", 1)):
        if (sent := headers.get(name, "")).isdecimal():
            return float(sent) / per_s
    return None


_RAISED_BY_SERVICES: tuple[type[BgeServeError], ...] = (
    errors.InvalidRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.NotFound,
    errors.UnknownModel,
    errors.WrongRole,
    errors.FingerprintMismatch,
    errors.Conflict,
    errors.StaleWrite,
    errors.SlowBody,
    errors.TooLarge,
    errors.Overloaded,
    errors.ReplicaFull,
    errors.RateLimited,
    errors.Unavailable,
    errors.StorageFull,
    errors.DeadlineExceeded,
    errors.ComputeError,
)
_BY_CODE: dict[str, type[BgeServeError]] = {kind.code: kind for kind in _RAISED_BY_SERVICES}
_BY_STATUS_OF_A_FRONT: dict[int, type[BgeServeError]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.Unavailable,  # a front that does not know the service yet: what the service does not find, it says itself
    413: errors.TooLarge,
    429: errors.Overloaded,
    500: errors.Unavailable,  # Ray's HAProxy says it in place of 502 and 503
    502: errors.Unavailable,  # a front whose replica died in the middle
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}
