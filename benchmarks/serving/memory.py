"""Whether the service grows: memory of all its processes over many mixed requests, some of which nobody waits for."""

from __future__ import annotations

import random

from benchmarks.resident import MIB
from benchmarks.serving import goals
from benchmarks.serving.bench import Bench, Fleet, requests_of
from benchmarks.serving.plan import NO_ANSWER, Closed, Request
from benchmarks.serving.processes import resident_bytes
from benchmarks.serving.report import Findings, Lines, Section
from benchmarks.serving.systems import PATIENT, ours
from benchmarks.serving.targets import Target

CHUNKS = 10
"""Memory is read after each; the first warms up."""
CLIENTS = 16
BATCH_EVERY = 20
BATCH_TEXTS = 8
HANG_UP_EVERY = 10
HANG_UP_S = 0.05
COLUMNS = ("requests", "RSS MiB", "over after warm-up")


def run(bench: Bench) -> Findings:
    total = bench.options.requests
    rows: list[list[str]] = []
    points: list[tuple[float, float]] = []
    hung_up = 0
    with bench.started([ours("bge-serve float32", dtype="float32", **PATIENT)]) as fleet, bench.progress("memory", CHUNKS) as step:
        for target in fleet.targets:
            for chunk in range(CHUNKS):
                step(f"{chunk * total // CHUNKS:,} requests")
                hung_up += ask(bench, fleet, target, total // CHUNKS, chunk)
                points.append(((chunk + 1) * total / CHUNKS, resident_bytes(target.program.pids()) / MIB))
                goal = goals.RESIDENT_END_OVER_WARM if chunk == CHUNKS - 1 else None
                rows.append([f"{points[-1][0]:,.0f}", f"{points[-1][1]:,.0f}", goals.at_most(points[-1][1] / points[0][1], goal, 3)])
        notes = [
            f"{CLIENTS} clients; each {BATCH_EVERY}th request has {BATCH_TEXTS} texts, the others one query; "
            f"after {hung_up:,} the client had hung up; RSS of all processes of the service, pages that they share counted in each",
            *fleet.notes(),
        ]
    section = Section("Memory over mixed requests, a tenth cancelled", COLUMNS, rows, notes)
    return Findings([section], [Lines("memory", "RSS of the service", "requests", "MiB", {"bge-serve": points})] if points else [])


def ask(bench: Bench, fleet: Fleet, target: Target, count: int, seed: int) -> int:
    """How many of them nobody waited for."""
    requests = mixed(bench, target, count, random.Random(seed))
    outcomes = fleet.run_one(target, Closed(requests, CLIENTS, float("inf")))
    return sum(outcome.reply.status == NO_ANSWER for outcome in outcomes)


def mixed(bench: Bench, target: Target, count: int, draw: random.Random) -> list[Request]:
    single = requests_of(target, bench.queries, count, at=draw.randrange(1000))
    batches = iter(requests_of(target, bench.texts, count // BATCH_EVERY + 1, BATCH_TEXTS, at=draw.randrange(1000)))
    chosen = [next(batches) if i % BATCH_EVERY == 0 else request for i, request in enumerate(single)]
    # Within a request's own time: some are gone before it is parsed, some while it waits, some while it is computed.
    return [
        Request(request.payload, request.tokens, draw.uniform(0.001, HANG_UP_S) if i % HANG_UP_EVERY == 1 else None)
        for i, request in enumerate(chosen)
    ]
