"""The deployments of a graph, with the options that its settings mean. The three graphs differ only in which of them they bind."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from bgeserve.replica_settings import IngressReplicas, ModelReplicas
from bgeserve.scaling import report_interval_s, window_s
from bgeserve.settings import EmbedderSettings, IngressSettings, ModelSettings, RerankerSettings
from bgeserve.store_settings import EmbeddedStoreSettings, StoreSettings
from deployments.embedder import EmbedderDeployment
from deployments.ingress import Index, Ingress, Model
from deployments.reranker import RerankerDeployment
from deployments.retriever import RetrieverDeployment

RETRIEVER = "retriever"

COMMON: dict[str, Any] = {
    # Our own queues decide who waits and who is refused, so Serve must hand over far more than one batch's worth.
    "max_ongoing_requests": 1000,
    # A replica is ended after three checks in vain: one that is wedged says so at once, one that hangs is found out in 18 s, so that its
    # calls can still be answered by another within a request's 30 s. Computing a large batch keeps nobody from answering a check.
    "health_check_period_s": 2,
    "health_check_timeout_s": 6,
    # A replica that leaves finishes what it has, for as long as a request may take by default.
    "graceful_shutdown_wait_loop_s": 0.5,
    "graceful_shutdown_timeout_s": 30,
}

OWNER: dict[str, Any] = {
    # Nobody takes its calls while it is dead: that is seen within a second.
    "health_check_period_s": 1,
    # The next owner waits for its lock meanwhile (`deployments/retriever.py`).
    "graceful_shutdown_timeout_s": 10,
}


def embedders(settings: Mapping[str, EmbedderSettings]) -> dict[str, Model]:
    return {
        name: Model(EmbedderDeployment.options(name=f"embedder-{name}", **model_options(model)).bind(name, model), model)
        for name, model in settings.items()
    }


def rerankers(settings: Mapping[str, RerankerSettings]) -> dict[str, Model]:
    return {
        name: Model(RerankerDeployment.options(name=f"reranker-{name}", **model_options(model)).bind(name, model), model)
        for name, model in settings.items()
    }


def retriever(settings: StoreSettings, embedders: Mapping[str, Model], default: str) -> Application:
    """Always one replica, without surge: it orders the writes. At start it asks the embedders whose vectors the store may hold, the default
    first."""
    in_order = sorted(embedders, key=lambda name: name != default)
    node = settings.node_resource if isinstance(settings, EmbeddedStoreSettings) else None
    resources = {node: 0.001} if node else {}
    return RetrieverDeployment.options(
        name=RETRIEVER,
        num_replicas=1,
        ray_actor_options={"num_cpus": settings.cpus, "resources": resources},
        **COMMON | OWNER,
    ).bind(settings, {name: embedders[name].handle for name in in_order})


def ingress(settings: IngressSettings, embedders: Mapping[str, Model], rerankers: Mapping[str, Model], index: Index | None) -> Application:
    return Ingress.options(
        name="ingress",
        ray_actor_options={"num_cpus": settings.cpus},
        max_surge_percent=settings.max_surge_percent,
        **_scaled_by_requests(settings.replicas),
        **COMMON,
    ).bind(settings, embedders, rerankers, index)


def model_options(settings: ModelSettings) -> dict[str, Any]:
    return {
        "ray_actor_options": {"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        "max_surge_percent": settings.max_surge_percent,
        **_scaled_by_backlog(settings.replicas),
        **COMMON,
    }


def _scaled_by_requests(replicas: IngressReplicas) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.min}
    return {
        "autoscaling_config": {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_ongoing_requests,
        }
    }


def _scaled_by_backlog(replicas: ModelReplicas) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.min}
    with warnings.catch_warnings():
        # Said to be replaced by environment variables, which nothing in Ray 2.60 reads.
        warnings.filterwarnings("ignore", "The `metrics_interval_s` field", DeprecationWarning)
        config = AutoscalingConfig(
            min_replicas=replicas.min,
            max_replicas=replicas.max,
            policy=AutoscalingPolicy(policy_function="bgeserve.scaling:BacklogPolicy", policy_kwargs=asdict(replicas.rule)),
            # How much a replica remembers of its load, and how often it says so.
            look_back_period_s=window_s(replicas.cold_start_s),
            metrics_interval_s=report_interval_s(replicas.cold_start_s),
            # The policy decides when, too.
            upscale_delay_s=0,
            downscale_delay_s=0,
            downscale_to_zero_delay_s=0,
        )
    return {"autoscaling_config": config}
