"""Both policies on one trace by simulation, the default one with each of several settings, and how ours stands to its best ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

from ray.serve.config import AutoscalingConfig

from benchmarks.autoscale.by_requests import ByRequests
from benchmarks.autoscale.traces import TAIL_S, TIMEOUT_S, Trace
from bgeserve.scaling import Rule, report_interval_s, window_s
from bgeserve.simulation.fleet import Fleet, FleetSettings
from bgeserve.simulation.load import Outcome
from bgeserve.simulation.policies import ByBacklog, Policy
from bgeserve.simulation.replica import Speed

TARGETS = (1, 2, 4, 8, 16)
"""Of `target_ongoing_requests`; 2 is Ray's default."""
DELAYS = ("Ray's delays", "quick up", "quick")
QUICKER = 4
OURS = "backlog"
SHIPPED = f"requests, 2 each, {DELAYS[0]}"
"""The default as Ray ships it."""
OURS_QUICK = "backlog, quick"
"""Down as soon as the default's quick delays."""
EQUAL = 1.1
"""Within which two figures are one: another seed changes them by about as much."""
SPEND_GOAL = 0.75
UNSERVED_GOAL = 0.5


@dataclass(frozen=True)
class Ran:
    policy: str
    replica_s: float
    most_replicas: int
    requests: int
    p50_s: float
    p99_s: float
    jobs_p99_s: float
    late: int
    refused: int

    @property
    def unserved(self) -> int:
        """Over the deadline, the refused among them."""
        return self.late + self.refused


@dataclass(frozen=True)
class Setup:
    """Of the service that is simulated."""

    speed: Speed
    rule: Rule
    start_s: float
    request_s: float

    def fleet(self, policy: Policy) -> Fleet:
        settings = FleetSettings(self.speed, self.rule.max, self.rule.min, self.start_s, TIMEOUT_S, self.request_s)
        return Fleet(settings, policy)


def by_requests(rule: Rule, target: float, delays: str) -> dict[str, object]:
    """Ray's own `autoscaling_config`. Quick up: told as often as ours is, up at once, down after ours; quick: down four times as soon."""
    config: dict[str, object] = {"min_replicas": rule.min, "max_replicas": rule.max, "target_ongoing_requests": target}
    if delays == DELAYS[0]:
        return config
    down_s = rule.hold_down_s if delays == DELAYS[1] else rule.hold_down_s / QUICKER
    told = {"look_back_period_s": window_s(rule.cold_start_s) / 3, "metrics_interval_s": report_interval_s(rule.cold_start_s)}
    return config | told | {"upscale_delay_s": 0, "downscale_delay_s": down_s}


def settings_of(rule: Rule) -> dict[str, dict[str, object]]:
    """Of the default policy, by name."""
    return {f"requests, {target:g} each, {delays}": by_requests(rule, target, delays) for delays in DELAYS for target in TARGETS}


def policies(rule: Rule) -> dict[str, Policy]:
    defaults = {name: ByRequests(AutoscalingConfig(**config)) for name, config in settings_of(rule).items()}
    return {OURS: ByBacklog(rule), OURS_QUICK: ByBacklog(replace(rule, hold_down_s=rule.hold_down_s / QUICKER)), **defaults}


def run_all(setup: Setup, trace: Trace) -> dict[str, Outcome]:
    return {name: setup.fleet(policy).run(trace.arrivals, trace.seconds + TAIL_S) for name, policy in policies(setup.rule).items()}


def ran(policy: str, outcome: Outcome) -> Ran:
    return Ran(
        policy,
        outcome.replica_s,
        outcome.most_replicas,
        outcome.requests,
        outcome.quantile_s(0.5),
        outcome.quantile_s(0.99),
        outcome.quantile_s(0.99, "bulk"),
        outcome.late,
        outcome.refused,
    )


@dataclass(frozen=True)
class Against:
    """Ours beside the best of the default's settings, chosen for it on this very trace."""

    cheapest: Ran | None
    """That serves as well: p99 of queries and of jobs, and as many unserved. None: none does."""
    best: Ran | None
    """That costs no more, and leaves the fewest unserved. None: none does."""
    spend: float
    unserved: float


def against(ours: Ran, others: Sequence[Ran]) -> Against:
    as_good = [other for other in others if _serves_as_well(other, ours)]
    as_cheap = [other for other in others if other.replica_s <= EQUAL * ours.replica_s]
    cheapest = min(as_good, key=lambda other: other.replica_s, default=None)
    best = min(as_cheap, key=lambda other: (other.unserved, other.p99_s), default=None)
    nan = float("nan")
    spend = nan if cheapest is None else ours.replica_s / cheapest.replica_s
    unserved = nan if best is None or best.unserved == 0 else ours.unserved / best.unserved
    return Against(cheapest, best, spend, unserved)


def _serves_as_well(other: Ran, ours: Ran) -> bool:
    jobs = isnan(ours.jobs_p99_s) or other.jobs_p99_s <= EQUAL * ours.jobs_p99_s
    # A thousandth of the requests more or less is chance.
    return other.p99_s <= EQUAL * ours.p99_s and jobs and other.unserved <= ours.unserved + ours.requests / 1000


def reports(outcomes: Mapping[str, Outcome]) -> list[Ran]:
    return [ran(name, outcome) for name, outcome in outcomes.items()]
