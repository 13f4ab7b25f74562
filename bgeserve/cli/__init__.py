"""`bge-serve COMMAND ...`: one module per command; this one finds the command and turns errors into exit codes.

A command module has `add_parser(subparsers)`, which calls `subparsers.add_parser(...)` and ends with `parser.set_defaults(run=run)`;
`run(args) -> int` answers the exit code. Importing a command module costs nothing beyond the base install (stdlib, numpy, httpx, rich):
what needs more (ray, pydantic) is imported inside `run`.

Exit codes: 0 done, 1 the service or the machine said no, 2 wrong usage, 3 done but for the rows that a data job left out, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bgeserve.cli import (
    check,
    collections,
    compare,
    embed,
    eval,
    index,
    k8s,
    keys,
    models,
    plan,
    rerank,
    search,
    status,
    transfer,
    tune_batch,
    up,
    verify,
    vespa_package,
)
from bgeserve.errors import BgeServeError

COMMANDS = (
    up,
    check,
    tune_batch,
    plan,
    k8s,
    keys,
    index,
    search,
    collections,
    compare,
    transfer,
    eval,
    embed,
    rerank,
    status,
    models,
    verify,
    vespa_package,
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bge-serve", description="Embed, retrieve and rerank with BGE models, as one service.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
    except BgeServeError as error:
        print(f"bge-serve: {error.message}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `bge-serve ... | head` has seen enough; the interpreter would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return code
