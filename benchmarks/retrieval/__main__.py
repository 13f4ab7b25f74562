"""What retrieval costs: `python -m benchmarks.retrieval [PART ...]`; all of them by default.

hybrid    each embedded store through the Retriever beside the store's own client with the same legs, at several sizes
rescore   what re-scoring 100 candidates by their token vectors adds to a search
memory    memory and disk by what is stored
service   a search through the quickstart service beside its parts alone, and the CPU it costs in each process
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.retrieval import in_process, memory, service
from benchmarks.retrieval.stored import STORES
from benchmarks.serving.report import Findings, Section, save, show
from bgeserve.cli.progress import Bars

PARTS: Mapping[str, Callable[[argparse.Namespace, Bars], Sequence[Section]]] = {
    "hybrid": lambda args, bars: [in_process.hybrid(args.stores, args.sizes, args.queries, bars)],
    "rescore": lambda args, bars: [in_process.rescoring(args.stores, args.queries, bars)],
    "memory": lambda args, bars: [memory.measure(args.stores, args.memory_size, bars)],
    "service": lambda args, bars: service.measure(args.rounds, args.seconds),
}
RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    console = Console(width=150)
    console.print(describe_machine())
    found: list[Section] = []
    for part in args.parts or PARTS:
        with Bars(visible=True) as bars:
            sections = PARTS[part](args, bars)
        for section in sections:
            show(console, section)
        found += sections
    if args.save is not None:
        for path in save(args.save, f"{date.today().isoformat()}-retrieval-speed", describe_machine(), [Findings(found)]):
            console.print(f"saved {path}", markup=False)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--sizes", nargs="+", type=int, default=[20_000, 100_000], help="chunks, of `hybrid`")
    parser.add_argument("--memory-size", type=int, default=100_000, help="chunks, of `memory`")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5, help="times that each question is searched, of `service`")
    parser.add_argument("--seconds", type=float, default=10, help="of load, of `service`")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, metavar="DIR", help=f"as Markdown; default: {RESULTS.name}/")
    args = parser.parse_args(arguments)
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return args


if __name__ == "__main__":
    main()
