"""What is sent to a simulated model, and what became of it. Knows seconds, tokens and lanes; no texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bgeserve.types import Lane


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float
    tokens: int
    """Of one request. More than a call takes goes over in several, as bulk."""
    lane: Lane = "interactive"
    requests: int = 1
    """So many of them come in one instant and go over as one call: a model with thousands of replicas gets too many to look at each."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How things stood at `at_s`."""

    at_s: float
    asked_for: int
    """Replicas, starting and leaving ones included: what is paid for."""
    running: int
    unanswered_tokens: float
    """Of all requests that have been sent and are not answered, wherever they are."""


@dataclass
class Outcome:
    """Times in seconds. `late`: of the requests that were not refused, those that had no answer at their deadline."""

    answered: dict[Lane, list[tuple[float, int]]] = field(default_factory=lambda: {"interactive": [], "bulk": []})
    """Latency and how many requests had it, by the lane that they were sent in."""
    late: int = 0
    refused: int = 0
    requests: int = 0
    replica_s: float = 0.0
    """From being asked for to being gone, over all replicas."""
    moments: list[Moment] = field(default_factory=list[Moment])

    @property
    def most_replicas(self) -> int:
        return max((moment.asked_for for moment in self.moments), default=0)

    def quantile_s(self, share: float, lane: Lane = "interactive") -> float:
        """Of the answered requests; NaN when there are none."""
        return weighted_quantile(self.answered[lane], share)


def weighted_quantile(counted: Sequence[tuple[float, int]], share: float) -> float:
    """The least value that at least `share` of the counted do not exceed; NaN of none."""
    if not counted:
        return float("nan")
    values, counts = np.array(counted, np.float64).T
    order = np.argsort(values)
    through = np.cumsum(counts[order])
    return float(values[order][np.searchsorted(through, share * through[-1])])
