"""Ray Serve's default policy on a simulated clock: Ray's own functions, with what they would have been told and when.

What Ray calls around its policy takes the time from the machine's clock, so the steps of `ray.serve.autoscaling_policy` are taken one by
one here; `tests/benchmarks/test_by_requests.py` compares that with the whole.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Any

from ray.serve._private.common import TimeStampedValue
from ray.serve._private.metrics_utils import aggregate_timeseries
from ray.serve.autoscaling_policy import _apply_delay_logic, _apply_scaling_factors, replica_queue_length_autoscaling_policy
from ray.serve.config import AggregationFunction, AutoscalingConfig, AutoscalingContext

from bgeserve.simulation.policies import Seen

RECORDS_PER_LOOK_BACK = 5
"""Ray's RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR, turned over."""


class ByRequests:
    def __init__(self, config: AutoscalingConfig) -> None:
        self._config = config
        self._state: dict[str, Any] = {}
        self._recorded: deque[TimeStampedValue] = deque()
        self._reported: list[TimeStampedValue] = []
        self._reported_at = -config.metrics_interval_s
        self.interval_s = min(1.0, config.metrics_interval_s, config.look_back_period_s / RECORDS_PER_LOOK_BACK)

    def wanted_replicas(self, seen: Seen) -> int:
        self._record(seen)
        decided, self._state = decide(self._config, seen, self._requests(seen.now), self._state)
        return min(self._config.max_replicas, max(self._config.min_replicas, decided))

    def _record(self, seen: Seen) -> None:
        self._recorded.append(TimeStampedValue(seen.now, seen.ongoing_requests))
        while self._recorded[0].timestamp < seen.now - self._config.look_back_period_s:
            self._recorded.popleft()
        # The first call to a model at zero is told at once.
        is_first = seen.running == 0 and seen.queued_requests > 0
        if is_first or seen.now - self._reported_at >= self._config.metrics_interval_s:
            self._reported, self._reported_at = list(self._recorded), seen.now

    def _requests(self, now: float) -> float:
        last_window_s = max(1e-3, now - self._reported[-1].timestamp)
        return aggregate_timeseries(self._reported, AggregationFunction.MEAN, last_window_s=last_window_s) or 0.0


def context_of(config: AutoscalingConfig, seen: Seen, requests: float, state: dict[str, Any]) -> AutoscalingContext:
    """What Serve's controller tells a policy."""
    return AutoscalingContext(
        deployment_id=None,  # type: ignore[arg-type]
        deployment_name="m",
        app_name="a",
        current_num_replicas=seen.running,
        target_num_replicas=seen.asked_for,
        running_replicas=[],
        total_num_requests=requests,
        total_queued_requests=seen.queued_requests,
        aggregated_metrics={},
        raw_metrics={},
        capacity_adjusted_min_replicas=config.min_replicas,
        capacity_adjusted_max_replicas=config.max_replicas,
        policy_state=state,
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=seen.now,
        config=config,
    )


def decide(config: AutoscalingConfig, seen: Seen, requests: float, state: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What Serve's controller decides in one of its loops, before its bounds."""
    desired, _ = replica_queue_length_autoscaling_policy(context_of(config, seen, requests, state))
    if seen.running == 0 and requests > 0:
        return ceil(desired), state
    scaled = _apply_scaling_factors(desired, seen.running, config)
    if seen.running == 0 and scaled > 0:
        return scaled, state
    return _apply_delay_logic(max(0, scaled), seen.asked_for, config, state, _now=seen.now)
