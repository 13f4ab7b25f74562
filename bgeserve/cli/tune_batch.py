"""`bge-serve tune-batch CONFIG`: hands over to `graphs.tune_batch`, which needs what `bge-serve[serve]` installs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.serving import hand_over


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "tune-batch",
        help="measure how many tokens a batch should have on this machine",
        description="Measure each model of a Serve config on this machine, for batches of more and more tokens, with the workers that its "
        "replicas would have, and choose max_batch_tokens: the fewest whose throughput is within 5% of the best.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="such as configs/quickstart.yaml")
    parser.add_argument("--model", metavar="NAME", help="only this embedder or reranker of the config")
    parser.add_argument("--write", action="store_true", help="write max_batch_tokens into CONFIG, which stays as it is otherwise")
    parser.add_argument(
        "--texts", default="stdlib:", metavar="SOURCE", help="to measure on, as `bge-serve index` takes them (default: Python's docstrings)"
    )
    parser.add_argument("--rounds", type=_rounds, default=5, metavar="N", help="measurements of each budget, in turns (default: 5)")
    parser.add_argument("--run-s", type=_seconds, default=1.5, metavar="SECONDS", help="of one measurement (default: 1.5)")


def run(args: argparse.Namespace) -> int:
    options = {"--model": args.model, "--texts": args.texts, "--rounds": args.rounds, "--run-s": args.run_s}
    stated = [part for option, value in options.items() if value is not None for part in (option, str(value))]
    return hand_over("graphs.tune_batch", [str(args.config), *stated, *(["--write"] if args.write else [])])


def _rounds(text: str) -> int:
    if (rounds := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return rounds


def _seconds(text: str) -> float:
    if not (seconds := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"above 0, not {text}")
    return seconds
