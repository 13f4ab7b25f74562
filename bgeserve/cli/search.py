"""`bge-serve search QUERY`"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from rich.console import Console

from bgeserve.cli.arguments import Subparsers, add_service_arguments, connect
from bgeserve.cli.output import print_json, print_table
from bgeserve.types import MODES, Hit, titled


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser("search", help="search a collection")
    parser.add_argument("query")
    parser.add_argument("--collection", default="default")
    parser.add_argument("--mode", default="hybrid", choices=MODES)
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--filter", type=_json, metavar="JSON", help='such as \'{"field": "module", "eq": "gzip"}\'')
    parser.add_argument("--min-score", type=float)
    parser.add_argument("--instruction", help="put before the query for the embedder instead of the model's own")
    reranking = parser.add_mutually_exclusive_group()
    reranking.add_argument("--rerank", metavar="MODEL", help="by this reranker (default: as the service's settings say)")
    reranking.add_argument("--no-rerank", dest="rerank", action="store_false")
    add_service_arguments(parser)
    parser.set_defaults(run=run, rerank=None)


def run(args: argparse.Namespace) -> int:
    chosen = {name: getattr(args, name) for name in ("collection", "mode", "top_k", "filter", "min_score", "rerank", "instruction")}
    with connect(args) as client:
        answer = client.search_many([args.query], **{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
    hits = answer.results[0]
    if args.json:
        told = {"timings_ms": answer.timings_ms, "tokens": answer.tokens, "degraded": list(answer.degraded)}
        print_json({"results": [asdict(hit) for hit in hits], **told})
        return 0
    rows = [(i + 1, f"{hit.score:.4f}", hit.id, titled(hit.title, hit.text), _why(hit)) for i, hit in enumerate(hits)]
    print_table(["", "score", "id", "text", "why"], rows)
    timings = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in answer.timings_ms.items())
    without = f"; DEGRADED, without {', '.join(answer.degraded)}" if answer.degraded else ""
    Console(stderr=True).print(f"{len(hits)} hits; {timings}{without}", style="dim", highlight=False)
    return 0


def _why(hit: Hit) -> str:
    def told(stage: str, score: float) -> str:
        return f"{stage} {score:.3g}" + (f" (#{hit.ranks[stage]})" if stage in hit.ranks else "")

    return ", ".join(told(stage, score) for stage, score in hit.scores.items())


def _json(sent: str) -> Any:
    try:
        return json.loads(sent)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}") from error
