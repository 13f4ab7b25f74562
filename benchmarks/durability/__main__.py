"""Nothing acknowledged is lost: `python -m benchmarks.durability [--rounds N] [--store qdrant_edge|milvus_lite]`.

A real service, sixteen writers that put, replace and delete documents through HTTP, and in each round one death at a random moment:

    owner   kill -9 of the process that owns the collections; Serve starts another over the same folder
    node    kill -9 of every process of Ray and of ours; all is started again over the same folder
    power   the store's disk, a file system in an image, loses what was not on it: a kill alone leaves the page cache and hides a
            missing flush. The owner stands still at that instant, and a copy of the image is mounted in its place

The writers go on through it until each has something acknowledged that it sent after the death. Then every document is read back: it
must be what was acknowledged last, or a write begun since (an answer that never came may stand for a write that did). Exits with 1 when
anything is lost, comes back, stands there twice or is not what was written.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import monotonic
from typing import Literal, get_args

from rich.console import Console

from benchmarks.durability.disk import CannotMount, Disk
from benchmarks.durability.truth import Fault, Truth
from benchmarks.durability.victim import Store, Victim
from benchmarks.durability.writers import GIVE_UP_S, Writers, read_all
from benchmarks.machine import describe_machine
from benchmarks.serving.report import Findings, Section, save, show

Death = Literal["owner", "node", "power"]
DISK_MIB = 2048
LIFE_S = (0.2, 2.0)
"""Writing before the death: a random time between these."""
RESULTS = Path(__file__).parents[1] / "results"


@dataclass
class Tally:
    """What came of the rounds of one kind of death."""

    pauses_s: list[float] = field(default_factory=list[float])
    writes: int = 0
    deletes: int = 0
    faults: list[Fault] = field(default_factory=list[Fault])


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    # So that what was started and mounted ends with this process, however it is asked to end.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    console = Console(width=170)
    heading = f"{describe_machine()}; {args.store}; seed {args.seed}"
    console.print(heading, markup=False)
    with tempfile.TemporaryDirectory(prefix="durability-") as work:
        disk = None
        try:
            disk = Disk(Path(work), DISK_MIB)
        except CannotMount as problem:
            if args.power:
                console.print(f"the power cannot be cut here: it {problem}; --power 0 leaves that out", markup=False)
                return 2
        try:
            section, lost = asyncio.run(_run(args, Path(work), disk, console))
        finally:
            if disk is not None:
                disk.remove()
    show(console, section)
    if args.save is not None:
        for path in save(args.save, f"{date.today().isoformat()}-durability-{args.store}", heading, [Findings([section])]):
            console.print(f"saved {path}", markup=False)
    return 1 if lost else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.durability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100, help="kills, those of the whole node among them")
    parser.add_argument("--nodes", type=int, help="of these, how many kill the whole node; default: a fifth")
    parser.add_argument("--power", type=int, help="power cuts; default: as many as whole nodes")
    parser.add_argument("--store", choices=get_args(Store), default="qdrant_edge")
    parser.add_argument("--seed", type=int, default=0, help="of the order of deaths, their moments, and what is written")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, metavar="DIR", help=f"the table; default: {RESULTS.name}/")
    args = parser.parse_args(arguments)
    args.nodes = args.rounds // 5 if args.nodes is None else args.nodes
    args.power = args.nodes if args.power is None else args.power
    if args.nodes > args.rounds:
        parser.error(f"--nodes must be at most --rounds, {args.rounds}, not {args.nodes}")
    return args


async def _run(args: argparse.Namespace, work: Path, disk: Disk | None, console: Console) -> tuple[Section, int]:
    choose = random.Random(args.seed)
    deaths: list[Death] = ["owner"] * (args.rounds - args.nodes) + ["node"] * args.nodes + ["power"] * args.power
    choose.shuffle(deaths)
    victim = Victim(args.store, work, disk)
    truth = Truth()
    writers = Writers(victim.url, truth, args.seed)
    tallies = {death: Tally() for death in dict.fromkeys(deaths)}
    try:
        await asyncio.to_thread(victim.wait_until_ready)
        for number, death in enumerate(deaths, start=1):
            tally = tallies[death]
            faults = await _round(victim, writers, truth, death, choose, tally)
            console.print(
                f"{number:4} {death:5} {tally.pauses_s[-1]:6.1f} s without an acknowledgement; {len(writers.acknowledged_at)} so far;"
                f" {len(faults)} lost",
                markup=False,
            )
            for fault in faults:
                console.print(f"     {fault.loss}: {fault.message}", markup=False)
    finally:
        await asyncio.to_thread(victim.stop)
    return _section(args.store, tallies, writers), sum(len(tally.faults) for tally in tallies.values())


async def _round(victim: Victim, writers: Writers, truth: Truth, death: Death, choose: random.Random, tally: Tally) -> list[Fault]:
    strike = {"owner": victim.kill_owner, "node": victim.kill_node, "power": victim.cut_power}[death]
    writes, deletes = len(writers.acknowledged_at), writers.deletes
    async with writers.at_work():
        await asyncio.sleep(choose.uniform(*LIFE_S))
        struck_s = monotonic()
        await asyncio.to_thread(strike)
        try:
            await writers.all_acknowledged_since(monotonic())
        except TimeoutError:
            raise RuntimeError(
                f"{GIVE_UP_S:g} s after the death of the {death} not every writer has an acknowledgement; {victim.says()}"
            ) from None
    faults = truth.check(await read_all(victim.url))
    tally.pauses_s.append(writers.longest_pause_s(struck_s))
    tally.writes += len(writers.acknowledged_at) - writes
    tally.deletes += writers.deletes - deletes
    tally.faults += faults
    return faults


def _section(store: str, tallies: dict[Death, Tally], writers: Writers) -> Section:
    columns = ["death", "rounds", "acknowledged", "of these deletes", "lost", "pause p50 s", "pause max s"]
    rows = [_row(death, tally) for death, tally in tallies.items()]
    rounds, faults = sum(len(tally.pauses_s) for tally in tallies.values()), [fault for tally in tallies.values() for fault in tally.faults]
    kinds = ", ".join(f"{times} {loss}" for loss, times in Counter(fault.loss for fault in faults).items())
    answers = ", ".join(f"{times} x {answer}" for answer, times in writers.answers.most_common())
    notes = [
        f"rounds = {rounds}, writes = {len(writers.acknowledged_at)}, lost = {len(faults)}{f' ({kinds})' if kinds else ''}",
        f"answers: {answers}; the slowest took {writers.slowest_s:.1f} s",
        "pause: the longest time between two acknowledgements, of any of the 16 writers, in the round from the death on.",
    ]
    return Section(f"Durability: {store}", columns, rows, notes)


def _row(death: Death, tally: Tally) -> list[str]:
    counts = [len(tally.pauses_s), tally.writes, tally.deletes, len(tally.faults)]
    return [death, *map(str, counts), f"{statistics.median(tally.pauses_s):.1f}", f"{max(tally.pauses_s):.1f}"]


if __name__ == "__main__":
    sys.exit(main())
