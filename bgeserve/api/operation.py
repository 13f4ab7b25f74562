"""What a dialect declares and the app runs: one Operation per method and path, its request schema, its handler, its answer's schema.

Knows the backend and the limits, not HTTP: a handler gets a checked body and gives an answer, or raises from `bgeserve.errors`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from bgeserve.api.error_format import OPENAI, ErrorFormat
from bgeserve.api.keys import Key
from bgeserve.api.rights import Right
from bgeserve.api.schema import Body
from bgeserve.backend import Backend
from bgeserve.caller import Caller
from bgeserve.deadline import Deadline
from bgeserve.settings import IngressSettings
from bgeserve.types import Lane, Role

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Call:
    """One request beside its body."""

    backend: Backend
    limits: IngressSettings
    deadline: Deadline
    lane: Lane | None
    """None: not stated; each operation has its own default."""
    key: Key | None
    """With which it came, and what `backend` lets it do. None: the service has none."""
    path: Mapping[str, str]
    """Parameters in the path, such as the collection's name; not checked yet."""

    @property
    def tenant(self) -> str:
        return self.key.name if self.key else ""

    def caller(self, default_lane: Lane = "interactive") -> Caller:
        return Caller(self.lane or default_lane, self.deadline, self.tenant)

    def model(self, requested: str | None, role: Role) -> str:
        """The name for the backend and for the answer."""
        return self.backend.default_model(role) if requested is None else requested


@dataclass(frozen=True, slots=True)
class Answer:
    """`render` makes what is serialised; it runs in a thread when `size` says that it would hold up the event loop."""

    render: Callable[[], object]
    size: int = 0
    """Bytes of JSON, roughly."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    timings_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    """Where the time went behind the API, for the header `server-timing`."""
    model: str = ""
    """The one that answered, where the request chose one."""
    tokens: int = 0
    """Computed for it."""
    degraded: Sequence[str] = ()
    """Stages that were left out, because what they need did not answer."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[B]):
    """`request` is read from the body, or from the query string of a GET. Where it is Nothing no body is needed, and none with a field is
    taken: who deletes a collection may have meant some of its documents."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    summary: str
    request: type[B]
    response: Any
    handler: Callable[[Call, B], Awaitable[Answer]]
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the backend's texts, passages and outputs are called in this dialect, for errors about them."""
    errors: ErrorFormat = OPENAI
    """The shape of what it answers when it does not answer."""
    right: Right = field(kw_only=True)
    """What a key must allow. Without a default, so that no operation is open because nobody thought of it."""
