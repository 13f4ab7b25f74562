"""`bge-serve compare A B --queries FILE`: what two collections (a new index and the one in use) answer to the same queries."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bgeserve.async_client import AsyncClient
from bgeserve.beir import read_judgements, read_queries
from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.output import print_json, print_table
from bgeserve.cli.progress import Bars
from bgeserve.errors import InvalidRequest
from bgeserve.evaluation import Run, measure, require_measures, search_all
from bgeserve.types import MODES, Mode
from bgeserve.wire import SearchOptions

DEPTH = 10
SHOWN = 10
"""Queries of a table: those on which the two agree least."""


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="compare what two collections answer to a file of queries",
        description="How many of the ten best documents two collections share, query by query, and with judgements how good each is.",
    )
    parser.add_argument("collections", nargs=2, metavar=("A", "B"), help="collections or aliases")
    parser.add_argument("--queries", type=Path, required=True, metavar="FILE", help='lines of {"_id": ..., "text": ...}, as BEIR has them')
    parser.add_argument("--qrels", type=Path, metavar="FILE", help="BEIR's judgements: query, document and relevance, with tabs between")
    parser.add_argument("--mode", default="hybrid", choices=MODES)
    parser.add_argument("--rerank", metavar="MODEL", help="by this reranker (default: none)")
    parser.add_argument("--url", help="of the service; default $BGE_SERVE_URL, else http://127.0.0.1:8000")
    parser.add_argument("--json", action="store_true", help="print one JSON document, and no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    judgements = _judgements(args.qrels)
    queries = dict(read_queries(args.queries))
    if not queries:
        raise InvalidRequest(f"{args.queries} has no queries", field="queries")
    judged = {query: judgements[query] for query in queries if query in judgements}
    if args.qrels and not judged:
        raise InvalidRequest(f"{args.qrels} judges none of the queries of {args.queries}", field="qrels")
    with Bars(visible=not args.json) as bars:
        one, other = asyncio.run(_search_both(args, queries, bars))
    overlaps = {query: overlap(one.rankings[query], other.rankings[query]) for query in queries}
    summary: dict[str, Any] = {f"overlap@{DEPTH}": sum(overlaps.values()) / len(overlaps)}
    for name, found in zip(args.collections, (one, other), strict=True):
        summary[name] = {"p50_ms": round(found.p50_ms, 1), **(_quality(judged, found) if judged else {})}
    if args.json:
        print_json({**summary, "queries": [{"id": query, f"overlap@{DEPTH}": share} for query, share in overlaps.items()]})
        return 0
    rows = [(query, queries[query], f"{overlaps[query]:.1f}") for query in sorted(overlaps, key=lambda query: overlaps[query])[:SHOWN]]
    print_table(["query", "text", f"overlap@{DEPTH}"], rows)
    print_table(["", f"overlap@{DEPTH}", *summary[args.collections[0]]], _summary_rows(args.collections, summary))
    return 0


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """The share of the best ten that both have, of as many as the longer list has; 1 where neither found anything."""
    most = max(len(one[:DEPTH]), len(other[:DEPTH]))
    return len(set(one[:DEPTH]) & set(other[:DEPTH])) / most if most else 1.0


def _judgements(qrels: Path | None) -> Mapping[str, Mapping[str, int]]:
    if qrels is None:
        return {}
    require_measures()
    return read_judgements(qrels)


def _quality(judged: Mapping[str, Mapping[str, int]], found: Run) -> dict[str, float]:
    return {f"nDCG@{DEPTH}": round(measure(judged, found.rankings)[f"nDCG@{DEPTH}"], 4)}


def _summary_rows(collections: Sequence[str], summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    share = f"{summary[f'overlap@{DEPTH}']:.3f}"
    return [(name, share, *(f"{value:,}" for value in summary[name].values())) for name in collections]


async def _search_both(args: argparse.Namespace, queries: Mapping[str, str], bars: Bars) -> tuple[Run, Run]:
    async with AsyncClient(args.url) as client:
        mode: Mode = args.mode
        asked = [SearchOptions(collection=name, mode=mode, top_k=DEPTH, rerank=args.rerank or False) for name in args.collections]
        one, other = [
            await search_all(client, queries, each, bars.add(name, len(queries), "queries"))
            for name, each in zip(args.collections, asked, strict=True)
        ]
        return one, other
