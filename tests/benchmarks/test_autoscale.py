"""How two policies are compared: by the default's best settings for the trace, and what is lived in the simulation's terms."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import pytest
from ray.serve.config import AutoscalingConfig

from benchmarks.autoscale.compare import SHIPPED, Ran, against, settings_of
from benchmarks.autoscale.live import LATE, REFUSED, found_of
from benchmarks.autoscale.traces import BURSTS, JOB_TEXTS, STEPS, Scale, traces
from benchmarks.serving.plan import OK, Outcome, Reply
from bgeserve.replica_settings import ModelReplicas

OURS = Ran("ours", replica_s=100, most_replicas=4, requests=10_000, p50_s=0.1, p99_s=1.0, jobs_p99_s=50, late=10, refused=30)
SCALE = Scale(tokens_per_s=1000, request_tokens=50, text_tokens=20, seconds=500)


def test_spend_is_compared_with_the_cheapest_that_serves_as_well() -> None:
    dear, fair = replace(OURS, policy="dear", replica_s=300), replace(OURS, policy="fair", replica_s=200)
    slow, slow_jobs = replace(OURS, replica_s=50, p99_s=1.2), replace(OURS, replica_s=50, jobs_p99_s=60)
    refusing = replace(OURS, replica_s=50, refused=60)
    beside = against(OURS, [dear, slow, fair, slow_jobs, refusing])
    assert beside.cheapest is fair
    assert beside.spend == 0.5


def test_what_is_not_served_is_compared_with_the_best_that_costs_no_more() -> None:
    worst, better, dear = replace(OURS, late=300), replace(OURS, late=170), replace(OURS, late=0, refused=0, replica_s=120)
    beside = against(OURS, [worst, better, dear])
    assert beside.best is better
    assert beside.unserved == 40 / 200


def test_where_there_is_none_nothing_is_claimed() -> None:
    beside = against(OURS, [replace(OURS, replica_s=120, p99_s=9)])
    assert (beside.cheapest, beside.best) == (None, None)
    assert isnan(beside.spend)
    assert isnan(beside.unserved)


def test_what_is_called_shipped_is_what_ray_does_unasked() -> None:
    stated = settings_of(ModelReplicas(max=8).rule)[SHIPPED]
    assert AutoscalingConfig(**stated) == AutoscalingConfig(min_replicas=1, max_replicas=8)


def test_what_was_lived_is_told_as_what_was_simulated() -> None:
    answers = [(0.0, 1.5, OK), (1.0, 1.2, REFUSED), (2.0, 12.0, LATE), (2.5, 2.6, 500)]
    sent = [Outcome(due_s, due_s, ended_s, tokens=100, reply=Reply(status)) for due_s, ended_s, status in answers]
    seen = [
        (0.0, {"RUNNING": 1}),
        (1.0, {"RUNNING": 1, "STARTING": 2}),
        (4.0, {"RUNNING": 3}),
        (6.0, {"RUNNING": 2, "STOPPING": 1}),
        (7.0, {}),
    ]
    found = found_of({"interactive": sent, "bulk": []}, seen)
    assert found.outcome.answered["interactive"] == [(1.5, 1)]
    assert (found.outcome.requests, found.outcome.refused, found.outcome.late, found.failed) == (4, 1, 1, 1)
    assert found.outcome.replica_s == 1 + 3 * 3 + 3 * 2 + 3
    assert found.start_s == 3  # two of them, for three seconds
    assert [moment.unanswered_tokens for moment in found.outcome.moments] == [100, 200, 100, 100]
    assert [moment.running for moment in found.outcome.moments] == [1, 1, 3, 2]


def test_traces_are_the_same_each_time_and_send_what_they_say() -> None:
    steps, bursts, diurnal = traces(SCALE)
    assert [list(one.arrivals) for one in traces(SCALE)] == [list(one.arrivals) for one in (steps, bursts, diurnal)]
    tokens = [sum(one.tokens for one in steps.arrivals if n * 100 <= one.at_s < (n + 1) * 100) for n in range(len(STEPS))]
    assert tokens == pytest.approx([1000 * 100 * replicas for replicas in STEPS], rel=0.1)
    jobs = [one for one in bursts.arrivals if one.lane == "bulk"]
    assert len(jobs) >= 2 * BURSTS
    assert {one.tokens for one in jobs} == {JOB_TEXTS * SCALE.text_tokens}
    for trace in (steps, bursts, diurnal):
        assert [one.at_s for one in trace.arrivals] == sorted(one.at_s for one in trace.arrivals)
        assert all(0 <= one.at_s < SCALE.seconds for one in trace.arrivals)
