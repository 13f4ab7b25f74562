"""What a model's replicas will do under an operator's rates: the simulation, made small enough for thousands of replicas.

Of more requests than can be looked at one by one, several come together, as far as a batch hardly notices; and of a fleet that is still too
large a part is simulated, under as large a part of its load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from bgeserve.scaling import Rule
from bgeserve.simulation.fleet import Fleet, FleetSettings
from bgeserve.simulation.load import Outcome
from bgeserve.simulation.policies import ByBacklog
from bgeserve.simulation.rates import Rate, Together, arrivals, peak
from bgeserve.simulation.replica import Speed
from bgeserve.types import Lane

MAX_ARRIVALS = 200_000
BATCH_SHARE = 0.25
"""Of a batch that requests which come together may fill."""
LEAST_PART = 50
"""Replicas at the peak that are still simulated one by one: with fewer, a whole replica would be too much of the fleet."""
TIMELINE_ROWS = 12


@dataclass(frozen=True, slots=True)
class Period:
    """Means over some seconds, but for `most_replicas`."""

    at_s: float
    tokens_per_s: float
    """Sent."""
    replicas: float
    most_replicas: int
    unanswered_s: float
    """Of all running replicas' work."""


@dataclass(frozen=True, slots=True)
class Prediction:
    requests: int
    late: int
    refused: int
    p50_s: float | None
    p99_s: float | None
    """Of the answered queries; None: there are none."""
    jobs_p99_s: float | None
    """Likewise, of what came as bulk."""
    replica_s: float
    most_replicas: int
    periods: Sequence[Period]
    simulated_part: int
    """One of so many parts of the fleet was simulated."""
    together: int
    """Requests that came in one instant, at the most."""


def predict(speed: Speed, rule: Rule, rates: Sequence[Rate], *, timeout_s: float, start_s: float, request_s: float) -> Prediction:
    """start_s: that a replica takes to start; request_s: what a request takes besides waiting and computing."""
    end_s = max(rate.until_s for rate in rates)
    together, part = coarseness(speed, rates)
    small = replace(rule, min=ceil(rule.min / part), max=ceil(rule.max / part))
    policy = ByBacklog(small)
    settings = FleetSettings(speed, small.max, small.min, start_s, {"interactive": timeout_s, "bulk": timeout_s}, request_s)
    outcome = Fleet(settings, policy).run(arrivals(rates, together=together, one_of=part), end_s + timeout_s)
    return Prediction(
        requests=part * outcome.requests,
        late=part * outcome.late,
        refused=part * outcome.refused,
        p50_s=_quantile_s(outcome, 0.5, "interactive"),
        p99_s=_quantile_s(outcome, 0.99, "interactive"),
        jobs_p99_s=_quantile_s(outcome, 0.99, "bulk"),
        # Without the time after the last request, in which what is left is done.
        replica_s=part * policy.interval_s * sum(moment.asked_for for moment in outcome.moments if moment.at_s < end_s),
        most_replicas=part * outcome.most_replicas,
        periods=_periods(outcome, rates, end_s, part, speed.tokens_per_s),
        simulated_part=part,
        together=max(together.of(rate) for rate in rates),
    )


def coarseness(speed: Speed, rates: Sequence[Rate]) -> tuple[Together, int]:
    """How many requests come together, and one of how many parts of the fleet is simulated."""
    together = Together(ceil(sum(rate.requests for rate in rates) / MAX_ARRIVALS), BATCH_SHARE * speed.max_batch_tokens)
    come = sum(rate.requests / together.of(rate) for rate in rates)
    peak_replicas = peak(rates, lambda rate: rate.tokens_per_s) / speed.tokens_per_s
    return together, max(1, min(ceil(come / MAX_ARRIVALS), int(peak_replicas / LEAST_PART)))


def _quantile_s(outcome: Outcome, share: float, lane: Lane) -> float | None:
    return outcome.quantile_s(share, lane) if outcome.answered[lane] else None


def _periods(outcome: Outcome, rates: Sequence[Rate], end_s: float, part: int, tokens_per_s: float) -> list[Period]:
    length_s = end_s / TIMELINE_ROWS
    periods: list[Period] = []
    for n in range(TIMELINE_ROWS):
        begin_s, until_s = n * length_s, (n + 1) * length_s
        within = [moment for moment in outcome.moments if begin_s <= moment.at_s < until_s]
        if not within:
            continue
        sent = sum(rate.tokens_per_s * max(0.0, min(until_s, rate.until_s) - max(begin_s, rate.at_s)) for rate in rates)
        capacity = tokens_per_s * max(1, sum(moment.running for moment in within))
        periods.append(
            Period(
                at_s=begin_s,
                tokens_per_s=sent / length_s,
                replicas=part * sum(moment.asked_for for moment in within) / len(within),
                most_replicas=part * max(moment.asked_for for moment in within),
                unanswered_s=sum(moment.unanswered_tokens for moment in within) / capacity,
            )
        )
    return periods
