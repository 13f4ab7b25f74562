"""What the commands that talk to a service share: its address, texts from the command line or stdin, and how an answer is printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bgeserve.client import Client

Row = Sequence[object]
Subparsers = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage] (what argparse's add_subparsers answers has no public name)


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="of the service (default: BGE_SERVE_URL, else http://127.0.0.1:8000)")
    parser.add_argument("--timeout-s", type=float, default=30, metavar="SECONDS", help="for the answer (default: 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def connect(args: argparse.Namespace, *, retry: bool = True) -> Client:
    """The key comes from BGE_SERVE_API_KEY: on a command line every user of the machine could read it."""
    return Client(args.url, timeout_s=args.timeout_s, retry=retry)


def texts_of(args: argparse.Namespace, given: list[str]) -> list[str]:
    """The texts as given, or the lines of stdin for a lone "-"; without any, ends as wrong usage."""
    texts = [line.strip() for line in sys.stdin if line.strip()] if given == ["-"] else given
    if not texts:
        args.parser.error("no texts came from stdin")
    return texts


def print_json(answer: object) -> None:
    print(json.dumps(answer, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Row], *, title: str | None = None) -> None:
    """A table for a person at a terminal; tab-separated lines without headings for whatever reads a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(one_line(cell) for cell in row))
        return
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console().print(table)


def one_line(cell: object, length: int = 200) -> str:
    """Documents may hold line breaks, tabs and terminal escapes."""
    text = "".join(character if character.isprintable() else " " for character in str(cell)[: 2 * length])
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
