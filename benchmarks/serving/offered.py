"""Latency over offered load: arrivals that wait for nobody, at fractions of what each system was just measured to deliver."""

from __future__ import annotations

from benchmarks.serving.bench import Bench, Fleet, requests_of
from benchmarks.serving.plan import Open
from benchmarks.serving.report import Findings, Lines, Section
from benchmarks.serving.schedule import poisson_arrivals
from benchmarks.serving.summary import Summary, summarize
from benchmarks.serving.targets import Target
from benchmarks.serving.throughput import SATURATING_CLIENTS, systems

FRACTIONS = (0.25, 0.5, 0.75, 0.9)
COLUMNS = ("system", "of its capacity", "offered tok/s", "answered tok/s", "p50 ms", "p99 ms", "failed")


def run(bench: Bench) -> Findings:
    rows: list[list[str]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    with bench.started(systems()) as fleet, bench.progress("offered", len(fleet.targets) * (1 + len(FRACTIONS))) as step:
        for target in fleet.targets:
            step(f"{target.name}, capacity")
            capacity = summarize(fleet.run_one(target, bench.closed(target, SATURATING_CLIENTS, 1))).tok_s
            for fraction in FRACTIONS:
                step(f"{target.name}, {fraction:.0%}")
                found = offer(bench, fleet, target, fraction * capacity)
                rows.append(row(target.name, fraction, fraction * capacity, found))
                lines.setdefault(target.name, []).append((fraction * capacity, found.p99_ms))
        notes = [f"one text a request, {bench.options.seconds:g} s each, latency from the scheduled instant", *fleet.notes()]
    section = Section("Latency over offered load: open loop, Poisson arrivals", COLUMNS, rows, notes)
    return Findings([section], [Lines("offered", "p99 over offered load (open loop)", "offered tok/s", "p99 ms", lines, "log")])


def offer(bench: Bench, fleet: Fleet, target: Target, tok_s: float) -> Summary:
    arrivals = poisson_arrivals(tok_s / bench.texts.mean_tokens, bench.options.seconds)
    load = Open(requests_of(target, bench.texts, len(arrivals)), arrivals)
    return summarize(fleet.run(target, {"all": load}).outcomes["all"])


def row(name: str, fraction: float, offered: float, found: Summary) -> list[str]:
    speed = [f"{offered:,.0f}", f"{found.tok_s:,.0f}", f"{found.p50_ms:,.1f}", f"{found.p99_ms:,.1f}"]
    return [name, f"{fraction:.0%}", *speed, str(found.failed)]
