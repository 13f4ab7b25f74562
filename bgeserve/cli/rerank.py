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
    asked = parser.add_argument_group("asked of the model", "not every model takes each: `bge-serve status --json` says which")
    asked.add_argument("--instruction", help="put before the query instead of the model's own")
    asked.add_argument("--prompt", help="the question about query and passage that an LLM reranker answers")
    asked.add_argument("--cutoff-layers", type=int, nargs="+", metavar="LAYER", help="scores at each; the deepest decides the order")
    asked.add_argument("--compress-layers", type=int, nargs="+", metavar="LAYER", help="before which the passage is compressed")
    asked.add_argument("--compress-ratio", type=int, metavar="N", help="tokens that become one")
    add_service_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    passages = texts_of(args, args.passages)
    with connect(args) as client:
        scores = client.rerank(
            args.query,
            passages,
            model=args.model,
            instruction=args.instruction,
            prompt=args.prompt,
            cutoff_layers=args.cutoff_layers,
            compress_layers=args.compress_layers,
            compress_ratio=args.compress_ratio,
        )
    best_first = [int(i) for i in np.argsort(-scores.raw, kind="stable")]
    if args.json:
        print_json([_result(scores, i, passages[i]) for i in best_first])
        return 0
    rows = [(i, f"{scores.normalized[i]:.4f}", *(f"{raw[i]:.4f}" for raw in scores.parts.values()), passages[i]) for i in best_first]
    print_table(["", "score", *scores.parts, "passage"], rows)
    return 0


def _result(scores: Scores, i: int, passage: str) -> dict[str, Any]:
    result: dict[str, Any] = {"index": i, "score": float(scores.normalized[i]), "raw_score": float(scores.raw[i]), "text": passage}
    if scores.parts:
        result["parts"] = {name: float(raw[i]) for name, raw in scores.parts.items()}
    return result
