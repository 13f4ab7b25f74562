"""The head of the cluster, with the state of Ray in a Redis beside it, as `k8s/overlays/ha` has it."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.drills.cluster import Cluster
from benchmarks.drills.drill import CannotRun, Drill
from benchmarks.drills.rule import NOBODY_NOTICES
from benchmarks.drills.services import Place
from benchmarks.serving.processes import Program
from graphs.ports import free_port

BACK_AFTER_S = 5.0


class _WithRedis(Cluster):
    def __init__(self, place: Place) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise CannotRun("needs redis-server (Debian's package of that name)")
        port = free_port()
        # Another start must not find this one's state.
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._redis_server = Program(command, place.work / "redis.log", folder=place.work)
        super().__init__(place, redis=f"127.0.0.1:{port}")

    def stop(self) -> None:
        super().stop()
        self._redis_server.stop()


@contextmanager
def head(cluster: Cluster) -> Generator[frozenset[int]]:
    """Every process of the head: Ray's state and the controller."""
    victims = frozenset(cluster.head.pids())
    cluster.head.kill()
    yield victims
    cluster.start_head()


DRILLS = (
    Drill(
        "head", "kill -9 of all of the head, its state in Redis", head, NOBODY_NOTICES, "rolling", lasts_s=BACK_AFTER_S, cluster=_WithRedis
    ),
)
