"""Replicas that do not end but hardly go on: one that hangs, one that is ten times slower, a reranker none of whose replicas answers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

from benchmarks.drills.cluster import Cluster
from benchmarks.drills.drill import Drill, Fault
from benchmarks.drills.rule import DEGRADES, NOBODY_NOTICES, WAITS
from benchmarks.drills.services import EMBEDDER, RERANKER

SLOW_S = 20.0
DOWN_S = 10.0
RUNS_S, RESTS_S = 0.02, 0.18
"""A tenth of the time."""


def hangs(deployment: str) -> Fault:
    """Until it is found out."""

    @contextmanager
    def fault(cluster: Cluster) -> Generator[frozenset[int]]:
        victim = cluster.replicas(deployment)[0]
        os.kill(victim, signal.SIGSTOP)
        yield frozenset({victim})

    return fault


def stands_still(deployment: str) -> Fault:
    """All of its replicas, while the fault lasts."""

    @contextmanager
    def fault(cluster: Cluster) -> Generator[frozenset[int]]:
        victims = cluster.replicas(deployment)
        _signal(victims, signal.SIGSTOP)
        yield frozenset()
        _signal(victims, signal.SIGCONT)

    return fault


def ten_times_slower(deployment: str) -> Fault:
    """While the fault lasts."""

    @contextmanager
    def fault(cluster: Cluster) -> Generator[frozenset[int]]:
        victims, over = cluster.replicas(deployment)[:1], threading.Event()
        resting = threading.Thread(target=_rest, args=(victims, over))
        resting.start()
        yield frozenset()
        over.set()
        resting.join()

    return fault


def _rest(victims: Sequence[int], over: threading.Event) -> None:
    while not over.wait(RUNS_S):
        _signal(victims, signal.SIGSTOP)
        over.wait(RESTS_S)
        _signal(victims, signal.SIGCONT)


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # the controller may have ended it meanwhile
            os.kill(pid, number)


DRILLS = (
    Drill("embedder-hangs", "SIGSTOP of one of two replicas", hangs(EMBEDDER), NOBODY_NOTICES),
    Drill("owner-hangs", "SIGSTOP of the retriever, which owns an embedded store", hangs("retriever"), WAITS),
    Drill("embedder-slow", "one of two replicas runs a tenth of the time", ten_times_slower(EMBEDDER), NOBODY_NOTICES, lasts_s=SLOW_S),
    Drill("reranker-down", "SIGSTOP of both replicas", stands_still(RERANKER), DEGRADES, config="degrading", lasts_s=DOWN_S),
)
