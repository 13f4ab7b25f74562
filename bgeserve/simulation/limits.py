"""What else than the models would be full at some rate: the ingress, Serve's controller, the store. Each figure says where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

INGRESS_MS = 0.85
"""Of its event loop for a request of one text; benchmarks/results/2026-11-24-serving.md, "Where it goes"."""
SEARCH_INGRESS_MS = 2.85
SEARCH_STORE_MS = 3.45
"""CPU of a search over 20,000 chunks; benchmarks/results/2026-11-24-retrieval-speed.md, "CPU of a search by process"."""
CONTROLLER_MS_PER_S, CONTROLLER_MS_PER_REPLICA_S = 24.0, 3.5
"""CPU of Serve's controller a second, and for each replica that reports every half a second, as with a `cold_start_s` of 10;
`python -m benchmarks.autoscale.controller`, 2 cores of AMD EPYC, 2026-11-24."""
CONTROLLER_SOURCE = (
    f"{CONTROLLER_MS_PER_S:g} ms of one core a second and {CONTROLLER_MS_PER_REPLICA_S:g} for each: the line through 1 and 13"
)
BUSY_SHARE = 0.7
"""Of one core that a process may take before those who wait for it notice."""


@dataclass(frozen=True, slots=True)
class Limit:
    what: str
    at_peak: float
    unit: str
    each_takes: float
    """At `BUSY_SHARE` of a core."""
    may_grow: bool
    """Whether more than one may share the work."""
    source: str

    @property
    def needed(self) -> int:
        return max(1, ceil(self.at_peak / self.each_takes))

    @property
    def is_reached(self) -> bool:
        return self.needed > 1 and not self.may_grow


def limits(requests_per_s: float, searches_per_s: float, replicas: int) -> Sequence[Limit]:
    """At the peak. requests_per_s: over HTTP, searches among them; replicas: of all models, where they report every half a second."""
    per_request_ms = INGRESS_MS
    if requests_per_s > 0:
        per_request_ms += (SEARCH_INGRESS_MS - INGRESS_MS) * searches_per_s / requests_per_s
    found = [
        Limit("ingress", requests_per_s, "requests/s", _per_s(per_request_ms), True, f"{per_request_ms:.2g} ms of one core each"),
        Limit("controller", replicas, "replicas", _controlled(), False, CONTROLLER_SOURCE),
    ]
    if searches_per_s > 0:
        source = f"{SEARCH_STORE_MS} ms of one core each: 20,000 chunks in Qdrant Edge, which one replica owns"
        found.append(Limit("store", searches_per_s, "searches/s", _per_s(SEARCH_STORE_MS), False, source))
    return found


def _per_s(each_ms: float) -> float:
    return BUSY_SHARE * 1000 / each_ms


def _controlled() -> float:
    return (BUSY_SHARE * 1000 - CONTROLLER_MS_PER_S) / CONTROLLER_MS_PER_REPLICA_S
