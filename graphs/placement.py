"""Whether what an application asks for exists: CPUs, GPUs and custom resources, on this machine or on a cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bgeserve.errors import SettingsError

Resources = Mapping[str, float]
"""By Ray's names: CPU, GPU, and whatever a cluster calls its own."""


@dataclass(frozen=True)
class Demand:
    """What one deployment asks for; `replicas` is how many there are at least."""

    deployment: str
    each: Resources
    replicas: int


def problems(demands: Sequence[Demand], nodes: Sequence[Resources], where: str) -> list[str]:
    """What cannot be placed on empty nodes. Does not try every packing: what passes here may still wait for room that others use."""
    found = [
        f"{demand.deployment} needs {amount:g} {name} for each replica; {where} has {_most(nodes, name):g}"
        for demand in demands
        for name, amount in demand.each.items()
        if amount > _most(nodes, name)
    ]
    return found or [
        f"the deployments need {total:g} {name} in all ({_shares(demands, name)}); {where} has {available:g}"
        for name in sorted({name for demand in demands for name in demand.each})
        if (total := sum(demand.each.get(name, 0) * demand.replicas for demand in demands)) - 1e-6
        > (available := sum(node.get(name, 0) for node in nodes))
    ]


def this_machine(*, with_gpus: bool) -> Resources:
    """What Ray would find here; GPUs are looked for only when asked, since that loads CUDA."""
    from ray._private.utils import get_num_cpus

    resources = {"CPU": float(get_num_cpus())}
    if with_gpus:
        import torch

        resources["GPU"] = float(torch.cuda.device_count())
    return resources


def cluster() -> list[Resources]:
    """The nodes of the Ray cluster that RAY_ADDRESS (or this machine) leads to. Raises SettingsError."""
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError:
        raise SettingsError("no Ray cluster was found: start one, or set RAY_ADDRESS") from None
    try:
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()


def _most(nodes: Sequence[Resources], name: str) -> float:
    return max((node.get(name, 0) for node in nodes), default=0)


def _shares(demands: Sequence[Demand], name: str) -> str:
    return ", ".join(
        f"{demand.deployment} {demand.replicas} x {demand.each[name]:g}"
        for demand in demands
        if demand.each.get(name, 0) and demand.replicas
    )
