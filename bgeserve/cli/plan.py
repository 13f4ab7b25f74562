"""`bge-serve plan CONFIG --trace FILE`: hands over to `graphs.plan`, which needs what `bge-serve[serve]` installs."""

from __future__ import annotations

import argparse
from math import nan
from pathlib import Path

from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.serving import hand_over


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "plan",
        help="say how many replicas and GPUs your load would take, and what would be full first",
        description="Simulate the models of a Serve config, with their queues and the policy that scales them, under rates from a file: "
        "replicas over time, replica-hours, latencies, what would be refused or late; and how many ingress replicas it takes.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="such as configs/m3-gpu.yaml")
    parser.add_argument(
        "--trace",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV: at_s,model,requests_per_s,tokens_per_request[,lane]; the last at_s ends it",
    )
    parser.add_argument(
        "--tokens-per-s",
        action="append",
        required=True,
        type=_speed,
        metavar="MODEL=N",
        help="of one replica, as `bge-serve tune-batch` measures it; once for each model of the trace",
    )
    parser.add_argument("--searches-per-s", type=_rate, default=0.0, metavar="N", help="at the peak, of the requests (default: 0)")
    parser.add_argument(
        "--start-s", type=_rate, metavar="SECONDS", help="that a replica takes to start (default: the config's cold_start_s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def run(args: argparse.Namespace) -> int:
    stated = [part for name, speed in args.tokens_per_s for part in ("--tokens-per-s", f"{name}={speed}")]
    if args.start_s is not None:
        stated += ["--start-s", str(args.start_s)]
    arguments = [str(args.config), "--trace", str(args.trace), "--searches-per-s", str(args.searches_per_s), *stated]
    return hand_over("graphs.plan", [*arguments, *(["--json"] if args.json else [])])


def _speed(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    if not name or not (speed := _number(number)) > 0:
        raise argparse.ArgumentTypeError(f"MODEL=N with N above 0, not {text}")
    return name, speed


def _rate(text: str) -> float:
    if not (number := _number(text)) >= 0:
        raise argparse.ArgumentTypeError(f"at least 0, not {text}")
    return number


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return nan
