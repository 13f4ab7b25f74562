"""Processes that end at once: kill -9 of a replica, of the controller, of the proxy, of a whole node."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.drills.cluster import Cluster
from benchmarks.drills.drill import Drill, Fault
from benchmarks.drills.rule import IN_FLIGHT, NOBODY_NOTICES, NOT_ACCEPTED, WAITS
from benchmarks.drills.services import EMBEDDER, RERANKER
from benchmarks.serving.processes import state_of

BACK_AFTER_S = 5.0
"""When a node that is lost comes back: until then the others do its work."""


def replica(deployment: str) -> Fault:
    return partial(_killed, beginning=f"ray::ServeReplica:search:{deployment}")


def process(beginning: str) -> Fault:
    return partial(_killed, beginning=beginning)


def _killed(cluster: Cluster, beginning: str) -> AbstractContextManager[frozenset[int]]:
    """One of the processes whose title begins so."""
    return killed(cluster.pids(beginning)[0])


@contextmanager
def killed(victim: int) -> Generator[frozenset[int]]:
    os.kill(victim, signal.SIGKILL)
    while any(state_of(victim, int(thread.name)) not in (None, "Z") for thread in Path(f"/proc/{victim}/task").glob("*")):
        time.sleep(0.001)  # until its last thread is gone its sockets take what nobody will answer
    yield frozenset({victim})


@contextmanager
def worker_node(cluster: Cluster) -> Generator[frozenset[int]]:
    """Every process of the node that has no front."""
    victims = frozenset(cluster.worker.pids())
    cluster.worker.kill()
    yield victims
    cluster.start_worker()


DRILLS = (
    Drill("embedder", "kill -9 of one of two replicas", replica(EMBEDDER), NOBODY_NOTICES),
    Drill("reranker", "kill -9 of one of two replicas", replica(RERANKER), NOBODY_NOTICES),
    Drill("owner", "kill -9 of the retriever, which owns an embedded store", replica("retriever"), WAITS),
    Drill("ingress", "kill -9 of one of two replicas", replica("ingress"), IN_FLIGHT),
    Drill("proxy", "kill -9 of the only HAProxy", process("haproxy"), NOT_ACCEPTED),
    Drill("controller", "kill -9 of Serve's controller", process("ray::ServeController"), NOBODY_NOTICES),
    Drill("worker-node", "kill -9 of all of a node without front", worker_node, NOBODY_NOTICES, lasts_s=BACK_AFTER_S),
)
