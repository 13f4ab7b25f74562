"""How large the pods of a worker group are, and how many there may be. Knows models and their sizes, no manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from bgeserve.catalog import find_embedder, find_reranker
from bgeserve.settings import IngressSettings, ModelSettings
from graphs.k8s_config import Application

SHARED_MEMORY_GIB = 2
"""Ray's object store; the default of 64 MB would push it to disk. Counts towards the pod's memory."""
RAY_GIB = SHARED_MEMORY_GIB + 2
"""Ray's own processes and its object store."""
LIBRARIES_GIB = {"cuda": 3, "cpu": 2}
"""Of one replica, before any weights: torch, and on CUDA its context."""
UNKNOWN_PARAMETERS = 568
"""Millions, of a checkpoint that has no catalogue row (state `like`): BGE-M3's."""
FRONT_CPUS = 2


@dataclass(frozen=True)
class Pods:
    """What each pod of a group offers, and how many there are at least and at most."""

    cpus: int
    memory_gib: int
    least: int
    most: int
    gpus: int = 0


def front(applications: Sequence[Application]) -> Pods:
    """Ingress and retriever. Two pods where there are two ingress replicas, so that the loss of a node takes one of them."""
    stores = sum(application.store.cpus for application in applications if application.store)
    ingresses = [application.ingress for application in applications]
    least = ceil((stores + sum(ingress.cpus * ingress.replicas.min for ingress in ingresses)) / FRONT_CPUS)
    most = ceil((stores + sum(ingress.cpus * _most(ingress) for ingress in ingresses)) / FRONT_CPUS)
    least = max(1, least, min(2, max(ingress.replicas.min for ingress in ingresses)))
    return Pods(FRONT_CPUS, RAY_GIB, least, max(least, most))


def on_gpus(models: Iterable[ModelSettings]) -> Pods | None:
    """Pods of as many GPUs as the largest replica takes; None when no model wants any."""
    wanting = [model for model in models if model.gpus]
    if not wanting:
        return None
    pods = _shared(wanting, lambda model: model.gpus)
    # One core more for Ray's own processes, for which a GPU must not wait.
    return replace(pods, cpus=pods.cpus + 1, gpus=ceil(max(model.gpus for model in wanting)))


def on_cpus(models: Iterable[ModelSettings]) -> Pods | None:
    """Pods of as many cores as the largest replica takes; None when every model is on a GPU."""
    wanting = [model for model in models if not model.gpus]
    return _shared(wanting, lambda model: model.cpus) if wanting else None


def _shared(models: Sequence[ModelSettings], taken: Callable[[ModelSettings], float]) -> Pods:
    """Pods that any replicas share which together take no more than the pod has of what is scarce: GPUs, or cores."""
    offered = ceil(max(map(taken, models)))
    # Whole replicas, but for what floating point makes of a third.
    fitting = [(model, floor(offered / taken(model) + 1e-9)) for model in models]
    return Pods(
        cpus=ceil(max(model.cpus * count for model, count in fitting)),
        memory_gib=RAY_GIB + max(_memory_gib(model) * count for model, count in fitting),
        least=ceil(sum(model.replicas.min * taken(model) for model in models) / offered - 1e-9),
        most=sum(ceil(_most(model) / count) for model, count in fitting),
    )


def _most(settings: ModelSettings | IngressSettings) -> int:
    """Replicas while a new version takes over."""
    return settings.replicas.max + ceil(settings.replicas.max * settings.max_surge_percent / 100)


def _memory_gib(model: ModelSettings) -> int:
    """Of the host, for one replica: weights are read there in two bytes on their way to a GPU, and computed with in four on a CPU."""
    known = model.like or model.model
    row = find_embedder(known) or find_reranker(known)
    bytes_each = 2 if model.resolved_device == "cuda" or model.dtype in ("bfloat16", "float16") else 4
    weights = (row.parameters if row else UNKNOWN_PARAMETERS) * 1e6 * bytes_each
    return ceil(LIBRARIES_GIB[model.resolved_device] + weights / 2**30)
