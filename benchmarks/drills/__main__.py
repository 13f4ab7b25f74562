"""What a fault costs those who use the service: `python -m benchmarks.drills [--only NAME ...] [--save]`; all drills by default.

A real service on two Ray nodes of this machine, clients that search and embed and writers that put and delete, on loopback, and one fault
after another. Every answer is compared with the right one, and after each drill every document with what was acknowledged. Half of the
clients send again as our own client does, half do not. Exits with 1 when a fault cost more than its rule allows.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks.drills import kills, stalls
from benchmarks.drills.clients import fill
from benchmarks.drills.cluster import Cluster
from benchmarks.drills.drill import Drill, columns, row, run
from benchmarks.drills.services import SERVICES, Place
from benchmarks.machine import describe_machine
from benchmarks.serving.report import Findings, Section, save, show

DRILLS: Sequence[Drill] = (*kills.DRILLS, *stalls.DRILLS)
RESULTS = Path(__file__).parents[1] / "results"
WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    # So that what was started ends with this process, however it is asked to end.
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(width=WIDTH)
    chosen = [drill for drill in DRILLS if not args.only or drill.name in args.only]
    rows: list[list[str]] = []
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="drills-") as work:
        place = Place(Path(work), "")
        cluster = Cluster(Path(work))
        try:
            for name, drills in groupby(chosen, key=lambda drill: drill.config):
                config = SERVICES[name](place)
                cluster.deploy(config)
                cluster.until_whole()
                searches = "store" in config["applications"][0]["args"]
                if searches:
                    asyncio.run(fill(cluster.url))
                for drill in drills:
                    cost = asyncio.run(run(drill, cluster, searches=searches, seed=args.seed))
                    rows.append(row(drill, cost))
                    console.print(" | ".join(rows[-1]), markup=False)
                    for breach in cost.breaches(drill.rule):
                        broken.append(f"{drill.name}: {breach}")
                        console.print(f"    {broken[-1]}", markup=False)
        finally:
            cluster.stop()
    section = Section("Drills", columns(), rows, broken)
    show(console, section)
    if args.save is not None:
        for path in save(args.save, f"{date.today().isoformat()}-drills", describe_machine(), [Findings([section])]):
            console.print(f"saved {path}", markup=False)
    return 1 if broken else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [drill.name for drill in DRILLS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--seed", type=int, default=0, help="of who asks what, and what is written")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, metavar="DIR", help=f"the table; default: {RESULTS.name}/")
    return parser.parse_args(arguments)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
