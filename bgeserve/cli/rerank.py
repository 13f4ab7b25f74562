"""`bge-serve rerank QUERY PASSAGE...`, or `-` for the lines of stdin."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from bgeserve.cli.arguments import Subparsers, add_service_arguments, connect, texts_of
from bgeserve.cli.output import print_json, print_table
from bgeserve.types import Scores


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser("rerank", help="order passages by how well they answer a query")
    parser.add_argument("query")
    parser.add_argument("passages", nargs="+", metavar="PASSAGE", help="- reads one passage per line from stdin")
    parser.add_argument("--model", help="default: the service's only reranker")
    add_service_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    passages = texts_of(args, args.passages)
    with connect(args) as client:
        scores = client.rerank(args.query, passages, model=args.model)
    best_first = [int(i) for i in np.argsort(-scores.raw, kind="stable")]
    if args.json:
        print_json([_result(scores, i, passages[i]) for i in best_first])
        return 0
    print_table(["", "score", "passage"], [(i, f"{scores.normalized[i]:.4f}", passages[i]) for i in best_first])
    return 0


def _result(scores: Scores, i: int, passage: str) -> dict[str, Any]:
    return {"index": i, "score": float(scores.normalized[i]), "raw_score": float(scores.raw[i]), "text": passage}
