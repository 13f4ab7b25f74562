"""`bge-serve index SOURCE`: put a source's documents into a collection, through the API that anybody can call.

Safe to interrupt and to repeat: each request is durable once it is answered, and what is stored already is not embedded again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import reduce
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from bgeserve.client import AsyncClient
from bgeserve.errors import InvalidRequest
from bgeserve.sources import read_documents
from bgeserve.types import Document, WriteResult
from bgeserve.wire import add

MAX_REQUESTS_IN_FLIGHT = 4
"""Enough that the service embeds one batch while it stores another; more would only wait in its queue."""
DELETED_PER_REQUEST = 500


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "index",
        help="put documents into a collection",
        description="Put a source's documents into a collection. Repeat it after a change or an interruption: it embeds only what is new.",
    )
    parser.add_argument("source", metavar="SOURCE", help="a .jsonl file, a folder of text files, or stdlib: (this Python's docstrings)")
    parser.add_argument("--collection", default="default")
    parser.add_argument("--prune", action="store_true", help="also delete the collection's documents that the source does not have")
    parser.add_argument("--url", help="of the service; default $BGE_SERVE_URL, else http://127.0.0.1:8000")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON, and no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    started = perf_counter()
    with _Bar(visible=not args.json) as bar:
        written, deleted = asyncio.run(index(args.source, args.url, args.collection, prune=args.prune, bar=bar))
    took_s = perf_counter() - started
    if args.json:
        done = {"collection": args.collection, **asdict(written), "deleted": deleted, "took_s": round(took_s, 3)}
        print(json.dumps(done))
        return 0
    cut = f" ({len(written.truncated):,} of them longer than the model reads)" if written.truncated else ""
    gone = f", {deleted:,} deleted" if args.prune else ""
    stored = f"{written.upserted:,} embedded and stored{cut}, {written.unchanged:,} unchanged{gone}"
    Console().print(f"{args.collection}: {stored}; {written.tokens:,} tokens, {took_s:.1f} s", highlight=False, soft_wrap=True)
    return 0


async def index(source: str, url: str | None, collection: str, *, prune: bool, bar: _Bar) -> tuple[WriteResult, int]:
    """What became of the source's documents, and how many others were deleted.

    The source is read twice, first to its end: a bad line is found before anything is written, and the total is known.
    """
    ids = {document.id for document in read_documents(source)}
    if prune and not ids:
        raise InvalidRequest(f"{source} has no documents: --prune would delete all of {collection!r}", field="source")
    bar.start(len(ids))
    async with AsyncClient(url) as client:
        written = await _put(client, read_documents(source), collection, bar.show)
        deleted = await _prune(client, ids, collection) if prune else 0
    return written, deleted


async def _put(client: AsyncClient, documents: Iterator[Document], collection: str, on_progress: Callable[[int], object]) -> WriteResult:
    """The writers draw from one stream: each document is sent once, and no more requests are under way than there are writers."""
    stored = [0] * MAX_REQUESTS_IN_FLIGHT

    async def writer(n: int) -> WriteResult:
        def count(stored_by_me: int) -> None:
            stored[n] = stored_by_me
            on_progress(sum(stored))

        return await client.put_documents(documents, collection=collection, on_progress=count)

    return reduce(add, await asyncio.gather(*(writer(n) for n in range(MAX_REQUESTS_IN_FLIGHT))))


async def _prune(client: AsyncClient, wanted: set[str], collection: str) -> int:
    vanished = [document.id async for document in client.documents(collection=collection) if document.id not in wanted]
    deleted = 0
    for start in range(0, len(vanished), DELETED_PER_REQUEST):
        deleted += await client.delete_documents(vanished[start : start + DELETED_PER_REQUEST], collection=collection)
    return deleted


class _Bar:
    """Progress on stderr: how many of how many, how fast, how much longer."""

    def __init__(self, *, visible: bool) -> None:
        self._progress = Progress(
            TextColumn("indexing"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
        )

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, total: int) -> None:
        self._task = self._progress.add_task("", total=total)

    def show(self, stored: int) -> None:
        self._progress.update(self._task, completed=stored)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} documents/s" if task.speed else "")
