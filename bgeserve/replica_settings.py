"""How many replicas a deployment has, and by what that is decided: part of the arguments of the graphs (`settings.py`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from bgeserve.scaling import Rule
from bgeserve.strict import Strict

COLD_STARTS_HELD = 2


class Replicas(Strict):
    """How many replicas a deployment has; min = max switches autoscaling off."""

    min: Annotated[int, Field(ge=0)] = 1
    max: PositiveInt = 1

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}: min must not be above max")
        return self


class IngressReplicas(Replicas):
    target_ongoing_requests: PositiveFloat = 64
    """Requests in progress per replica that autoscaling aims at: an ingress mostly waits, and has no tokens to count."""


class ModelReplicas(Replicas):
    """Scaled by seconds of queued tokens (`scaling.py`); min = 0 lets a seldom used model go away, and its first request waits for it."""

    target_backlog_s: PositiveFloat = 0.5
    """Seconds of work (at the measured speed) that may wait for each replica. What will be done before another replica could be ready asks
    for none. Below `max_queue_s`, past which a replica refuses: what is refused queues up nowhere."""
    cold_start_s: NonNegativeFloat = 30
    """From asking for a replica until it answers: a process, the weights, the warm-up. `ray_serve_replica_startup_latency_ms` says how long
    yours takes; add what a new node takes where there has to be one first."""
    hold_down_s: NonNegativeFloat | None = None
    """A replica goes once none was needed in its place for so long. None: two cold starts, since giving one back too soon costs one."""
    idle_s: NonNegativeFloat = 600
    """With min = 0 the last replica goes once nothing has come for so long (and for `hold_down_s`): the next request will wait for a cold
    start."""

    @property
    def rule(self) -> Rule:
        """What the policy goes by."""
        hold_down_s = COLD_STARTS_HELD * self.cold_start_s if self.hold_down_s is None else self.hold_down_s
        return Rule(self.min, self.max, self.target_backlog_s, self.cold_start_s, hold_down_s, self.idle_s)
