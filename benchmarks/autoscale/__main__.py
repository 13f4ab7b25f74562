"""Scaling by seconds of backlog beside Ray Serve's default, by ongoing requests: `python -m benchmarks.autoscale [--live] [--save]`.

Three traces, each made from a seed (`traces.py`): steps, bursts of jobs of 1,000 texts, two days. The default policy gets each of several
`target_ongoing_requests` with Ray's delays and with two quicker ones, and is judged by its best for each trace.

By simulation the service is MiniLM as it was measured on two cores. With --live it is a real one on two Ray nodes, with its own ingress,
calls, queues, refusals and policy, but embedders that sleep what a forward would cost (`paced.py`), since replicas add no capacity on one
machine; beside it the simulation of the same. What the ingress, the controller and the start of a replica cost stays real.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.util import find_spec
from math import isnan
from pathlib import Path

from rich.console import Console

from benchmarks.autoscale import compare
from benchmarks.autoscale.compare import Against, Ran, Setup, against, reports, run_all
from benchmarks.autoscale.picture import Course, draw
from benchmarks.autoscale.traces import Scale, Trace, traces
from benchmarks.machine import describe_machine
from benchmarks.serving.goals import at_most
from benchmarks.serving.report import Section, markdown, show
from bgeserve.replica_settings import ModelReplicas
from bgeserve.simulation.replica import Speed

RESULTS = Path(__file__).parents[1] / "results"
WIDTH = 170
SCALE = Scale(tokens_per_s=7000, request_tokens=350, text_tokens=87, seconds=2400)
"""MiniLM in float32 on two cores: benchmarks/results/2026-11-24-serving.md; four docstrings a request."""
SETUP = Setup(
    Speed(tokens_per_s=7000, max_batch_tokens=700),
    ModelReplicas(max=8).rule,
    start_s=30,
    request_s=0.01,
)
LIVE_SCALE = Scale(tokens_per_s=2000, request_tokens=200, text_tokens=12, seconds=400)
"""Forty cold starts long: of less, what a policy does while replicas start is nearly all."""
LIVE_SETUP = Setup(
    Speed(tokens_per_s=2000, max_batch_tokens=400),
    ModelReplicas(max=6, cold_start_s=10, idle_s=60).rule,
    start_s=10,
    request_s=0.01,
)
COLUMNS = ["policy", "how", "replica-s", "most", "requests", "p50 ms", "p99 ms", "jobs' p99 s", "late", "refused", "failed"]


@dataclass(frozen=True)
class Result:
    section: Section
    courses: Mapping[str, Course]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.autoscale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--live", action="store_true", help="on Ray, with shorter traces; about 45 minutes")
    parser.add_argument("--only", nargs="+", metavar="TRACE", help="of steps, bursts, diurnal")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, metavar="DIR", help=f"table and pictures; default: {RESULTS.name}/")
    args = parser.parse_args(arguments)
    if args.save is not None and find_spec("matplotlib") is None:
        parser.error("--save draws pictures: pip install 'bge-serve[bench]'")
    # Ray's, about a setting that nothing replaces yet (`graphs/parts.py`).
    warnings.filterwarnings("ignore", "The `metrics_interval_s` field", DeprecationWarning)
    console = Console(width=WIDTH)
    found: list[Result] = []
    for trace in traces(LIVE_SCALE if args.live else SCALE):
        if not args.only or trace.name in args.only:
            found.append(_live(trace) if args.live else _simulated(trace))
            show(console, found[-1].section)
            if args.save is not None:
                _save(args.save, found, "" if args.live else "-simulated")


def _simulated(trace: Trace) -> Result:
    outcomes = run_all(SETUP, trace)
    ours, quick, *others = reports(outcomes)
    chosen = _chosen(against(ours, others), others)
    courses = {name: Course(outcomes[name].moments) for name in (ours.policy, chosen.policy)}
    rows = [_row(one, "simulated") for one in (ours, quick, *others)]
    (shipped,) = (other for other in others if other.policy == compare.SHIPPED)
    notes = [note for one in (ours, quick) for note in _verdict(one, against(one, others))]
    notes.append(_beside_shipped(ours, shipped))
    section = Section(f"{trace.name}, simulated: {trace.says}", COLUMNS, rows, notes)
    return Result(section, {"trace": Course.of_load(trace, SCALE.tokens_per_s), **courses})


def _live(trace: Trace) -> Result:
    # Only whoever asks for it pays for the import.
    from benchmarks.autoscale.live import run_live

    lived = run_live(LIVE_SETUP, trace, None)
    setup = LIVE_SETUP if isnan(lived.start_s) else replace(LIVE_SETUP, start_s=lived.start_s)
    outcomes = run_all(setup, trace)
    ours, _, *others = reports(outcomes)
    chosen = _chosen(against(ours, others), others)
    default = run_live(LIVE_SETUP, trace, compare.settings_of(LIVE_SETUP.rule)[chosen.policy])
    ran = compare.ran(compare.OURS, lived.outcome), compare.ran(chosen.policy, default.outcome)
    rows = [
        [*_row(ran[0], "live")[:-1], str(lived.failed)],
        _row(ours, "simulated"),
        [*_row(ran[1], "live")[:-1], str(default.failed)],
        _row(chosen, "simulated"),
    ]
    spend = ran[0].replica_s / ran[1].replica_s
    notes = [
        f"live: replica-seconds {at_most(spend, compare.SPEND_GOAL)} of the default's; unserved {ran[0].unserved} beside {ran[1].unserved}",
        f"a replica took {lived.start_s:.1f} s to start under ours, {default.start_s:.1f} s under the default; simulated with the former",
    ]
    courses = {
        "trace": Course.of_load(trace, LIVE_SCALE.tokens_per_s),
        compare.OURS: Course(lived.outcome.moments, outcomes[compare.OURS].moments),
        chosen.policy: Course(default.outcome.moments, outcomes[chosen.policy].moments),
    }
    return Result(Section(f"{trace.name}, live: {trace.says}", COLUMNS, rows, notes), courses)


def _chosen(beside: Against, others: Sequence[Ran]) -> Ran:
    """Which of the default's settings ours is shown beside: the cheapest that serves as well, else the best that costs no more."""
    return beside.cheapest or beside.best or min(others, key=lambda other: (other.unserved, other.p99_s))


