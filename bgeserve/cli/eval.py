"""`bge-serve eval FOLDER`: how well a running service finds what a data set in BEIR's layout calls relevant, mode by mode.

In a collection of its own, which is deleted whatever ends the command; beside other users, whose searches come first.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from bgeserve.async_client import AsyncClient
from bgeserve.beir import Dataset, read_dataset
from bgeserve.cli.arguments import Subparsers
from bgeserve.cli.output import print_json, print_table
from bgeserve.cli.progress import Bars
from bgeserve.cli.writers import put
from bgeserve.errors import BgeServeError, InvalidRequest, NotFound
from bgeserve.evaluation import (
    DEPTH,
    RERANKED_DEPTH,
    SEARCH_TIMEOUT_S,
    Run,
    continued,
    measure,
    modes_of,
    require_measures,
    search_all,
)
from bgeserve.sources import read_documents
from bgeserve.types import Mode
from bgeserve.wire import SearchOptions


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="measure a running service on a data set with relevance judgements",
        description="Index a data set in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv) into a collection of its own, search "
        "it in every mode that the service has, plain and reranked, and delete it again.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--split", default="test", help="which judgements (default: test)")
    parser.add_argument("--rerank", metavar="MODEL", help="by this reranker (default: as the service's settings say)")
    parser.add_argument("--rerank-top", type=int, metavar="N", help="hits that are reranked (default: as the service's settings say)")
    parser.add_argument("--url", help="of the service; default $BGE_SERVE_URL, else http://127.0.0.1:8000")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, and no progress")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    measures: Mapping[str, float]
    run: Run

    def as_json(self) -> dict[str, Any]:
        measures = {name: round(value, 4) for name, value in self.measures.items()}
        return {"mode": self.name, **measures, "p50_ms": round(self.run.p50_ms, 1), "took_s": round(self.run.took_s, 2)}

    def as_cells(self) -> tuple[str, ...]:
        return self.name, *(f"{value:.4f}" for value in self.measures.values()), f"{self.run.p50_ms:,.0f}", f"{self.run.took_s:,.1f}"


def run(args: argparse.Namespace) -> int:
    require_measures()
    dataset = read_dataset(args.folder, args.split)
    empty: list[str] = []
    # Read to its end before anything is written: a bad line is found now, and the total is known.
    documents = sum(1 for _ in read_documents(str(dataset.corpus), empty.append))
    if not documents:
        raise InvalidRequest(f"{dataset.corpus} has no documents", field="folder")
    log = Console(stderr=True, quiet=args.json, highlight=False, soft_wrap=True)
    left_out = f" ({len(empty):,} empty left out)" if empty else ""
    log.print(f"{documents:,} documents{left_out}, {len(dataset.queries):,} queries with judgements in {args.split}")
    try:
        with Bars(visible=not args.json) as bars:
            rows = asyncio.run(_evaluate(args, dataset, documents, bars, log))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if args.json:
        print_json([row.as_json() for row in rows])
    else:
        print_table(["mode", *rows[0].measures, "median ms", "all s"], [row.as_cells() for row in rows])
    return 0


async def _evaluate(args: argparse.Namespace, dataset: Dataset, documents: int, bars: Bars, log: Console) -> list[Row]:
    _cancel_on_termination()
    async with AsyncClient(args.url) as client:
        reranking = await _reranking(client, args)
        async with _own_collection(client) as collection:
            started = perf_counter()
            corpus = read_documents(str(dataset.corpus))
            written = await put(client, corpus, collection, bars.add("indexing", documents, "documents"))
            cut = f"; {len(written.truncated):,} are longer than the model reads" if written.truncated else ""
            log.print(f"indexed in {perf_counter() - started:.1f} s{cut}")
            legs = (await client.collection(collection)).legs
            return [row for mode in modes_of(legs) for row in await _rows(client, dataset, collection, mode, reranking, bars)]


async def _reranking(client: AsyncClient, args: argparse.Namespace) -> SearchOptions | None:
    """What a reranked search asks for; None when the service has no reranker.

    Tried here, so that what the service refuses (an unknown reranker, several of which none is the default) costs no indexing.
    """
    if args.rerank is None and not any(status.role == "reranker" for status in await client.statuses()):
        return None
    options = SearchOptions(rerank=args.rerank or True, top_k=RERANKED_DEPTH)
    if args.rerank_top is not None:
        options["rerank_top"] = args.rerank_top
    await client.search("any", **{"mode": "full_text", "timeout_s": SEARCH_TIMEOUT_S, **options})
    return options


async def _rows(
    client: AsyncClient, dataset: Dataset, collection: str, mode: Mode, reranking: SearchOptions | None, bars: Bars
) -> list[Row]:
    async def searched(name: str, options: SearchOptions) -> Run:
        asked: SearchOptions = {"collection": collection, "mode": mode, "candidates": DEPTH, **options}
        return await search_all(client, dataset.queries, asked, bars.add(name, len(dataset.queries), "queries"))

    plain = await searched(mode, {"rerank": False, "top_k": DEPTH})
    runs: dict[str, Run] = {mode: plain}
    if reranking is not None:
        runs[f"{mode}+rerank"] = continued(await searched(f"{mode}+rerank", reranking), plain)
    return [Row(name, measure(dataset.judgements, run.rankings), run) for name, run in runs.items()]


@asynccontextmanager
async def _own_collection(client: AsyncClient) -> AsyncGenerator[str]:
    name = f"eval-{secrets.token_hex(6)}"
    try:
        yield name
    finally:
        try:
            await client.delete_collection(name)
        except NotFound:
            pass  # what ended the command came before its first write
        except BgeServeError as error:
            # Not raised: it must hide neither the figures nor what ended the command.
            print(f"bge-serve: collection {name} is left behind: {error.message}", file=sys.stderr)


def _cancel_on_termination() -> None:
    """As Ctrl-C does: the collection is deleted on the way out. What `nohup` ignores stays ignored."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
