"""Three times what the service can do: what it delivers then, how fast it refuses, and whether Retry-After is true."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from benchmarks.serving import goals
from benchmarks.serving.bench import Bench, requests_of
from benchmarks.serving.plan import OK, Open, Outcome
from benchmarks.serving.report import Findings, Section
from benchmarks.serving.schedule import poisson_arrivals
from benchmarks.serving.summary import percentile, summarize
from benchmarks.serving.systems import WORKERS, ours
from benchmarks.serving.throughput import SATURATING_CLIENTS
from bgeserve.settings import CPU_MAX_BATCH_TOKENS

TIMES_CAPACITY = 3
TIMEOUT_MS = 4000
REFUSED, EXPIRED = 429, 504
PHASE_OF_SECONDS = 3
COLUMNS = ("figure", "measured")


def run(bench: Bench) -> Findings:
    phase_s = PHASE_OF_SECONDS * bench.options.seconds
    with bench.started([ours("bge-serve float32", dtype="float32")]) as fleet, bench.progress("overload", 2) as step:
        rows: list[list[str]] = []
        for target in fleet.targets:
            step("peak")
            peak = summarize(fleet.run_one(target, bench.closed(target, SATURATING_CLIENTS, 1, seconds=phase_s))).tok_s
            step(f"{TIMES_CAPACITY} times the peak")
            arrivals = poisson_arrivals(TIMES_CAPACITY * peak / bench.texts.mean_tokens, phase_s)
            requests = requests_of(target, bench.texts, len(arrivals), x_timeout_ms=str(TIMEOUT_MS))
            rows += figures(peak, fleet.run(target, {"all": Open(requests, arrivals)}).outcomes["all"])
        notes = [f"open loop, one text a request, {phase_s:g} s, x-timeout-ms {TIMEOUT_MS}, the default bound of the queue", *fleet.notes()]
    return Findings([Section(f"Overload: {TIMES_CAPACITY} times the peak, float32", COLUMNS, rows, notes)])


def figures(peak: float, outcomes: Sequence[Outcome]) -> list[list[str]]:
    found = summarize(outcomes)
    refused = [outcome for outcome in outcomes if outcome.reply.status == REFUSED]
    honest = [is_honest(declared, true) for declared, true in retry_after_pairs(outcomes)]
    late_ms = [max(0.0, 1000 * (o.ended_s - o.sent_s) - TIMEOUT_MS) for o in outcomes if o.reply.status in (OK, EXPIRED)]
    batch_ms = 1000 * CPU_MAX_BATCH_TOKENS * WORKERS / peak
    lag_ms = percentile([1000 * (o.sent_s - o.due_s) for o in outcomes], 99)
    return [
        ["peak tok/s (closed loop)", f"{peak:,.0f}"],
        ["goodput tok/s", f"{found.tok_s:,.0f}"],
        ["goodput / peak", goals.at_least(found.tok_s / peak, goals.GOODPUT_OVER_PEAK)],
        ["answers by status", ", ".join(f"{status}: {count}" for status, count in sorted(found.statuses.items()))],
        ["latency of a refusal, p95 ms", goals.at_most(percentile([1000 * o.latency_s for o in refused], 95), goals.REFUSAL_P95_MS, 1)],
        ["Retry-After within 2x of the truth", goals.at_least(_share(honest), goals.RETRY_AFTER_HONEST)],
        ["latest end past the deadline, ms (one batch)", goals.at_most(max(late_ms, default=0.0), batch_ms, 0)],
        ["client behind its schedule, p99 ms", f"{lag_ms:.1f}"],
    ]


def retry_after_pairs(outcomes: Sequence[Outcome]) -> list[tuple[float, float]]:
    """Of each refusal: the seconds it named, and those until all that had been accepted before it was answered."""
    accepted = sorted((o for o in outcomes if o.reply.status in (OK, EXPIRED)), key=lambda o: o.sent_s)
    sent = [outcome.sent_s for outcome in accepted]
    last_end = list(accumulate((outcome.ended_s for outcome in accepted), max))
    pairs: list[tuple[float, float]] = []
    for outcome in outcomes:
        before = bisect_right(sent, outcome.sent_s)
        if outcome.reply.status == REFUSED and outcome.reply.retry_after_s is not None and before:
            pairs.append((outcome.reply.retry_after_s, last_end[before - 1] - outcome.ended_s))
    return pairs


def is_honest(declared_s: float, true_s: float) -> bool:
    return declared_s / 2 <= true_s <= declared_s * 2


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else float("nan")
