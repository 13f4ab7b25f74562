"""Our service under load beside its peers, in one run: `python -m benchmarks.serving [SCENARIO ...]`; all of them by default.

    throughput  closed loop, clients x texts a request: tok/s, p50, p99 of ours (float32 and auto) and of each peer; ratios round by round
    overhead    the service on Ray, over its API under a bare uvicorn, over its engine in process; at saturation
    offered     open loop: latency from the scheduled instant at fractions of each system's capacity
    latency     one client, one short text: what each adds to the bare forward
    lanes       short queries idle and beside bulk jobs that saturate, and what the jobs lose
    overload    open loop at three times the peak: goodput, refusals, Retry-After, deadlines
    memory      RSS of all the service's processes over many mixed requests, a tenth of them cancelled
    rerank      100 passages x 32 clients, over the reranker's engine in process
    profile     CPU per request of each process, and where the ingress and the embedder's replica spend it

Every system serves all-MiniLM-L6-v2 on loopback from this machine, one at a time while the others are stopped (SIGSTOP), with the same
texts, cut at the model's own limit. Each peer has an environment of its own under --peers, made when it is first needed (SIE's takes 8 GB);
one that cannot be had is skipped, with the reason. Whatever was started is ended, on Ctrl-C too.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import date
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.serving import lanes, latency, memory, offered, overhead, overload, profile, rerank, throughput
from benchmarks.serving.bench import Bench, Options
from benchmarks.serving.length_profiles import ragged_texts
from benchmarks.serving.numbered import NumberedTexts, load_tokenizer, max_tokens_of
from benchmarks.serving.report import Findings, save, show
from benchmarks.serving.systems import MODEL, Place
from benchmarks.texts import load_texts
from bgeserve.models.hub import locate

SCENARIOS: Mapping[str, Callable[[Bench], Findings]] = {
    "throughput": throughput.run,
    "overhead": overhead.run,
    "offered": offered.run,
    "latency": latency.run,
    "lanes": lanes.run,
    "overload": overload.run,
    "memory": memory.run,
    "rerank": rerank.run,
    "profile": profile.run,
}
RESULTS = Path(__file__).parents[1] / "results"
WIDTH = 170


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    console = Console(width=WIDTH)
    # So that what was started ends with this process, however it is asked to end.
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="serving-benchmark-") as work:
        model = locate(MODEL)
        place = Place(args.peers.expanduser(), Path(work), model, max_tokens_of(model))
        texts = texts_of(args, place)
        heading = f"{describe_machine()}; {describe_texts(args, texts)}"
        console.print(heading, markup=False)
        bench = Bench(options_of(args), place, texts, console)
        found: list[Findings] = []
        for name in args.scenarios or SCENARIOS:
            found.append(SCENARIOS[name](bench))
            for section in found[-1].sections:
                show(console, section)
    if args.save is not None:
        for path in save(args.save, f"{date.today().isoformat()}-serving", heading, found):
            console.print(f"saved {path}", markup=False)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [system.name for system in throughput.systems()]
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--quick", action="store_true", help="one short round of each: shows that it works, measures little")
    parser.add_argument("--skip", nargs="+", default=[], choices=names, metavar="NAME", help=f"systems to leave out: {', '.join(names)}")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--texts-per-request", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=8, help="of one run; some scenarios take a multiple")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=7, help="rounds where a few percent are claimed (overhead, latency)")
    parser.add_argument("--requests", type=int, default=20_000, help="of `memory`")
    parser.add_argument("--max-answer-s", type=float, default=60, help="cells in which one answer takes longer are left out")
    parser.add_argument("--texts", type=Path, help="file or BEIR folder; default: the standard library's docstrings")
    parser.add_argument("--profile", nargs="+", metavar=("PATH", "NAME"), help="lengths drawn from this file's profiles (of these names)")
    parser.add_argument("--peers", type=Path, default=Path("~/.cache/bge-serve/peers"), help="where the peers' environments are")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, metavar="DIR", help=f"tables and plots; default: {RESULTS.name}/")
    args = parser.parse_args(arguments)
    if unknown := set(args.scenarios) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    if args.save is not None and find_spec("matplotlib") is None:
        parser.error("--save draws plots: pip install 'bge-serve[bench]'")
    return args


def options_of(args: argparse.Namespace) -> Options:
    stated = {field.name: getattr(args, field.name) for field in fields(Options)}
    if args.quick:
        stated |= {"seconds": min(2.0, args.seconds), "rounds": 1, "pairs": 2, "requests": min(1000, args.requests), "max_answer_s": 15.0}
    return Options(**stated)


def texts_of(args: argparse.Namespace, place: Place) -> NumberedTexts:
    tokenizer, corpus = load_tokenizer(place.model), load_texts(args.texts)
    if args.profile:
        path, *names = args.profile
        corpus = ragged_texts(Path(path), names, corpus, tokenizer, place.max_tokens)
    return NumberedTexts(corpus, tokenizer, place.max_tokens, count())


def describe_texts(args: argparse.Namespace, texts: NumberedTexts) -> str:
    source = "the standard library's docstrings" if args.texts is None else args.texts.name
    lengths = f", as long as in {' '.join([Path(args.profile[0]).name, *args.profile[1:]])}" if args.profile else ""
    return f"{source}{lengths}, {texts.mean_tokens:.0f} tokens a text on average"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
