"""What serving costs at saturation: the service on Ray, over its API under a bare uvicorn, over its engine alone."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from benchmarks.serving import goals
from benchmarks.serving.bench import Bench, Fleet, in_turns, median_of_ratios
from benchmarks.serving.report import Findings, Section
from benchmarks.serving.summary import Summary, summarize
from benchmarks.serving.systems import PATIENT, bare_uvicorn, in_process, ours

SERVED, UVICORN, ENGINE = "bge-serve float32", "uvicorn", "engine"
CLIENTS = 32
COLUMNS = ("texts a request", "system", "tok/s", "p50 ms", "p99 ms", "bge-serve / it", "it / engine")

Measured = dict[tuple[int, str], list[Summary]]


def run(bench: Bench) -> Findings:
    systems = [start(name, dtype="float32", **PATIENT) for name, start in ((SERVED, ours), (UVICORN, bare_uvicorn), (ENGINE, in_process))]
    with bench.started(systems) as fleet:
        measured = measure(bench, fleet)
        section = Section(
            f"What serving costs: {CLIENTS} clients, closed loop, float32",
            COLUMNS,
            [
                row(texts, target.name, measured)
                for texts in bench.options.texts_per_request
                for target in fleet.targets
                if measured[texts, target.name]
            ],
            [f"medians of {bench.options.pairs} rounds in turns; ratios are medians of the rounds' own", *fleet.notes()],
        )
    return Findings([section])


def measure(bench: Bench, fleet: Fleet) -> Measured:
    measured: Measured = defaultdict(list)
    sizes = bench.options.texts_per_request
    with bench.progress("overhead", bench.options.pairs * len(sizes) * len(fleet.targets)) as step:
        for round_ in range(bench.options.pairs):
            for texts in sizes:
                for target in in_turns(fleet.targets, round_):
                    step(f"{target.name}, {texts} texts a request")
                    load = bench.closed(target, CLIENTS, texts, at=1000 * round_)
                    measured[texts, target.name].append(summarize(fleet.run_one(target, load)))
    return measured


def row(texts: int, name: str, measured: Measured) -> list[str]:
    found = measured[texts, name]
    tok_s = {system: [one.tok_s for one in measured[texts, system]] for system in (SERVED, UVICORN, ENGINE)}
    served = median_of_ratios(tok_s[SERVED], tok_s[name])
    goal = {UVICORN: goals.SERVED_OVER_UVICORN, ENGINE: goals.SERVED_OVER_ENGINE.get(texts)}
    return [
        str(texts),
        name,
        f"{median(tok_s[name]):,.0f}",
        f"{median(one.p50_ms for one in found):,.0f}",
        f"{median(one.p99_ms for one in found):,.0f}",
        "" if name == SERVED else goals.at_least(served, goal[name]),
        "" if name == ENGINE else goals.at_least(median_of_ratios(tok_s[name], tok_s[ENGINE]), None),
    ]
