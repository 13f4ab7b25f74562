"""`bge-serve up CONFIG`: hands over to `graphs.up`, which needs what `bge-serve[serve]` installs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.serving import hand_over


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("up", help="run a Serve config in the foreground, on a Ray of its own")
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="such as configs/quickstart.yaml")
    parser.add_argument("--host", help="to listen on, instead of the config's")
    parser.add_argument("--port", type=int, help="to listen on, instead of the config's")
    parser.add_argument("--index", metavar="SOURCE", help="what to index once the service is ready (see `bge-serve index`)")


def run(args: argparse.Namespace) -> int:
    options = {"--host": args.host, "--port": args.port, "--index": args.index}
    stated = [part for option, value in options.items() if value is not None for part in (option, str(value))]
    return hand_over("graphs.up", [str(args.config), *stated])
