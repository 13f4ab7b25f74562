"""A load: requests that are prepared beforehand, when they are sent, and what became of each.

Travels between processes as a pickle, so that a client imports nothing but the standard library. Knows neither HTTP nor models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OK = 200
NO_ANSWER = 0
"""Status of a request whose client hung up, or whose connection broke."""


@dataclass(frozen=True, slots=True)
class Request:
    payload: Any
    """Bytes for a server; for an engine in this machine's memory what its method takes."""
    tokens: int
    """As the model's tokenizer counts them, special ones included; 0 where only the answer says."""
    hang_up_s: float | None = None
    """After which the client goes away without having waited for the answer."""


@dataclass(frozen=True, slots=True)
class Closed:
    """So many clients, each of which sends the next request when its last one is answered; none is sent after `seconds`."""

    requests: Sequence[Request]
    clients: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """Each request at its own instant, whatever has become of those before it."""

    requests: Sequence[Request]
    arrivals_s: Sequence[float]


Load = Closed | Open
Plan = Mapping[str, Load]
"""Loads that go on at the same time, by name."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    counted_tokens: int | None = None
    """As the server's own counter says in the answer."""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Instants are seconds since the load began."""

    due_s: float
    """When it was meant to be sent: latency counts from here, so that a client or a server that lags cannot hide it."""
    sent_s: float
    ended_s: float
    tokens: int
    reply: Reply

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.due_s


@dataclass(frozen=True, slots=True)
class Record:
    outcomes: Mapping[str, Sequence[Outcome]]
    seconds: float
    client_cpu_s: float
    """Of the process that sent the load."""
