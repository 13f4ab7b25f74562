"""Who decides how many replicas a simulated model has: what it is shown, and our own policy behind that."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from bgeserve.scaling import BacklogPolicy, Load, Rule, report_interval_s, window_s


@dataclass(frozen=True, slots=True)
class Seen:
    """How a model stands, of all replicas together."""

    now: float
    running: int
    asked_for: int
    queued_requests: int
    """Calls that no replica has, since none runs."""
    ongoing_requests: int
    """Those, and the calls at replicas."""
    load: Load
    """Sums; `tokens_per_s` of one replica."""


class Policy(Protocol):
    @property
    def interval_s(self) -> float:
        """Between two looks."""
        ...

    def wanted_replicas(self, seen: Seen) -> int: ...


class _Report(NamedTuple):
    timestamp: float
    value: float


class ByBacklog:
    """`scaling.BacklogPolicy`, told what all replicas say as if one of them said it."""

    def __init__(self, rule: Rule) -> None:
        self.interval_s = report_interval_s(rule.cold_start_s)
        self._window_s = window_s(rule.cold_start_s)
        self._policy = BacklogPolicy(**asdict(rule))
        self._reports: deque[tuple[float, dict[str, float]]] = deque()

    def wanted_replicas(self, seen: Seen) -> int:
        self._reports.append((seen.now, asdict(seen.load)))
        if seen.running == 0:
            self._reports.clear()  # nobody is there who would remember
        while self._reports and self._reports[0][0] < seen.now - self._window_s:
            self._reports.popleft()
        ctx = SimpleNamespace(
            current_time=seen.now,
            current_num_replicas=seen.running,
            target_num_replicas=seen.asked_for,
            total_queued_requests=seen.queued_requests,
            raw_metrics=self._series(),
        )
        return self._policy(ctx)[0]

    def _series(self) -> dict[str, dict[str, list[Any]]]:
        names = self._reports[-1][1] if self._reports else ()
        return {name: {"all": [_Report(at, values[name]) for at, values in self._reports]} for name in names}
