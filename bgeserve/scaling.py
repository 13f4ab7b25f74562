"""How many replicas a model should have: by the seconds of work that wait for it, and those that will when another replica is ready.

Knows tokens, seconds and counts, and in what form Serve tells them. Imports nothing but the standard library: Serve's controller, where the
decision is made, runs outside of any runtime environment of ours, and gets this module by value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

BUSY_SHARE = 0.8
"""Of a replica's speed that work which goes on coming may take: at all of it, the least unevenness would queue up for good."""
MIN_WINDOW_S = 10.0
REPORTS_PER_WINDOW = 20
LATEST_SHARE = 0.25
"""Of the window, which counts while work is refused: until the mean of the whole window shows a rise, what it brings is lost."""


@dataclass(frozen=True)
class Load:
    """What one replica says of its work. Counters only grow; in tokens, and tokens per second."""

    queued_tokens: float
    """Wait or run here now."""
    waiting_tokens: float
    """Wait for any replica at all senders that this one heard of: every replica says about the same."""
    tokens_per_s: float
    """Measured, of all its workers; 0 before anything was."""
    computed_tokens: float
    """Counter."""
    refused_tokens: float
    """Counter, of what senders told this replica alone that they refused."""


@dataclass(frozen=True)
class Work:
    """What comes and waits, of all replicas together."""

    tokens_per_s: float
    """Of one replica, in the mean; above 0."""
    backlog_tokens: float
    arriving_tokens_per_s: float
    """That were accepted, over the last `window_s`."""
    refused_tokens_per_s: float = 0.0
    """Likewise."""
    latest_tokens_per_s: float = 0.0
    """That came, accepted or refused, over the last `LATEST_SHARE` of that."""


@dataclass(frozen=True)
class Rule:
    """As in `replica_settings.ModelReplicas`."""

    min: int
    max: int
    target_backlog_s: float
    cold_start_s: float
    hold_down_s: float
    idle_s: float


def window_s(cold_start_s: float) -> float:
    """What came within this is taken for what will come while a replica starts: as long as that takes."""
    return max(MIN_WINDOW_S, cold_start_s)


def report_interval_s(cold_start_s: float) -> float:
    return window_s(cold_start_s) / REPORTS_PER_WINDOW


def needed_replicas(rule: Rule, work: Work, running: int, asked_for: int, coming_s: float) -> int:
    """Without bounds and memory. asked_for: running and starting ones; coming_s: seconds within the next `cold_start_s`
    that those which are starting will work, added up.

    What can be done before another replica could be ready asks for none. What is left then is to be done within as long as that one took
    to come, down to `target_backlog_s` for each.
    """
    within_s = max(rule.cold_start_s, rule.target_backlog_s)
    coming_tokens_per_s = work.arriving_tokens_per_s + work.refused_tokens_per_s
    if work.refused_tokens_per_s > 0:
        coming_tokens_per_s = max(coming_tokens_per_s, work.latest_tokens_per_s)
    steady = coming_tokens_per_s / (BUSY_SHARE * work.tokens_per_s)
    done_tokens = work.tokens_per_s * (running * rule.cold_start_s + coming_s)
    left_tokens = max(0.0, work.backlog_tokens + work.arriving_tokens_per_s * rule.cold_start_s - done_tokens)
    excess_s = left_tokens / work.tokens_per_s - rule.target_backlog_s * asked_for
    if excess_s > 0:
        return max(asked_for, ceil(steady + excess_s / within_s))
    # Busy replicas alone are no reason for more, while nobody waits too long; that work is refused is one.
    least = ceil(steady) if work.refused_tokens_per_s > 0 else 0
    return max(least, min(asked_for, ceil(steady + work.backlog_tokens / work.tokens_per_s / within_s)))


