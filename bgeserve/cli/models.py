"""`bge-serve models`: the catalogue, one line per model that is served by its name. Asks no service."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from bgeserve.catalog import EMBEDDERS, RERANKERS, EmbedderRow, RerankerRow
from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.output import print_json, print_table

BYTES_PER_PARAMETER = {"float32": 4, "bfloat16": 2, "float16": 2}
COLUMNS = (
    *("model", "family", "role", "kind", "outputs", "dimensions", "max tokens", "languages", "licence", "parameters"),
    *("float32", "bfloat16, float16"),
)


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser(
        "models",
        help="list the models that are known by name",
        description="List the models that are known by name, with the memory that their weights take in each dtype. "
        "A fine-tuned checkpoint of one of these families is served from its folder, and needs no line here.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    rows = (*EMBEDDERS, *RERANKERS)
    if args.json:
        print_json([{**asdict(row), "role": _role(row), "weights_gb": _weights_gb(row)} for row in rows])
        return 0
    print_table(COLUMNS, [_cells(row) for row in rows])
    return 0


def _cells(row: EmbedderRow | RerankerRow) -> tuple[object, ...]:
    of_embedders = (" ".join(row.outputs), row.dimensions) if isinstance(row, EmbedderRow) else ("", "")
    kind = row.pooling if isinstance(row, EmbedderRow) else row.kind
    weights = _weights_gb(row)
    memory = (f"{weights[dtype]:.2f} GB" for dtype in ("float32", "bfloat16"))
    facts = (row.max_tokens, row.languages, row.licence, f"{row.parameters:,g} M")
    return row.name, row.family, _role(row), kind, *of_embedders, *facts, *memory


def _role(row: EmbedderRow | RerankerRow) -> str:
    return "embedder" if isinstance(row, EmbedderRow) else "reranker"


def _weights_gb(row: EmbedderRow | RerankerRow) -> dict[str, float]:
    """Of the weights alone; a batch takes memory by its tokens on top."""
    return {dtype: round(row.parameters * size / 1000, 3) for dtype, size in BYTES_PER_PARAMETER.items()}
