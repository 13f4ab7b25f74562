"""Ours beside its peers in a closed loop: clients times texts a request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.serving import goals, peers
from benchmarks.serving.bench import Bench, Fleet, in_turns, median_of_ratios
from benchmarks.serving.report import Bars, Findings, Section
from benchmarks.serving.summary import Summary, summarize
from benchmarks.serving.systems import PATIENT, System, ours
from benchmarks.serving.targets import Target

FLOAT32, AUTO = "bge-serve float32", "bge-serve auto"
SATURATING_CLIENTS = 32
"""Where the goals are looked at: fewer may leave cores idle, more only wait longer."""


COLUMNS = (
    *("clients x texts", "system", "tok/s", "p50 ms", "p99 ms"),
    *("float32 ours / it", "auto ours / it", "its p99 / ours", "failed", "its count / sent"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    clients: int
    texts: int
    """Of one request."""

    @property
    def in_flight(self) -> int:
        return self.clients * self.texts

    def __str__(self) -> str:
        return f"{self.clients} x {self.texts}"


Measured = Mapping[tuple[Cell, str], Sequence[Summary]]


def systems() -> list[System]:
    whole = [ours(FLOAT32, dtype="float32", **PATIENT), ours(AUTO, dtype="auto", **PATIENT)]
    return [*whole, peers.infinity_torch(), peers.infinity_onnx(), peers.sie(), peers.flagembedding()]


def run(bench: Bench) -> Findings:
    options = bench.options
    # With the shortest answers first, so that what a larger cell would take is known before it is tried.
    cells = [Cell(clients, texts) for clients in options.clients for texts in options.texts_per_request]
    cells.sort(key=lambda cell: cell.in_flight)
    with bench.started(systems()) as fleet:
        measured = measure(bench, fleet, cells)
        names = [target.name for target in fleet.targets]
        section = Section(
            "Throughput, closed loop: clients x texts a request",
            COLUMNS,
            [row for cell in sorted(cells, key=lambda cell: (cell.texts, cell.clients)) for row in rows(cell, names, measured)],
            [
                f"medians of {options.rounds} rounds of {options.seconds:g} s, in turns; ratios are medians of the rounds' own; "
                f"left out: cells in which one answer would take more than {options.max_answer_s:g} s",
                *fleet.notes(),
            ],
        )
    return Findings([section], [plot(names, cells, measured)])


def measure(bench: Bench, fleet: Fleet, cells: Sequence[Cell]) -> Measured:
    measured: dict[tuple[Cell, str], list[Summary]] = defaultdict(list)
    left_out: set[tuple[Cell, str]] = set()
    last_tok_s: dict[str, float] = {}
    with bench.progress("throughput", bench.options.rounds * len(cells) * len(fleet.targets)) as step:
        for round_ in range(bench.options.rounds):
            for number, cell in enumerate(cells):
                for target in in_turns(fleet.targets, round_):
                    step(f"{target.name}, {cell}")
                    at = (cell, target.name)
                    if round_ == 0 and expected_s(bench, cell, last_tok_s.get(target.name)) > bench.options.max_answer_s:
                        left_out.add(at)
                    if at not in left_out:
                        measured[at].append(measure_cell(bench, fleet, target, cell, 1000 * number))
                        last_tok_s[target.name] = measured[at][-1].tok_s
    return measured


def measure_cell(bench: Bench, fleet: Fleet, target: Target, cell: Cell, at: int) -> Summary:
    return summarize(fleet.run_one(target, bench.closed(target, cell.clients, cell.texts, at=at)))


def expected_s(bench: Bench, cell: Cell, tok_s: float | None) -> float:
    """Of one answer, when all that is in flight is computed in turn."""
    return cell.in_flight * bench.texts.mean_tokens / tok_s if tok_s else 0.0


def rows(cell: Cell, names: Sequence[str], measured: Measured) -> list[list[str]]:
    return [row(cell, name, measured) for name in names if measured.get((cell, name))]


def row(cell: Cell, name: str, measured: Measured) -> list[str]:
    found = measured[cell, name]
    has_goal = cell.clients == SATURATING_CLIENTS
    is_peer = name not in (FLOAT32, AUTO)
    speed = {ours_: median_of_ratios(_tok_s(cell, ours_, measured), _tok_s(cell, name, measured)) for ours_ in (FLOAT32, AUTO)}
    p99 = median_of_ratios([one.p99_ms for one in found], [one.p99_ms for one in measured.get((cell, FLOAT32), ())])
    counted = found[-1].counted_ratio
    return [
        str(cell),
        name,
        f"{median(one.tok_s for one in found):,.0f}",
        f"{median(one.p50_ms for one in found):,.0f}",
        f"{median(one.p99_ms for one in found):,.0f}",
        goals.at_least(speed[FLOAT32], goals.OVER_PEER.get(name) if has_goal else None) if is_peer else "",
        goals.at_least(speed[AUTO], goals.AUTO_OVER_PEER.get(name) if has_goal else None) if is_peer else "",
        goals.at_least(p99, 1.0 if has_goal else None) if is_peer else "",
        f"{sum(one.failed for one in found)}",
        "none" if counted is None else f"{counted:.2f}",
    ]


def plot(names: Sequence[str], cells: Sequence[Cell], measured: Measured) -> Bars:
    most = max((cell.clients for cell in cells if cell.clients <= SATURATING_CLIENTS), default=cells[0].clients)
    some = [cell for cell in cells if cell.clients == most and all(measured.get((cell, name)) for name in names)]
    shown = {cell: f"{cell.texts} texts a request" for cell in some}
    series = {
        name: {label: median(_tok_s(cell, name, measured)) for cell, label in shown.items() if measured.get((cell, name))} for name in names
    }
    return Bars("throughput", f"{most} clients, closed loop", "tok/s", list(shown.values()), series)


def _tok_s(cell: Cell, name: str, measured: Measured) -> list[float]:
    return [one.tok_s for one in measured.get((cell, name), ())]
