"""`bge-serve vespa-package CONFIG...`: hands over to `graphs.vespa_package`, which needs what `bge-serve[serve,vespa]` installs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.serving import hand_over


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "vespa-package",
        help="write the application package that a Vespa store needs",
        description="Write the Vespa application package for the models and legs of these configs: a document type for each shape of "
        "vectors, to be deployed before bge-serve starts. Indexes of several models side by side need all of them in these configs.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="files of the same names there are replaced")


def run(args: argparse.Namespace) -> int:
    return hand_over("graphs.vespa_package", [*map(str, args.configs), "--to", str(args.to)])
