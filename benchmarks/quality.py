"""How often a search finds the right module of the standard library: `python -m benchmarks.quality [--url URL]`.

The service must hold the corpus (`bge-serve index stdlib:`). The questions in data/stdlib_queries.jsonl were written before anything was
tuned on them; `named` are the README's, `tune` those that settings were chosen by, `held_out` the others. A hit is right when its id lies
in one of the question's modules. success@3: share of questions with a right hit among the first three. MRR: mean of 1 / rank of the first
right hit among ten.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from bgeserve.client import Client
from bgeserve.types import Mode

QUESTIONS = Path(__file__).parent / "data" / "stdlib_queries.jsonl"
SPLITS = ("named", "tune", "held_out")
MODES: tuple[Mode, ...] = ("dense", "full_text", "hybrid")
DEPTH = 10


@dataclass(frozen=True, slots=True)
class Question:
    query: str
    modules: tuple[str, ...]
    split: str

    def rank(self, ids: Sequence[str]) -> int | None:
        """Of the first right id, counted from 1."""
        right = (n for n, id in enumerate(ids, start=1) if any(id == module or id.startswith(f"{module}.") for module in self.modules))
        return next(right, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--misses", action="store_true", help="also print the questions that the reranked hybrid search answers wrongly")
    args = parser.parse_args()
    questions = [Question(**{**row, "modules": tuple(row["modules"])}) for row in map(json.loads, QUESTIONS.read_text().splitlines())]
    counts = {split: sum(question.split == split for question in questions) for split in SPLITS}
    table = Table("search", *(f"{split} ({counts[split]})\n{metric}" for split in SPLITS for metric in ("success@3", "MRR")))
    with Client(args.url) as client:
        for mode in MODES:
            for rerank in (False, True):
                ranks = [question.rank(found_ids(client, question.query, mode, rerank)) for question in questions]
                table.add_row(f"{mode}{', reranked' if rerank else ''}", *scores(questions, ranks))
    Console(width=120).print(table, describe_machine(), sep="\n")
    if args.misses:
        for question, rank in zip(questions, ranks, strict=True):
            if rank is None or rank > 3:
                print(f"{question.split:9} {rank or f'over {DEPTH}':>7}  {question.query}  ({', '.join(question.modules)})")


def found_ids(client: Client, query: str, mode: Mode, rerank: bool) -> list[str]:
    return [hit.id for hit in client.search(query, mode=mode, top_k=DEPTH, rerank=rerank)]


def scores(questions: Sequence[Question], ranks: Sequence[int | None]) -> list[str]:
    cells: list[str] = []
    for split in SPLITS:
        of_split = [rank for question, rank in zip(questions, ranks, strict=True) if question.split == split]
        cells.append(f"{sum(rank is not None and rank <= 3 for rank in of_split) / len(of_split):.3f}")
        cells.append(f"{sum(1 / rank for rank in of_split if rank is not None) / len(of_split):.3f}")
    return cells


if __name__ == "__main__":
    main()
