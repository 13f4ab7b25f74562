"""One client, one short text, nobody else: what each server adds to the forward that it cannot do without."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from benchmarks.serving import goals
from benchmarks.serving.bench import Bench, Fleet, in_turns, requests_of
from benchmarks.serving.plan import Closed
from benchmarks.serving.report import Findings, Section
from benchmarks.serving.summary import percentile
from benchmarks.serving.systems import bare_uvicorn, in_process
from benchmarks.serving.targets import Target
from benchmarks.serving.throughput import AUTO, FLOAT32, systems

FORWARD, FORWARD_AUTO = "bare forward float32", "bare forward auto"
BLOCK = 25
"""Texts in a row for one system, before it is another's turn; the first few only wake it up."""
WAKE_UP = 5
COLUMNS = ("system", "p50 ms", "p99 ms", "over the forward ms")


def run(bench: Bench) -> Findings:
    forwards = [in_process(FORWARD, "forward", dtype="float32"), in_process(FORWARD_AUTO, "forward", dtype="auto")]
    with bench.started([*forwards, bare_uvicorn("uvicorn", dtype="float32"), *systems()]) as fleet:
        measured = measure(bench, fleet)
        notes = [f"{bench.options.pairs * 2} turns of {BLOCK - WAKE_UP} texts of at most 16 tokens; differences of medians turn by turn"]
        rows = [row(target.name, measured) for target in fleet.targets]
        section = Section("Latency: one client, one short text", COLUMNS, rows, [*notes, *fleet.notes()])
    return Findings([section])


def measure(bench: Bench, fleet: Fleet) -> dict[str, list[list[float]]]:
    measured: dict[str, list[list[float]]] = defaultdict(list)
    turns = 2 * bench.options.pairs
    with bench.progress("latency", turns * len(fleet.targets)) as step:
        for round_ in range(turns):
            for target in in_turns(fleet.targets, round_):
                step(target.name)
                measured[target.name].append(block_ms(bench, fleet, target, BLOCK * round_))
    return measured


def block_ms(bench: Bench, fleet: Fleet, target: Target, at: int) -> list[float]:
    load = Closed(requests_of(target, bench.queries, BLOCK, at=at), 1, float("inf"))
    return [1000 * outcome.latency_s for outcome in fleet.run_one(target, load)[WAKE_UP:]]


def row(name: str, measured: dict[str, list[list[float]]]) -> list[str]:
    every = [ms for block in measured[name] for ms in block]
    # Each over the forward of its own dtype.
    bare = measured[FORWARD_AUTO if name == AUTO else FORWARD]
    added = median(median(block) - median(alone) for block, alone in zip(measured[name], bare, strict=True))
    goal = goals.OVER_FORWARD_MS if name in (FLOAT32, AUTO) else None
    over = "" if name in (FORWARD, FORWARD_AUTO) else goals.at_most(added, goal, 1)
    return [name, f"{median(every):.1f}", f"{percentile(every, 99):.1f}", over]
