"""A simulated model: who is answered when, refused, held, and what it costs, in cases that can be reckoned by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgeserve.scaling import Rule
from bgeserve.simulation.fleet import Fleet, FleetSettings
from bgeserve.simulation.load import Arrival, Outcome, weighted_quantile
from bgeserve.simulation.policies import ByBacklog, Seen
from bgeserve.simulation.replica import Speed
from bgeserve.types import Lane

SPEED = Speed(tokens_per_s=1000, max_batch_tokens=500, max_queue_s=2)
SETTINGS = FleetSettings(SPEED, max_replicas=4, starts_with=1, start_s=10, timeout_s={"interactive": 30, "bulk": 60})
RULE = Rule(min=1, max=4, target_backlog_s=0.5, cold_start_s=10, hold_down_s=20, idle_s=30)


@dataclass
class Fixed:
    """So many replicas, whatever happens; more from `later_s` on."""

    replicas: int
    later_s: float = 1e9
    later: int = 0
    interval_s: float = 0.5

    def wanted_replicas(self, seen: Seen) -> int:
        return self.later if seen.now >= self.later_s else self.replicas


def latencies(outcome: Outcome, lane: Lane = "interactive") -> list[float]:
    return [round(latency_s, 3) for latency_s, _ in outcome.answered[lane]]


def test_a_query_that_finds_a_replica_free_takes_what_its_tokens_take() -> None:
    outcome = Fleet(SETTINGS, Fixed(1)).run([Arrival(1, 100), Arrival(5, 300)], 20)
    assert latencies(outcome) == [0.1, 0.3]
    assert outcome.replica_s == 20


def test_what_waits_is_computed_together_and_answered_together() -> None:
    outcome = Fleet(SETTINGS, Fixed(1)).run([Arrival(0, 400), Arrival(0.1, 200), Arrival(0.2, 300)], 20)
    assert latencies(outcome) == [0.4, 0.8, 0.7]


def test_a_query_past_the_queue_is_refused_and_counted() -> None:
    outcome = Fleet(SETTINGS, Fixed(1)).run([Arrival(0, 500)] * 6, 20)
    assert (outcome.requests, len(latencies(outcome)), outcome.refused, outcome.late) == (6, 4, 2, 0)


def test_a_job_is_never_refused_and_is_done_as_fast_as_all_replicas_are_together() -> None:
    outcome = Fleet(replace(SETTINGS, starts_with=2), Fixed(2)).run([Arrival(0, 20_000, "bulk")], 60)
    assert latencies(outcome, "bulk") == [pytest.approx(10, abs=0.6)]
    assert outcome.refused == 0


def test_a_query_goes_before_a_job() -> None:
    outcome = Fleet(SETTINGS, Fixed(1)).run([Arrival(0, 20_000, "bulk"), Arrival(5.1, 100)], 60)
    assert latencies(outcome)[0] <= 0.7
    assert latencies(outcome, "bulk") == [pytest.approx(20.1)]


def test_a_large_request_takes_turns_with_a_job() -> None:
    outcome = Fleet(replace(SETTINGS, max_replicas=1), Fixed(1)).run([Arrival(0, 30_000, "bulk"), Arrival(5, 3_000)], 60)
    # Of the job go first what was let in already, four calls of a second each, and then as much as of the request.
    assert latencies(outcome)[0] <= 4 + 2 * 3 + 1
    assert latencies(outcome, "bulk") == [pytest.approx(33)]


def test_what_is_too_late_is_not_computed() -> None:
    late = replace(SETTINGS, timeout_s={"interactive": 30, "bulk": 3})
    outcome = Fleet(late, Fixed(1)).run([Arrival(0, 20_000, "bulk"), Arrival(10, 100)], 20)
    assert (outcome.late, latencies(outcome, "bulk"), latencies(outcome)) == (1, [], [0.1])


def test_without_a_replica_a_call_is_held_until_one_runs() -> None:
    outcome = Fleet(replace(SETTINGS, starts_with=0), Fixed(0, later_s=2, later=1)).run([Arrival(1, 100)], 30)
    assert latencies(outcome) == [2 + 10 - 1 + 0.1]
    assert outcome.replica_s == 28


def test_a_replica_that_leaves_finishes_what_it_has() -> None:
    outcome = Fleet(SETTINGS, Fixed(1, later_s=0.5, later=0)).run([Arrival(0.1, 500), Arrival(0.2, 1000)], 30)
    assert latencies(outcome) == [0.5, 1.4]
    assert outcome.replica_s == pytest.approx(1.6)


def test_one_to_several_and_back_by_our_policy() -> None:
    arrivals = [Arrival(10 + n / 30, 100, "bulk") for n in range(1800)]
    outcome = Fleet(SETTINGS, ByBacklog(RULE)).run(arrivals, 200)
    counts = [moment.asked_for for moment in outcome.moments]
    assert (counts[0], max(counts), counts[-1]) == (1, 4, 1)
    assert (outcome.refused, outcome.late) == (0, 0)


def test_to_zero_and_back_by_our_policy() -> None:
    outcome = Fleet(SETTINGS, ByBacklog(replace(RULE, min=0))).run([Arrival(100, 100)], 200)
    counts = {round(moment.at_s): moment.asked_for for moment in outcome.moments}
    assert (counts[99], counts[105], counts[199]) == (0, 1, 0)
    assert latencies(outcome) == [pytest.approx(10.1, abs=0.6)]


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(1, 5000), st.sampled_from(["interactive", "bulk"]), st.integers(1, 3)), max_size=60),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_every_request_is_answered_refused_or_late_and_nothing_is_left(
    sent: list[tuple[float, int, Lane, int]], first: int, then: int
) -> None:
    arrivals = [Arrival(*one) for one in sorted(sent, key=lambda one: one[0])]
    outcome = Fleet(replace(SETTINGS, starts_with=first), Fixed(first, later_s=20, later=then)).run(arrivals, 200)
    answered = sum(count for lane in outcome.answered.values() for _, count in lane)
    assert answered + outcome.refused + outcome.late == outcome.requests == sum(arrival.requests for arrival in arrivals)
    assert outcome.moments[-1].unanswered_tokens == 0


def test_requests_that_come_together_count_as_many() -> None:
    apart = Fleet(SETTINGS, Fixed(1)).run([Arrival(1, 50)] * 4, 20)
    together = Fleet(SETTINGS, Fixed(1)).run([Arrival(1, 50, requests=4)], 20)
    assert together.answered["interactive"] == [(pytest.approx(0.2), 4)]
    assert apart.requests == together.requests


def test_quantiles_count_each_request() -> None:
    assert weighted_quantile([(3.0, 1), (1.0, 98), (2.0, 1)], 0.99) == 2
    assert weighted_quantile([(3.0, 1), (1.0, 98), (2.0, 1)], 0.5) == 1
