"""How this application's deployments are, as the Serve controller sees them. Starts no replica and no forward."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic

from ray import serve
from ray.serve.schema import DeploymentStatusOverview

from bgeserve.protocols import Readiness

MAX_AGE_S = 1.0
"""A probe may ask often; the controller, which every replica of the cluster depends on, is asked at most this often."""


class DeploymentStates:
    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._asking = asyncio.Lock()
        self._asked_at = -MAX_AGE_S
        self._states: Mapping[str, DeploymentStatusOverview] = {}

    async def readiness(self) -> Readiness:
        """A deployment with a running replica answers, whatever else happens to it; one that is healthy without is at zero on purpose."""
        states = await self._fresh()
        waiting_for = [name for name, state in states.items() if not _running(state) and state.status.value != "HEALTHY"]
        return Readiness(not waiting_for, sorted(waiting_for))

    async def replicas(self, deployment: str) -> int:
        state = (await self._fresh()).get(deployment)
        return 0 if state is None else _running(state)

    async def _fresh(self) -> Mapping[str, DeploymentStatusOverview]:
        async with self._asking:
            if monotonic() - self._asked_at >= MAX_AGE_S:
                status = await asyncio.to_thread(serve.status)
                self._states = status.applications[self._app_name].deployments
                self._asked_at = monotonic()
            return self._states


def _running(state: DeploymentStatusOverview) -> int:
    return sum(count for replica_state, count in state.replica_states.items() if replica_state == "RUNNING")
