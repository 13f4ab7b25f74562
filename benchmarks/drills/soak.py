"""A long light load with a fault every so often: what it cost, and whether the processes that outlive the faults grow."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

import numpy as np

from benchmarks.drills.clients import SEARCHES, TEXTS, Clients, right_answers
from benchmarks.drills.cluster import Cluster
from benchmarks.drills.kills import killed
from benchmarks.drills.rule import Cost, Rule, any_of
from benchmarks.drills.running import Bench
from benchmarks.drills.services import EMBEDDER, RERANKER
from benchmarks.durability.truth import Truth
from benchmarks.durability.writers import Writers, read_all
from benchmarks.resident import MIB
from benchmarks.serving.goals import at_most
from benchmarks.serving.processes import resident_bytes, title
from benchmarks.serving.report import Findings, Lines, Section

FAULT_EVERY_S = 60.0
LOOK_EVERY_S = 10.0
WARM_SHARE = 0.2
"""Of the time, before which nothing is said of growth."""
CLIENTS, WRITERS, WRITE_PAUSE_S = 8, 1, 0.3
MAX_GROWTH = 0.05
VICTIMS = (EMBEDDER, RERANKER, "ingress", "retriever")
"""In turn, and always the youngest: of each but the owner one lives on, with the controller, the proxy and Ray itself."""
RULE = Rule("nothing fails with the client's retry", bare=any_of, writes=None)
Look = Mapping[int, int]
"""Resident bytes of each process."""


async def soak(bench: Bench, minutes: float, seed: int) -> tuple[Findings, bool]:
    cluster = await asyncio.to_thread(bench.cluster_of, "search")
    version = await right_answers(cluster.url, [*SEARCHES, *TEXTS])
    plain = await right_answers(cluster.url, SEARCHES, rerank=False)
    truth = Truth()
    clients = Clients(cluster.url, [*SEARCHES, *TEXTS], CLIENTS, seed)
    writers = Writers(cluster.url, truth, seed, WRITERS, WRITE_PAUSE_S)
    looks: list[tuple[float, Look]] = []
    began_s = monotonic()
    async with clients.at_work(), writers.at_work():
        watching = asyncio.create_task(_watch(cluster, began_s, looks))
        faults = await _strike_in_turn(cluster, began_s + 60 * minutes)
        watching.cancel()
        whole_s = monotonic()
    losses = truth.check(await read_all(cluster.url))
    cost = Cost(clients.asked, [version], plain, writers.answers, losses, began_s, began_s, whole_s)
    return findings(looks, cost, faults, minutes)


async def _strike_in_turn(cluster: Cluster, until_s: float) -> int:
    """How many faults there were."""
    faults = 0
    while (left_s := until_s - monotonic()) > FAULT_EVERY_S:
        await asyncio.sleep(FAULT_EVERY_S)
        victim = await asyncio.to_thread(_youngest, cluster, VICTIMS[faults % len(VICTIMS)])
        with killed(victim):
            await asyncio.to_thread(cluster.until_whole, frozenset({victim}))
        faults += 1
    await asyncio.sleep(max(0.0, left_s))
    return faults


async def _watch(cluster: Cluster, began_s: float, looks: list[tuple[float, Look]]) -> None:
    while True:
        look = await asyncio.to_thread(lambda: {pid: resident_bytes([pid]) for pid in cluster.survivors()})
        looks.append((monotonic() - began_s, look))
        await asyncio.sleep(LOOK_EVERY_S)


def _youngest(cluster: Cluster, deployment: str) -> int:
    return max(cluster.replicas(deployment), key=lambda pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]))


def findings(looks: Sequence[tuple[float, Look]], cost: Cost, faults: int, minutes: float) -> tuple[Findings, bool]:
    warm = looks[int(WARM_SHARE * len(looks)) :]
    survivors = set.intersection(*(set(look) for _, look in warm))
    kinds: dict[str, list[int]] = defaultdict(list)
    for pid in survivors:
        kinds[_kind(pid)].append(pid)
    growths = {kind: _growth(warm, pids) for kind, pids in {**kinds, "all": [*survivors]}.items()}
    rows = [
        [kind, str(len(pids)), f"{_mib(warm[0], pids):,.0f}", f"{_mib(warm[-1], pids):,.0f}", f"{100 * growths[kind]:+.1f} %"]
        for kind, pids in sorted(kinds.items(), key=lambda item: -_mib(warm[-1], item[1]))
    ]
    total = at_most(100 * growths["all"], 100 * MAX_GROWTH, 1)
    rows.append(["all", str(len(survivors)), f"{_mib(warm[0], [*survivors]):,.0f}", f"{_mib(warm[-1], [*survivors]):,.0f}", f"{total} %"])
    breaches = cost.breaches(RULE)
    notes = [*_said(cost, faults, minutes), *(f"BROKEN: {breach}" for breach in breaches)]
    points = {"survivors": [(at_s / 60, _mib((at_s, look), [*survivors])) for at_s, look in warm]}
    section = Section("Soak", ("process", "of these", "RSS MiB, warm", "RSS MiB, end", "growth"), rows, notes)
    lines = Lines("memory", "RSS of the processes that outlive the faults", "minutes", "MiB", points)
    return Findings([section], [lines]), bool(breaches) or growths["all"] > MAX_GROWTH


def _said(cost: Cost, faults: int, minutes: float) -> list[str]:
    counts = [
        f"{cost.sent(retries=retries)} requests of clients {how} the retry, {len(cost.failed(retries=retries))} failed"
        for how, retries in (("with", True), ("without", False))
    ]
    return [
        f"{minutes:g} minutes, {faults} faults (kill -9 of the youngest of {', '.join(VICTIMS)}, in turn); {'; '.join(counts)}; "
        f"{len(cost.wrong)} wrong; {cost.writes['200']} writes acknowledged, {len(cost.losses)} lost; longest gap {cost.gap_s:.1f} s",
        f"growth: of the line fitted to the last {100 * (1 - WARM_SHARE):.0f} % of the time, over its mean",
    ]


def _growth(looks: Sequence[tuple[float, Look]], pids: Sequence[int]) -> float:
    """How much of its mean the fitted line rises from the first look to the last."""
    at_s = np.array([at_s for at_s, _ in looks])
    sizes = np.array([_mib(look, pids) for look in looks])
    slope, _ = np.polyfit(at_s, sizes, 1)
    return float(slope * (at_s[-1] - at_s[0]) / sizes.mean())


def _mib(look: tuple[float, Look], pids: Sequence[int]) -> float:
    return sum(look[1][pid] for pid in pids) / MIB


def _kind(pid: int) -> str:
    """What it calls itself, without what is particular to this one."""
    said = title(pid)
    if said.startswith("ray::ServeReplica:"):
        return said.split(":")[4].split(".")[0].split(" ")[0]
    words = [word for word in said.split(" ") if word]
    names = [Path(word).name for word in words[:3] if not word.startswith("-")]
    return (names[1] if names and names[0].startswith("python") and len(names) > 1 else names[0] if names else "gone")[:40]
