"""Runs drills one after another: one cluster as long as it can be kept, and each drill on the service that it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from benchmarks.drills.clients import fill
from benchmarks.drills.cluster import Cluster
from benchmarks.drills.drill import CannotRun, Drill, row, run
from benchmarks.drills.services import SERVICES, Config, Place
from benchmarks.durability.disk import CannotMount, memory_disk

SMALL_DISK_MIB = 320


@dataclass(frozen=True, slots=True)
class Outcome:
    drill: Drill
    row: Sequence[str] = ()
    breaches: Sequence[str] = ()
    skipped: str = ""


class Bench:
    """Whatever it starts and mounts ends with `stack`."""

    def __init__(self, work: Path, stack: ExitStack, console: Console) -> None:
        self.console = console
        self._place = Place(work)
        self._stack = stack
        self._cluster: Cluster | None = None

    def outcome(self, drill: Drill, seed: int) -> Outcome:
        try:
            cluster = self.cluster_of(drill.config, drill.cluster)
        except CannotRun as problem:
            self.console.print(f"{drill.name}: not run: {problem}", markup=False)
            return Outcome(drill, skipped=str(problem))
        cost = asyncio.run(run(drill, cluster, searches=_searches(drill.config), seed=seed))
        if cost.problem:
            self._give_up()
        made = Outcome(drill, row(drill, cost), cost.breaches(drill.rule))
        self.console.print(" | ".join(made.row), markup=False)
        for breach in made.breaches:
            self.console.print(f"    {breach}", markup=False)
        return made

    def cluster_of(self, service: str, made_by: Callable[[Place], Cluster] | None = None) -> Cluster:
        """With the service on it, whole. made_by: a cluster of its own. Raises CannotRun."""
        self._provide(service)
        config = SERVICES[service](self._place)
        if made_by is not None:
            self._give_up()
            return self._deployed(self._started(made_by(self._place)), service, config)
        if self._cluster is None:
            self._cluster = self._started(Cluster(self._place))
        return self._cluster if self._cluster.config == config else self._deployed(self._cluster, service, config)

    def _give_up(self) -> None:
        """The next drill has a cluster of its own."""
        if self._cluster is not None:
            self._cluster.stop()
            self._cluster = None

    def _started(self, cluster: Cluster) -> Cluster:
        self._stack.callback(cluster.stop)
        return cluster

    def _deployed(self, cluster: Cluster, service: str, config: Config) -> Cluster:
        cluster.deploy(config)
        cluster.until_whole()
        if _searches(service):
            asyncio.run(fill(cluster.url))
        return cluster

    def _provide(self, service: str) -> None:
        if service == "with-server" and self._place.store is None:
            if find_spec("qdrant_client") is None:
                raise CannotRun("needs bge-serve[qdrant]")
            from benchmarks.drills.store_server import StoreServer

            self._place.store = StoreServer()
            self._stack.callback(self._place.store.close)
        if service == "small-disk" and self._place.small_disk is None:
            try:
                self._place.small_disk = self._stack.enter_context(memory_disk(self._place.work, SMALL_DISK_MIB))
            except CannotMount as problem:
                raise CannotRun(str(problem)) from problem


def _searches(service: str) -> bool:
    return service != "models-only"
