"""How an answer is printed: a table for a person, lines for a pipe, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_json(answer: object) -> None:
    print(json.dumps(answer, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for a person at a terminal; tab-separated lines without headings for whatever reads a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(one_line(cell) for cell in row))
        return
    Console().print(make_table(columns, rows))


def make_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0)  # the first names the row: half a name cannot be copied
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table


def one_line(cell: object, length: int = 200) -> str:
    """Documents may hold line breaks, tabs and terminal escapes."""
    text = "".join(character if character.isprintable() else " " for character in str(cell)[: 2 * length])
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
