"""What every replica does: refuse foreign code, answer refusals as values, hand measurements to Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from ray import serve
from ray.serve import metrics

import bgeserve
from bgeserve import tracing
from bgeserve.errors import BgeServeError, ServiceError, SettingsError
from bgeserve.observe import Kind, Observer
from bgeserve.redaction import WITHOUT_TEXTS
from deployments.logs import send_to_serve_log

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("ray.serve")

BOUNDARIES: dict[str, list[float]] = {
    "s": [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    "tokens": [16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536],
    "ratio": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1],
}
"""Histogram buckets by the unit that a metric's name ends in."""


def prepare_replica(*, is_ingress: bool = False) -> None:
    """Before anything else of ours runs. Raises SettingsError."""
    _refuse_foreign_packages()
    logger.addFilter(WITHOUT_TEXTS)
    send_to_serve_log(keep_calls=is_ingress)
    if tracing.is_asked_for(os.environ):
        replica = serve.get_replica_context()
        tracing.start(os.environ, **{"service.instance.id": replica.replica_tag, "bge_serve.deployment": replica.deployment})


def answers_refusals(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T | BgeServeError]]:
    """Return what the method raised on purpose; `remote.Remote` raises it again on the caller's side.

    Serve logs each raised exception with its stack, which under overload would cost more than the refusal.
    """

    @wraps(method)
    async def answered(*args: P.args, **kwargs: P.kwargs) -> T | BgeServeError:
        try:
            return await method(*args, **kwargs)
        except BgeServeError as error:
            if isinstance(error, ServiceError):
                logger.warning("%s: %s", error.code, error.message)
            return error

    return answered


def observer(**tags: str) -> Observer:
    """Measurements into Ray's Prometheus endpoint, as `ray_bge_serve_NAME`; Serve tags them with application, deployment and replica."""
    return Observer(_RaySink(), **tags)


class _RaySink:
    def __init__(self) -> None:
        self._metrics: dict[str, metrics.Counter | metrics.Gauge | metrics.Histogram] = {}
        self._creating = Lock()

    def __call__(self, kind: Kind, name: str, value: float, tags: dict[str, str]) -> None:
        metric = self._metrics.get(name)
        if metric is None:
            with self._creating:
                if name not in self._metrics:
                    self._metrics[name] = _metric(kind, f"bge_serve_{name}", tuple(sorted(tags)))
            metric = self._metrics[name]
        if isinstance(metric, metrics.Counter):
            metric.inc(value, tags)
        elif isinstance(metric, metrics.Gauge):
            metric.set(value, tags)
        else:
            metric.observe(value, tags)


# Ray's hint asks for Tuple[str], exactly one tag; it takes any number.
def _metric(kind: Kind, name: str, tag_keys: Any) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    if kind == "count":
        return metrics.Counter(name, tag_keys=tag_keys)
    if kind == "gauge":
        return metrics.Gauge(name, tag_keys=tag_keys)
    return metrics.Histogram(name, boundaries=BOUNDARIES[name.rpartition("_")[2]], tag_keys=tag_keys)


def _refuse_foreign_packages() -> None:
    """Raises SettingsError where `graphs` or `deployments` would be imported from elsewhere, such as a user's folder of that name."""
    ours = Path(bgeserve.__file__).parents[1]
    for name in ("graphs", "deployments"):
        spec = find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).parents[1]
        if found != ours:
            raise SettingsError(
                f"`{name}` would be imported from {found}, but bge-serve is in {ours}: rename that folder or start elsewhere"
            )
