"""What a dialect declares and the app runs: one Operation per method and path, its request schema, its handler, its answer's schema.

Knows the backend and the limits, not HTTP: a handler gets a checked body and gives an answer, or raises from `bgeserve.errors`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

from bgeserve.api.schema import Body
from bgeserve.protocols import Backend
from bgeserve.settings import IngressSettings
from bgeserve.types import Lane

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Call:
    """One request beside its body."""

    backend: Backend
    limits: IngressSettings
    names: ModelNames
    deadline: float
    """On this process's monotonic clock."""
    lane: Lane | None
    """None: not stated; each operation has its own default."""
    path: Mapping[str, str]
    """Parameters in the path, such as the collection's name; not checked yet."""

    @property
    def timeout_s(self) -> float:
        return max(0.0, self.deadline - monotonic())


class ModelNames:
    """What an answer calls the model when the request named none. Remembered: asking the backend may be a hop away."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._defaults: dict[str, str] = {}

    async def of(self, requested: str | None, role: Literal["embedder", "reranker"]) -> str:
        if requested is not None:
            return requested
        if role not in self._defaults:
            self._defaults[role] = next(info.name for info in await self._backend.models() if info.role == role)
        return self._defaults[role]


@dataclass(frozen=True, slots=True)
class Answer:
    """`render` makes what is serialised; it runs in a thread when `size` says that it would hold up the event loop."""

    render: Callable[[], object]
    size: int = 0
    """Bytes of JSON, roughly."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Operation(Generic[B]):
    """`request` is read from the body, or from the query string where the method has no body."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    summary: str
    request: type[B]
    response: Any
    handler: Callable[[Call, B], Awaitable[Answer]]
