"""`bge-serve export COLLECTION FILE` and `bge-serve import FILE`: a collection to another store or service, without embedding it again."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from bgeserve.async_client import AsyncClient
from bgeserve.chunk_file import ChunkFile, ChunkFileWriter, require_pyarrow
from bgeserve.cli.arguments import Subparsers, connect
from bgeserve.cli.output import print_json
from bgeserve.cli.progress import Bars
from bgeserve.splitting import gather_bounded
from bgeserve.types import EmbeddedChunks
from bgeserve.wire_collections import split_chunks

MAX_REQUESTS_IN_FLIGHT = 2
"""One is stored while the next is read and sent."""


def add_parser(subparsers: Subparsers[Any]) -> None:
    export = subparsers.add_parser("export", help="write a collection with all its vectors into a Parquet file")
    export.add_argument("collection", metavar="COLLECTION")
    export.add_argument("file", type=Path, metavar="FILE")
    export.set_defaults(run=run_export, timeout_s=30)
    imports = subparsers.add_parser(
        "import",
        help="store what `export` wrote, without embedding it again",
        description="The service must have the embedder that made the vectors. Repeat it after an interruption: what is there is left.",
    )
    imports.add_argument("file", type=Path, metavar="FILE")
    imports.add_argument("--collection", help="default: the one that was exported")
    imports.set_defaults(run=run_import)
    for parser in (export, imports):
        parser.add_argument("--url", help="of the service; default $BGE_SERVE_URL, else http://127.0.0.1:8000")
        parser.add_argument("--json", action="store_true", help="print what was done as JSON, and no progress")


def run_export(args: argparse.Namespace) -> int:
    require_pyarrow()
    started = perf_counter()
    documents = chunks = 0
    with connect(args) as client, Bars(visible=not args.json) as bars:
        # By its own name: an alias may name another one before this has ended.
        info = client.collection(args.collection)
        on_progress = bars.add("exporting", info.count, "documents")
        with ChunkFileWriter(args.file, info.name) as writer:
            for page in client.export_chunks(info.name):
                writer.write(page)
                chunks += len(page.chunks)
                documents += len({chunk.document_id for chunk in page.chunks})
                on_progress(documents)
    _say(args, {"collection": info.name, "documents": documents, "chunks": chunks, "took_s": round(perf_counter() - started, 3)})
    return 0


def run_import(args: argparse.Namespace) -> int:
    require_pyarrow()
    started = perf_counter()
    file = ChunkFile(args.file)
    collection: str = args.collection or file.collection
    with Bars(visible=not args.json) as bars:
        upserted, unchanged = asyncio.run(_import(args.url, file, collection, bars))
    done = {"collection": collection, "upserted": upserted, "unchanged": unchanged, "took_s": round(perf_counter() - started, 3)}
    _say(args, done)
    return 0


async def _import(url: str | None, file: ChunkFile, collection: str, bars: Bars) -> tuple[int, int]:
    """How many documents were stored, and how many were there already."""
    on_progress = bars.add("importing", file.chunks, "chunks")
    batches = split_chunks(file.documents())
    stored = {"upserted": 0, "unchanged": 0, "chunks": 0}

    async with AsyncClient(url) as client:
        # The writers draw from one stream; no document is in two of their requests.
        async def writer(batches: Iterator[EmbeddedChunks]) -> None:
            for batch in batches:
                written = await client.import_chunks([batch], collection=collection)
                stored["upserted"] += written.upserted
                stored["unchanged"] += written.unchanged
                stored["chunks"] += len(batch.chunks)
                on_progress(stored["chunks"])

        await gather_bounded([partial(writer, batches)] * MAX_REQUESTS_IN_FLIGHT, MAX_REQUESTS_IN_FLIGHT)
    return stored["upserted"], stored["unchanged"]


def _say(args: argparse.Namespace, done: dict[str, Any]) -> None:
    if args.json:
        print_json(done)
    else:
        told = ", ".join(f"{value:,} {name}" for name, value in done.items() if isinstance(value, int))
        print(f"{done['collection']}: {told} in {done['took_s']:.1f} s")
