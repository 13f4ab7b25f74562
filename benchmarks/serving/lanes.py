"""Short queries beside bulk jobs that saturate: how long a person waits, and what that costs the jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.serving import goals
from benchmarks.serving.bench import Bench, Fleet, requests_of
from benchmarks.serving.plan import Load, Open
from benchmarks.serving.report import Findings, Section
from benchmarks.serving.schedule import poisson_arrivals
from benchmarks.serving.summary import Summary, summarize
from benchmarks.serving.systems import PATIENT, WORKERS, System, ours
from benchmarks.serving.targets import Target
from bgeserve.settings import CPU_MAX_BATCH_TOKENS

QUERIES_PER_S = 5.0
BULK_CLIENTS, BULK_TEXTS = 4, 64
PHASES_OF_SECONDS = 5
"""A phase is as many times longer than a run elsewhere: a p99 of few queries says little."""
SHARED, RESERVED = "workers shared", "one worker reserved"
COLUMNS = (
    *("service", "idle p50 ms", "idle p99 ms", "p50 beside bulk", "p99 beside bulk", "longest bulk batch ms"),
    *("bulk tok/s alone", "bulk tok/s beside queries", "bulk beside / alone"),
)


@dataclass(frozen=True, slots=True)
class Phases:
    idle: Summary
    alone: Summary
    queries: Summary
    bulk: Summary


def run(bench: Bench) -> Findings:
    rows: list[list[str]] = []
    systems = lane_systems()
    with bench.started(systems) as fleet, bench.progress("lanes", 3 * len(fleet.targets)) as step:
        for target in fleet.targets:
            rows.append(row(target.name, measure(bench, fleet, target, step)))
        phase_s = PHASES_OF_SECONDS * bench.options.seconds
        notes = [
            f"queries of at most 16 tokens, {QUERIES_PER_S:g} a second (open loop, {phase_s:g} s each phase), x-lane: interactive; "
            f"bulk: {BULK_CLIENTS} clients, {BULK_TEXTS} texts a request, x-lane: bulk; "
            f"longest bulk batch: {CPU_MAX_BATCH_TOKENS} tokens at the speed that one worker had in bulk alone; "
            f"what the reserved worker costs bulk is its rate alone beside that with {WORKERS} workers shared",
            *fleet.notes(),
        ]
    return Findings([Section("Lanes: short queries beside saturating bulk, float32", COLUMNS, rows, notes)])


def lane_systems() -> list[System]:
    return [ours(SHARED, dtype="float32", **PATIENT), ours(RESERVED, dtype="float32", reserved_workers=1, **PATIENT)]


def measure(bench: Bench, fleet: Fleet, target: Target, step: Callable[[str], None]) -> Phases:
    phase_s = PHASES_OF_SECONDS * bench.options.seconds
    step(f"{target.name}, queries alone")
    idle = fleet.run(target, {"queries": queries(bench, target, phase_s)}).outcomes["queries"]
    step(f"{target.name}, bulk alone")
    alone = fleet.run(target, {"bulk": bulk(bench, target, phase_s)}).outcomes["bulk"]
    step(f"{target.name}, both")
    both = fleet.run(target, {"queries": queries(bench, target, phase_s), "bulk": bulk(bench, target, phase_s)}).outcomes
    return Phases(summarize(idle), summarize(alone), summarize(both["queries"]), summarize(both["bulk"]))


def queries(bench: Bench, target: Target, seconds: float) -> Load:
    arrivals = poisson_arrivals(QUERIES_PER_S, seconds)
    return Open(requests_of(target, bench.queries, len(arrivals), x_lane="interactive"), arrivals)


def bulk(bench: Bench, target: Target, seconds: float) -> Load:
    return bench.closed(target, BULK_CLIENTS, BULK_TEXTS, seconds=seconds, x_lane="bulk")


def row(name: str, found: Phases) -> list[str]:
    bulk_workers = WORKERS if name == SHARED else WORKERS - 1
    batch_ms = 1000 * CPU_MAX_BATCH_TOKENS * bulk_workers / found.alone.tok_s
    shared = found.idle.p99_ms + goals.QUERY_OVER_LONGEST_BATCH * batch_ms
    goal_ms = shared if name == SHARED else goals.RESERVED_OVER_IDLE * found.idle.p99_ms
    share = found.bulk.tok_s / found.alone.tok_s
    return [
        name,
        f"{found.idle.p50_ms:.0f}",
        f"{found.idle.p99_ms:.0f}",
        f"{found.queries.p50_ms:.0f}",
        goals.at_most(found.queries.p99_ms, goal_ms, 0),
        f"{batch_ms:.0f}",
        f"{found.alone.tok_s:,.0f}",
        f"{found.bulk.tok_s:,.0f}",
        goals.at_least(share, goals.BULK_OVER_ALONE if name == SHARED else None),
    ]
