"""`bge-serve check CONFIG`: hands over to `graphs.check`, which needs what `bge-serve[serve]` installs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.serving import hand_over


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("check", help="say what is wrong with a Serve config, without deploying it")
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.add_argument("--cluster", action="store_true", help="against the running Ray cluster's resources instead of this machine's")


def run(args: argparse.Namespace) -> int:
    return hand_over("graphs.check", [str(args.config), *(["--cluster"] if args.cluster else [])])
