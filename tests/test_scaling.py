"""How many replicas are wanted: within bounds, as many as the work needs at once, and fewer only after a while."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgeserve.scaling import BUSY_SHARE, Rule, Scaler, Work, needed_replicas, work_of

SPEED = 1000.0
RULE = Rule(min=1, max=100, target_backlog_s=0.5, cold_start_s=10, hold_down_s=60, idle_s=300)
TICK_S = 0.5


class Point(NamedTuple):
    timestamp: float
    value: float


rules = st.builds(
    Rule,
    min=st.integers(0, 5),
    max=st.integers(5, 2000),
    target_backlog_s=st.floats(0.05, 5),
    cold_start_s=st.floats(0, 300),
    hold_down_s=st.floats(0, 600),
    idle_s=st.floats(0, 600),
)
works = st.builds(
    Work,
    tokens_per_s=st.floats(1, 1e6),
    backlog_tokens=st.floats(0, 1e9),
    arriving_tokens_per_s=st.floats(0, 1e9),
    refused_tokens_per_s=st.floats(0, 1e9),
    latest_tokens_per_s=st.floats(0, 1e9),
)


class Service:
    """Replicas of one speed and a queue without end, on a clock of its own."""

    def __init__(self, rule: Rule, running: int) -> None:
        self.rule, self.scaler = rule, Scaler(rule)
        self.now = self.backlog = 0.0
        self.asked_for = running
        self.ready_at = [0.0] * running
        self.counts: list[int] = []

    @property
    def running(self) -> int:
        return sum(at <= self.now for at in self.ready_at)

    def run(self, seconds: float, tokens_per_s: float = 0.0, queued_requests: float = 0.0) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.backlog = max(0.0, self.backlog + TICK_S * (tokens_per_s - SPEED * self.running))
            work = Work(SPEED, self.backlog, tokens_per_s) if self.running else None
            wanted = self.scaler.wanted_replicas(
                self.now, running=self.running, asked_for=self.asked_for, queued_requests=queued_requests, work=work
            )
            if wanted > self.asked_for:
                self.ready_at += [self.now + self.rule.cold_start_s] * (wanted - self.asked_for)
            self.ready_at = sorted(self.ready_at)[:wanted]
            self.asked_for = wanted
            self.counts.append(wanted)
            self.now += TICK_S


@given(rules, st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2000), st.none() | works, st.floats(0, 1e4)), max_size=20))
def test_never_outside_of_the_bounds(rule: Rule, seen: list[tuple[float, int, Work | None, float]]) -> None:
    scaler, now, asked_for = Scaler(rule), 0.0, rule.min
    for later_s, running, work, queued_requests in seen:
        now += later_s
        asked_for = scaler.wanted_replicas(
            now, running=min(running, asked_for), asked_for=asked_for, queued_requests=queued_requests, work=work
        )
        assert rule.min <= asked_for <= rule.max


@given(rules, works, st.floats(0, 1e9), st.integers(1, 2000), st.integers(0, 2000))
def test_more_backlog_never_asks_for_fewer(rule: Rule, work: Work, more_tokens: float, running: int, starting: int) -> None:
    more = replace(work, backlog_tokens=work.backlog_tokens + more_tokens)
    assert needed_replicas(rule, more, running, running + starting, 0) >= needed_replicas(rule, work, running, running + starting, 0)


@given(rules, works, st.floats(0, 1e9), st.integers(1, 2000))
def test_more_refusals_never_ask_for_fewer(rule: Rule, work: Work, more_tokens_per_s: float, running: int) -> None:
    more = replace(work, refused_tokens_per_s=work.refused_tokens_per_s + more_tokens_per_s)
    assert needed_replicas(rule, more, running, running, 0) >= needed_replicas(rule, work, running, running, 0)


@given(st.floats(0.1, 60), st.integers(1, 80))
def test_a_constant_load_ends_with_replicas_that_bear_it_and_do_not_change_again(load: float, running: int) -> None:
    service = Service(RULE, running)
    service.run(300, load * SPEED)
    service.run(300, load * SPEED)
    settled = service.counts[-600:]
    assert len(set(settled)) == 1
    assert load <= settled[0] <= ceil(load / BUSY_SHARE) or settled[0] <= running
    assert service.backlog <= RULE.target_backlog_s * SPEED * settled[0]


def test_replicas_that_are_starting_are_not_asked_for_again() -> None:
    service = Service(RULE, 1)
    service.run(RULE.cold_start_s, 10 * SPEED)
    assert 10 / BUSY_SHARE <= service.counts[0] <= service.counts[-1] <= 1.2 * service.counts[0]


def test_work_that_is_done_before_a_replica_could_be_ready_asks_for_none() -> None:
    work = Work(SPEED, backlog_tokens=RULE.cold_start_s * SPEED, arriving_tokens_per_s=0)
    assert needed_replicas(RULE, work, 1, 1, 0) == 1
    assert needed_replicas(RULE, replace(work, backlog_tokens=10 * work.backlog_tokens), 1, 1, 0) == 9


def test_busy_replicas_are_no_reason_for_more_while_nothing_waits() -> None:
    assert needed_replicas(RULE, Work(SPEED, 100, 2 * SPEED), 2, 2, 0) == 2


def test_what_is_refused_is_counted() -> None:
    full = Work(SPEED, 2 * SPEED, SPEED, refused_tokens_per_s=9 * SPEED)
    assert needed_replicas(RULE, full, 1, 1, 0) >= 10


def test_what_is_refused_asks_for_replicas_even_where_those_that_start_will_do_all_that_waits() -> None:
    work = Work(SPEED, 2 * SPEED, SPEED, refused_tokens_per_s=2 * SPEED)
    assert needed_replicas(RULE, replace(work, refused_tokens_per_s=0), 1, 2, 5) == 2
    assert needed_replicas(RULE, work, 1, 2, 5) == ceil(3 / BUSY_SHARE)


def test_while_work_is_refused_what_came_last_counts() -> None:
    rising = Work(SPEED, 2 * SPEED, SPEED, refused_tokens_per_s=SPEED, latest_tokens_per_s=6 * SPEED)
    assert needed_replicas(RULE, rising, 1, 2, 5) == ceil(6 / BUSY_SHARE)
    assert needed_replicas(RULE, replace(rising, refused_tokens_per_s=0), 1, 2, 5) == 2
    assert needed_replicas(RULE, replace(rising, latest_tokens_per_s=0), 1, 2, 5) == ceil(2 / BUSY_SHARE)


def test_replicas_go_after_the_hold_down_and_not_before() -> None:
    service = Service(RULE, 8)
    service.run(RULE.hold_down_s, 2 * SPEED)
    assert set(service.counts) == {8}
    service.run(5, 2 * SPEED)
    assert service.counts[-1] == ceil(2 / BUSY_SHARE)


def test_a_lull_that_is_shorter_than_the_hold_down_costs_no_cold_start() -> None:
    service = Service(RULE, 8)
    for _ in range(5):
        service.run(20, 6 * SPEED)
        service.run(RULE.hold_down_s - 5, SPEED)
    assert set(service.counts) == {8}


@pytest.mark.parametrize(("least", "end"), [(0, 0), (1, 1)])
def test_to_zero_only_where_asked_and_after_the_idle_time(least: int, end: int) -> None:
    service = Service(replace(RULE, min=least), 3)
    service.run(RULE.idle_s - TICK_S, 0)
    assert service.counts[-1] == 1
    service.run(5, 0)
    assert service.counts[-1] == end


def test_from_zero_with_the_first_request_and_not_back_while_it_starts() -> None:
    service = Service(replace(RULE, min=0, idle_s=0), 0)
    service.run(5, 0)
    assert set(service.counts) == {0}
    service.run(TICK_S, queued_requests=1)
    assert service.counts[-1] == 1
    service.run(RULE.cold_start_s - 1, queued_requests=0)
    assert service.counts[-1] == 1


def said(a: tuple[float, float, float], b: tuple[float, float]) -> dict[str, list[Point]]:
    """One figure of three replicas: of ten seconds, of the last two of them, and of one that has just come."""
    return {"a": [*map(Point, (0, 8, 10), a)], "b": [*map(Point, (8, 10), b)], "new": [Point(10, 0)]}


def test_what_the_replicas_said_becomes_the_work_of_all() -> None:
    reports = {
        "tokens_per_s": said((900, 950, 1000), (0, 2000)),
        "queued_tokens": said((500, 1500, 2000), (0, 1000)),
        "waiting_tokens": said((0, 0, 5000), (0, 4000)),
        "computed_tokens": said((7000, 12000, 15000), (0, 500)),
        "refused_tokens": said((100, 100, 300), (0, 100)),
    }
    latest = (3000 + 500 + 500 + 1000 + 200 + 100) / 2
    assert work_of(reports, window_s=10) == Work(1500, 3000 + 5000, (8000 + 500 + 1500 + 1000) / 10, 30, latest)


def test_before_a_replica_has_measured_anything_nothing_is_known() -> None:
    assert work_of({}, 10) is None
    assert work_of({"tokens_per_s": {"a": [Point(0, 0)], "b": []}}, 10) is None