class Scaler:
    """Up at once; down to the most that was needed within `hold_down_s`; to zero once nothing came for `idle_s`. `now` in seconds."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._needed: deque[tuple[float, int]] = deque()  # when, how many: falling, so that the first is the most
        self._starting: deque[tuple[float, int]] = deque()  # when asked for, how many
        self._asked_for = 0
        self._busy_at = 0.0

    def wanted_replicas(self, now: float, *, running: int, asked_for: int, queued_requests: float, work: Work | None) -> int:
        """asked_for: what was wanted before, running or not. queued_requests: that no replica has. work: None before a replica said."""
        if not self._needed:  # whatever was before is not known: as if it had been needed
            self._busy_at = now
            self._needed.append((now, asked_for))
        self._see(now, running, asked_for)
        if queued_requests > 0 or (work is not None and work.backlog_tokens + work.arriving_tokens_per_s + work.refused_tokens_per_s > 0):
            self._busy_at = now
        if work is None or running == 0:
            needed = max(asked_for, ceil(min(queued_requests, 1)))
        else:
            needed = needed_replicas(self._rule, work, running, asked_for, self._coming_s(now))
        while self._needed and self._needed[-1][1] <= needed:
            self._needed.pop()
        self._needed.append((now, needed))
        while self._needed[0][0] < now - self._rule.hold_down_s:
            self._needed.popleft()
        floor = max(self._rule.min, 0 if now - self._busy_at >= self._rule.idle_s else min(1, asked_for))
        return min(self._rule.max, max(floor, self._needed[0][1]))

    def _see(self, now: float, running: int, asked_for: int) -> None:
        """Which replicas have been starting, since when: the first that were asked for are the first that run."""
        if asked_for > self._asked_for:
            self._starting.append((now, asked_for - self._asked_for))
            self._busy_at = now
        self._asked_for = asked_for
        surplus = sum(count for _, count in self._starting) - max(0, asked_for - running)
        while surplus > 0:
            at, count = self._starting.popleft()
            if count > surplus:
                self._starting.appendleft((at, count - surplus))
            surplus -= count

    def _coming_s(self, now: float) -> float:
        return sum(count * min(now - at, self._rule.cold_start_s) for at, count in self._starting)


class BacklogPolicy:
    """What Serve's `AutoscalingConfig(policy=...)` takes. The controller makes one of each deployment and calls it in each of its loops."""

    def __init__(self, **rule: Any) -> None:
        self._rule = Rule(**rule)
        self._scaler = Scaler(self._rule)

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """ctx: Serve's AutoscalingContext."""
        wanted = self._scaler.wanted_replicas(
            ctx.current_time,
            running=ctx.current_num_replicas,
            asked_for=ctx.target_num_replicas,
            queued_requests=ctx.total_queued_requests,
            work=work_of(ctx.raw_metrics, window_s(self._rule.cold_start_s)),
        )
        return wanted, {}


def work_of(series: Mapping[str, Mapping[Any, Sequence[Any]]], window_s: float) -> Work | None:
    """From each replica's reports of the last `window_s`, as Serve gives them: by the names of `Load`'s fields, then by replica, values
    with their timestamps. None before any replica has measured its speed.
    """
    speeds = [value for value in _latest(series.get("tokens_per_s", {})) if value > 0]
    if not speeds:
        return None
    accepted, refused = _came(series, window_s)
    return Work(
        tokens_per_s=sum(speeds) / len(speeds),
        backlog_tokens=sum(_latest(series.get("queued_tokens", {}))) + max(_latest(series.get("waiting_tokens", {})), default=0.0),
        arriving_tokens_per_s=accepted,
        refused_tokens_per_s=refused,
        latest_tokens_per_s=sum(_came(series, LATEST_SHARE * window_s)),
    )


def _came(series: Mapping[str, Mapping[Any, Sequence[Any]]], within_s: float) -> tuple[float, float]:
    """Tokens per second that were accepted and refused."""
    queued, computed, refused = (
        [[point for point in points if point.timestamp >= points[-1].timestamp - within_s] for points in series.get(name, {}).values()]
        for name in ("queued_tokens", "computed_tokens", "refused_tokens")
    )
    spans_s = [points[-1].timestamp - points[0].timestamp for points in computed if points]
    # Of a young service only as long as it has been there; a single report says nothing of what comes.
    span_s = min(within_s, max(spans_s, default=0.0)) or within_s
    return max(0.0, _growth(computed) + _growth(queued)) / span_s, _growth(refused) / span_s


def _latest(of_replicas: Mapping[Any, Sequence[Any]]) -> list[float]:
    return [points[-1].value for points in of_replicas.values() if points]


def _growth(of_replicas: Iterable[Sequence[Any]]) -> float:
    return sum(points[-1].value - points[0].value for points in of_replicas if points)
