"""What a fault costs those who use the service: `python -m benchmarks.drills [--only NAME ...] [--save]`; all drills by default.

A real service on two Ray nodes of this machine, clients that search and embed and writers that put and delete, on loopback, and one fault
after another. Every answer is compared with the right one, and after each drill every document with what was acknowledged. Half of the
clients send again as our own client does, half do not. Exits with 1 when a fault cost more than its rule allows.

`--soak MINUTES` is one long load with a fault every so often, and looks at the memory of the processes that outlive them.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks.drills import head, kills, rollouts, stalls, stores
from benchmarks.drills.drill import Drill, columns
from benchmarks.drills.running import Bench, Outcome
from benchmarks.drills.soak import soak
from benchmarks.machine import describe_machine
from benchmarks.serving.report import Findings, Section, save, show

DRILLS: Sequence[Drill] = (*kills.DRILLS, *stalls.DRILLS, *stores.DRILLS, *rollouts.DRILLS, *head.DRILLS)
RESULTS = Path(__file__).parents[1] / "results"
WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    # So that what was started ends with this process, however it is asked to end.
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(width=WIDTH)
    heading = f"{describe_machine()}; seed {args.seed}"
    console.print(heading, markup=False)
    report = f"{date.today().isoformat()}-{'soak' if args.soak else 'drills'}"
    latest = Findings([]), False
    with tempfile.TemporaryDirectory(prefix="drills-") as work, ExitStack() as stack:
        for latest in _run(Bench(Path(work), stack, console), args):
            if args.save is not None:
                save(args.save, report, heading, [latest[0]])
    findings, broken = latest
    for section in findings.sections:
        show(console, section)
    return 1 if broken else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [drill.name for drill in DRILLS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--seed", type=int, default=0, help="of who asks what, and what is written")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, metavar="DIR", help=f"the table; default: {RESULTS.name}/")
    return parser.parse_args(arguments)


def _run(bench: Bench, args: argparse.Namespace) -> Iterator[tuple[Findings, bool]]:
    """What was found, and whether a rule was broken; of drills after each, of all so far: what breaks the next one takes no row away."""
    if args.soak:
        yield asyncio.run(soak(bench, args.soak, args.seed))
        return
    outcomes: list[Outcome] = []
    for drill in DRILLS:
        if not args.only or drill.name in args.only:
            outcomes.append(bench.outcome(drill, args.seed))
            yield _table(outcomes)


def _table(outcomes: Sequence[Outcome]) -> tuple[Findings, bool]:
    broken = [f"BROKEN, {outcome.drill.name}: {breach}" for outcome in outcomes for breach in outcome.breaches]
    skipped = [f"not run, {outcome.drill.name}: {outcome.skipped}" for outcome in outcomes if outcome.skipped]
    notes = [
        "sent, failed: of clients that do not send again; then of those that do, as our own client. writes: acknowledged; refused:",
        "answered otherwise, and sent again by their writers. gap: the longest time without an answer to any client. recovery: from the",
        "end of the fault (of a kill, the kill) until every replica is there and everybody has had an answer.",
    ]
    section = Section("Drills", columns(), [outcome.row for outcome in outcomes if outcome.row], [" ".join(notes), *broken, *skipped])
    return Findings([section]), bool(broken)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
