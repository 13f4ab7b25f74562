"""`bge-serve index SOURCE`: put a source's documents into a collection, through the API that anybody can call.

Safe to interrupt and to repeat: each request is durable once it is answered, and what is stored already is not embedded again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any

from rich.console import Console

from bgeserve.async_client import AsyncClient
from bgeserve.cli.progress import Bars
from bgeserve.cli.writers import put
from bgeserve.errors import InvalidRequest
from bgeserve.sources import read_documents
from bgeserve.types import WriteResult

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
    """Reads the source twice, first to its end: a bad line is found before anything is written, and the total is known."""
    started = perf_counter()
    empty: list[str] = []
    ids = {document.id for document in read_documents(args.source, empty.append)}
    if args.prune and not ids:
        raise InvalidRequest(f"{args.source} has no documents: --prune would delete all of {args.collection!r}", field="source")
    with Bars(visible=not args.json) as bars:
        written, deleted = asyncio.run(_index(args, ids, bars.add("indexing", len(ids), "documents")))
    done = {**asdict(written), "deleted": deleted, "empty": empty, "took_s": round(perf_counter() - started, 3)}
    if args.json:
        print(json.dumps({"collection": args.collection, **done}))
    else:
        Console().print(_sentence(args.collection, done), highlight=False, soft_wrap=True)
    return 0


def _sentence(collection: str, done: Mapping[str, Any]) -> str:
    parts = [f"{done['upserted']:,} embedded and stored", f"{done['unchanged']:,} unchanged"]
    if done["deleted"]:
        parts.append(f"{done['deleted']:,} deleted")
    if done["truncated"]:
        parts.append(f"{len(done['truncated']):,} longer than the model reads")
    if done["empty"]:
        parts.append(f"{len(done['empty']):,} empty left out ({done['empty'][0]}{', ...' if len(done['empty']) > 1 else ''})")
    return f"{collection}: {', '.join(parts)}; {done['tokens']:,} tokens in {done['took_s']:.1f} s"


async def _index(args: argparse.Namespace, ids: set[str], on_progress: Callable[[int], object]) -> tuple[WriteResult, int]:
    """What became of the source's documents, and how many others were deleted."""
    async with AsyncClient(args.url) as client:
        written = await put(client, read_documents(args.source), args.collection, on_progress)
        deleted = await _prune(client, ids, args.collection) if args.prune else 0
    return written, deleted


async def _prune(client: AsyncClient, wanted: set[str], collection: str) -> int:
    vanished = [document.id async for document in client.documents(collection=collection) if document.id not in wanted]
    deleted = 0
    for start in range(0, len(vanished), DELETED_PER_REQUEST):
        deleted += await client.delete_documents(vanished[start : start + DELETED_PER_REQUEST], collection=collection)
    return deleted