def _verdict(ours: Ran, beside: Against) -> list[str]:
    notes: list[str] = []
    if beside.cheapest is None:
        notes.append(f"{ours.policy}: none of the default's settings serves as well")
    else:
        spend = at_most(beside.spend, compare.SPEND_GOAL)
        notes.append(f"{ours.policy}: replica-seconds over the cheapest that serves as well ({beside.cheapest.policy}): {spend}")
    if beside.best is None:
        notes.append(f"{ours.policy}: none of the default's settings costs as little")
    else:
        said = f"{ours.unserved:,} unserved beside {beside.best.unserved:,} of the best that costs no more ({beside.best.policy})"
        notes.append(f"{ours.policy}: {said}: {at_most(beside.unserved, compare.UNSERVED_GOAL)}")
    return notes


def _beside_shipped(ours: Ran, shipped: Ran) -> str:
    spend = at_most(ours.replica_s / shipped.replica_s, compare.SPEND_GOAL)
    jobs = "" if isnan(ours.jobs_p99_s) else f", of jobs {ours.jobs_p99_s:.1f} beside {shipped.jobs_p99_s:.1f} s"
    p99 = f"p99 {1000 * ours.p99_s:,.0f} beside {1000 * shipped.p99_s:,.0f} ms{jobs}"
    served = f"{p99}, {ours.unserved:,} unserved beside {shipped.unserved:,}"
    return f"{ours.policy}: replica-seconds over the default as Ray ships it ({shipped.policy}): {spend}, with {served}"


def _row(ran: Ran, how: str) -> list[str]:
    jobs = "" if isnan(ran.jobs_p99_s) else f"{ran.jobs_p99_s:.1f}"
    times = [f"{1000 * ran.p50_s:,.0f}", f"{1000 * ran.p99_s:,.0f}", jobs]
    return [
        ran.policy,
        how,
        f"{ran.replica_s:,.0f}",
        str(ran.most_replicas),
        f"{ran.requests:,}",
        *times,
        f"{ran.late:,}",
        f"{ran.refused:,}",
        "",
    ]


def _save(folder: Path, found: Sequence[Result], suffix: str) -> None:
    report = folder / f"{date.today().isoformat()}-autoscale{suffix}.md"
    image = report.with_suffix(".png")
    draw([(result.section.title, result.courses) for result in found], image)
    sections = [markdown(result.section) for result in found]
    report.write_text("\n\n".join([f"# Autoscaling; {describe_machine()}", *sections, f"![replicas and backlog]({image.name})"]) + "\n")


if __name__ == "__main__":
    main()
