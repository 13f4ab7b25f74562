"""`bge-serve embed TEXT...`, or `-` for the lines of stdin."""

from __future__ import annotations

import argparse
from typing import Any

from bgeserve.cli.arguments import Subparsers, add_service_arguments, connect, texts_of
from bgeserve.cli.output import print_json, print_table
from bgeserve.types import OUTPUTS, Embeddings


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser("embed", help="turn texts into vectors")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="- reads one text per line from stdin")
    parser.add_argument("--model", help="default: the service's only embedder")
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=["dense"])
    parser.add_argument("--input-type", choices=["query", "document"], default="document")
    parser.add_argument("--instruction", help="put before each query instead of the model's own; needs --input-type query")
    add_service_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    texts = texts_of(args, args.texts)
    with connect(args) as client:
        embeddings = client.encode(texts, model=args.model, outputs=args.outputs, input_type=args.input_type, instruction=args.instruction)
    items = [_item(embeddings, i) for i in range(len(embeddings))]
    if args.json:
        print_json({"fingerprint": embeddings.fingerprint, "data": items})
        return 0
    rows = [(i, text, items[i]["tokens"], *(_preview(items[i][name]) for name in args.outputs)) for i, text in enumerate(texts)]
    print_table(["", "text", "tokens", *args.outputs], rows)
    return 0


def _item(embeddings: Embeddings, i: int) -> dict[str, Any]:
    item: dict[str, Any] = {"index": i, "tokens": embeddings.tokens[i], "truncated": embeddings.truncated[i]}
    if embeddings.dense is not None:
        item["dense"] = embeddings.dense[i].tolist()
    if embeddings.sparse is not None:
        item["sparse"] = {"indices": embeddings.sparse[i].indices.tolist(), "values": embeddings.sparse[i].values.tolist()}
    if embeddings.multi_vector is not None:
        item["multi_vector"] = embeddings.multi_vector[i].tolist()
    return item


def _preview(output: Any) -> str:
    """The beginning of a vector; the whole of it is for programs."""
    if isinstance(output, dict):
        pairs = zip(output["indices"], output["values"], strict=True)
        return f"{len(output['indices'])} weights: " + ", ".join(f"{index}: {value:.3f}" for index, value in list(pairs)[:3]) + " ..."
    if isinstance(output[0], list):
        return f"{len(output)} x {len(output[0])}"
    return f"{len(output)}: " + ", ".join(f"{value:.3f}" for value in output[:4]) + " ..."
