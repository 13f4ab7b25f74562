"""One drill: what is right is asked while all is well, clients and writers go to work, the fault comes and goes, and all is counted."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from time import monotonic

from benchmarks.drills.clients import SEARCHES, TEXTS, Clients, right_answers
from benchmarks.drills.cluster import Cluster, NotWhole
from benchmarks.drills.rule import Cost, Rule
from benchmarks.drills.services import Place
from benchmarks.durability.truth import Truth
from benchmarks.durability.writers import Writers, read_all

CALM_S = 2.0
"""Under load before the fault, and after all is whole again."""
CLIENTS = 32
"""So many that there is something of clients of both kinds wherever a fault strikes."""
WRITERS = 2
WRITE_PAUSE_S = 0.1


class CannotRun(Exception):
    """Says what is missing on this machine."""


Fault = Callable[[Cluster], AbstractContextManager[frozenset[int]]]
"""Breaks something on its way in, and mends on its way out what does not mend itself. Gives the processes that must be replaced."""


@dataclass(frozen=True, slots=True)
class Drill:
    name: str
    what: str
    fault: Fault
    rule: Rule
    config: str = "search"
    """Of which of the services in `services.py` it is about."""
    lasts_s: float = 0.0
    cluster: Callable[[Place], Cluster] | None = None
    """Of its own, where the usual one does not bear it. Raises CannotRun."""
    changes_answers: bool = False
    """Whether there are two versions: each answer must be wholly of one of them."""


async def run(drill: Drill, cluster: Cluster, *, searches: bool, seed: int) -> Cost:
    """searches: whether the service has an index, and not only models."""
    questions = [*SEARCHES, *TEXTS] if searches else TEXTS
    versions = [await right_answers(cluster.url, questions)]
    plain = await right_answers(cluster.url, SEARCHES, rerank=False) if searches else {}
    truth = Truth()
    if searches:
        truth.check(await read_all(cluster.url))  # what earlier drills have left is the truth that this one begins with
    clients = Clients(cluster.url, questions, CLIENTS, seed)
    writers = Writers(cluster.url, truth, seed, WRITERS, WRITE_PAUSE_S)
    async with AsyncExitStack() as at_work:
        await at_work.enter_async_context(clients.at_work())
        if searches:
            await at_work.enter_async_context(writers.at_work())
        await asyncio.sleep(CALM_S)
        struck_s, ended_s, problem = await _strike(drill, cluster)
        if not problem:
            await clients.all_answered_since(ended_s)
            if searches:
                await writers.all_acknowledged_since(ended_s)
        whole_s = math.inf if problem else monotonic()
        await asyncio.sleep(CALM_S)
    if drill.changes_answers and not problem:
        versions.append(await right_answers(cluster.url, questions))
    losses = truth.check(await read_all(cluster.url)) if searches and not problem else []
    return Cost(clients.asked, versions, plain, Counter(writers.answers), losses, struck_s, ended_s, whole_s, problem)


async def _strike(drill: Drill, cluster: Cluster) -> tuple[float, float, str]:
    """When the fault came, when it was over, and why all is not there again on return, if it is not."""
    fault = drill.fault(cluster)
    replaced = await asyncio.to_thread(fault.__enter__)
    struck_s = monotonic()
    try:
        await asyncio.sleep(drill.lasts_s)
    finally:
        await asyncio.to_thread(fault.__exit__, None, None, None)
    ended_s = monotonic() if drill.lasts_s else struck_s
    try:
        await asyncio.to_thread(cluster.until_whole, replaced)
    except NotWhole as problem:
        return struck_s, ended_s, str(problem)
    return struck_s, ended_s, ""


def columns() -> Sequence[str]:
    return ("drill", "what is broken", "sent", "failed", "sent with retry", "failed", "wrong", "writes", "refused", "lost", "degraded",
            "gap s", "recovery s", "rule", "")  # fmt: skip


def row(drill: Drill, cost: Cost) -> list[str]:
    writes = cost.writes["200"]
    counts = [
        *(cost.sent(retries=False), len(cost.failed(retries=False)), cost.sent(retries=True), len(cost.failed(retries=True))),
        *(len(cost.wrong), writes, cost.writes.total() - writes, len(cost.losses), cost.degraded),
    ]
    verdict = "BROKEN" if cost.breaches(drill.rule) else "kept"
    return [drill.name, drill.what, *map(str, counts), f"{cost.gap_s:.1f}", f"{cost.recovery_s:.1f}", drill.rule.words, verdict]
