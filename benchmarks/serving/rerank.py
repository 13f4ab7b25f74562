"""Reranking over HTTP, over the same reranker's engine in process: many clients, a hundred passages each."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from benchmarks.serving import goals
from benchmarks.serving.bench import Bench, Fleet, in_turns, median_of_ratios
from benchmarks.serving.plan import Closed
from benchmarks.serving.report import Findings, Section
from benchmarks.serving.summary import Summary, counted_tokens_per_s, summarize
from benchmarks.serving.systems import PATIENT, in_process, our_reranker
from benchmarks.serving.targets import Target

SERVED, ENGINE = "bge-serve", "engine"
CLIENTS, PASSAGES = 32, 100
WARM_UP_CLIENTS = 2
COLUMNS = ("system", "tok/s", "p50 ms", "p99 ms", "failed", "bge-serve / it")


def run(bench: Bench) -> Findings:
    systems = [
        our_reranker(SERVED, dtype="float32", **PATIENT),
        in_process(ENGINE, "reranker", dtype="float32", scoring="late_interaction", **PATIENT),
    ]
    speeds: dict[str, list[float]] = defaultdict(list)
    summaries: dict[str, list[Summary]] = defaultdict(list)
    rounds = bench.options.rounds
    with (
        bench.started(systems, lambda target: load(bench, target, WARM_UP_CLIENTS, 0)) as fleet,
        bench.progress("rerank", rounds * len(fleet.targets)) as step,
    ):
        for round_ in range(rounds):
            for target in in_turns(fleet.targets, round_):
                step(target.name)
                speed, summary = measure(bench, fleet, target, PASSAGES * CLIENTS * round_)
                speeds[target.name].append(speed)
                summaries[target.name].append(summary)
        rows = [row(target.name, speeds, summaries[target.name]) for target in fleet.targets]
        notes = [f"late interaction over MiniLM, float32, {rounds} rounds; tokens as the answers count them", *fleet.notes()]
    return Findings([Section(f"Rerank: {PASSAGES} passages, {CLIENTS} clients", COLUMNS, rows, notes)])


def measure(bench: Bench, fleet: Fleet, target: Target, at: int) -> tuple[float, Summary]:
    outcomes = fleet.run_one(target, load(bench, target, CLIENTS, at))
    return counted_tokens_per_s(outcomes), summarize(outcomes)


def load(bench: Bench, target: Target, clients: int, at: int) -> Closed:
    """Each client once: so many passages are a queue of a minute already."""
    queries = bench.queries.take(clients, at)
    passages = bench.texts.take(clients * PASSAGES, at)
    requests = [target.rerank(query, passages[PASSAGES * i : PASSAGES * (i + 1)]) for i, query in enumerate(queries)]
    return Closed(requests, clients, float("inf"))


def row(name: str, speeds: dict[str, list[float]], found: list[Summary]) -> list[str]:
    over = goals.at_least(median_of_ratios(speeds[SERVED], speeds[name]), goals.RERANK_OVER_ENGINE)
    p50, p99 = (f"{median(values):,.0f}" for values in ([one.p50_ms for one in found], [one.p99_ms for one in found]))
    return [name, f"{median(speeds[name]):,.0f}", p50, p99, str(sum(one.failed for one in found)), "" if name == SERVED else over]
