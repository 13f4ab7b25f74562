"""What is made of the controller's word: the controller is scripted, the states are Ray's own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger, ReplicaState
from ray.serve.schema import DeploymentStatusOverview

from deployments.states import DeploymentStates


def overview(status: str, **replicas: int) -> DeploymentStatusOverview:
    states = {ReplicaState(name): count for name, count in replicas.items()}
    return DeploymentStatusOverview(DeploymentStatus(status), DeploymentStatusTrigger.UNSPECIFIED, states, "")  # type: ignore[arg-type]


def scripted(deployments: dict[str, DeploymentStatusOverview], asked: list[int]) -> Callable[[], Any]:
    def status() -> Any:
        asked.append(1)
        return SimpleNamespace(applications={"app": SimpleNamespace(deployments=deployments)})

    return status


@pytest.mark.parametrize(
    ("state", "available", "replicas"),
    [
        (overview("HEALTHY", RUNNING=2), True, {"RUNNING": 2}),
        (overview("UPDATING", STARTING=1), False, {"STARTING": 1}),
        (overview("UPSCALING", STARTING=1, RUNNING=1), True, {"STARTING": 1, "RUNNING": 1}),
        (overview("UNHEALTHY", RUNNING=1, STOPPING=1), True, {"RUNNING": 1, "STOPPING": 1}),
        (overview("HEALTHY"), True, {}),  # at zero on purpose
        (overview("HEALTHY", RUNNING=0, STOPPING=1), True, {"STOPPING": 1}),  # the last one leaves on purpose
        (overview("HEALTHY", STARTING=1), False, {"STARTING": 1}),
        (overview("UPSCALING"), False, {}),
        (overview("UNHEALTHY"), False, {}),
        (overview("DEPLOY_FAILED"), False, {}),
    ],
)
async def test_a_deployment_is_available(
    monkeypatch: pytest.MonkeyPatch, state: DeploymentStatusOverview, available: bool, replicas: dict[str, int]
) -> None:
    monkeypatch.setattr("ray.serve.status", scripted({"embedder": state}, []))
    states = DeploymentStates("app")
    found = await states.of("embedder")
    assert (found.available, found.replicas) == (available, replicas)
    assert all(type(name) is str for name in found.replicas)
    readiness = await states.readiness()
    assert (readiness.ready, list(readiness.waiting_for)) == (available, [] if available else ["embedder"])


async def test_one_that_the_controller_has_not_heard_of_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.serve.status", scripted({}, []))
    found = await DeploymentStates("app").of("embedder")
    assert (found.available, found.replicas) == (False, {})


async def test_the_controller_is_not_asked_for_each_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("ray.serve.status", scripted({"a": overview("HEALTHY"), "b": overview("HEALTHY")}, asked))
    states = DeploymentStates("app")
    for name in ("a", "b", "a"):
        await states.of(name)
    await states.readiness()
    assert len(asked) == 1
