"""How this application's deployments are, as the Serve controller sees them. Starts no replica and no forward."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from ray import serve
from ray.serve.schema import DeploymentStatusOverview

from bgeserve.protocols import Readiness

MAX_AGE_S = 1.0
"""A probe may ask often; the controller, which every replica of the cluster depends on, is asked at most this often."""
RUNNING = "RUNNING"
LEAVING = frozenset({"STOPPING", "STOPPED"})


@dataclass(frozen=True, slots=True)
class State:
    available: bool
    replicas: Mapping[str, int]
    """How many there are in each state; none in a deployment at zero."""


class DeploymentStates:
    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._asking = asyncio.Lock()
        self._asked_at = -MAX_AGE_S
        self._states: Mapping[str, DeploymentStatusOverview] = {}

    async def readiness(self) -> Readiness:
        """Whether each of them is available."""
        states = await self._fresh()
        waiting_for = [name for name, state in states.items() if not _available(state)]
        return Readiness(not waiting_for, sorted(waiting_for))

    async def of(self, deployment: str) -> State:
        """Of one that the controller has not heard of yet: not available, and no replicas."""
        state = (await self._fresh()).get(deployment)
        return State(available=False, replicas={}) if state is None else State(_available(state), _counts(state))

    async def runs(self, deployment: str) -> bool:
        """Whether a replica of it does."""
        return RUNNING in (await self.of(deployment)).replicas

    async def _fresh(self) -> Mapping[str, DeploymentStatusOverview]:
        async with self._asking:
            if monotonic() - self._asked_at >= MAX_AGE_S:
                status = await asyncio.to_thread(serve.status)
                self._states = status.applications[self._app_name].deployments
                self._asked_at = monotonic()
            return self._states


def _available(state: DeploymentStatusOverview) -> bool:
    """A deployment with a running replica answers, whatever else happens to it; one that is healthy without any is at zero on purpose."""
    counts = _counts(state)
    return RUNNING in counts or (state.status.value == "HEALTHY" and not counts.keys() - LEAVING)


def _counts(state: DeploymentStatusOverview) -> dict[str, int]:
    # Ray's keys are an enum of strings; a reader without Ray knows strings.
    return {str(getattr(name, "value", name)): count for name, count in state.replica_states.items() if count}
