"""`bge-serve index SOURCE`: put a source's documents into a collection, through the API that anybody can call. What only Ray Data reads,
and what is asked for with --job, is handed over to `graphs.jobs`, which needs what `bge-serve[data]` installs.

Safe to interrupt and to repeat: each request is durable once it is answered, and what is stored already is not embedded again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from bgeserve.async_client import AsyncClient
from bgeserve.cli.progress import Bars
from bgeserve.cli.serving import hand_over
from bgeserve.cli.writers import put
from bgeserve.errors import InvalidRequest
from bgeserve.sources import needs_ray_data, read_documents
from bgeserve.types import WriteResult

DELETED_PER_REQUEST = 500


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "index",
        help="put documents into a collection",
        description="Put a source's documents into a collection. Repeat it after a change or an interruption: it embeds only what is new. "
        "Parquet, CSV, URIs and --job: as a Ray Data job in the service's own cluster (bge-serve[data]), which goes on past wrong rows.",
        epilog="Ends with 0 when everything is stored, 1 when the service or the machine said no, 3 when a job has left out rows.",
    )
    add_arguments(parser)
    parser.add_argument(
        "--prune", action="store_true", help="also delete the collection's documents that the source does not have (no job)"
    )
    parser.add_argument("--url", help="of the service; default $BGE_SERVE_URL, else http://127.0.0.1:8000 (no job)")
    parser.add_argument("--job", action="store_true", help="as a Ray Data job, whatever the source is")
    parser.set_defaults(run=run, parser=parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a .jsonl file, a folder of text files, or stdlib: (this Python's docstrings); for a job a JSON-lines, CSV, Parquet or text "
        "file, or a folder of them, by a path or URI that the cluster's nodes can read",
    )
    parser.add_argument("--collection", default="default")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON, and no progress")
    job = parser.add_argument_group("of a job")
    job.add_argument(
        "--ray-address", metavar="ADDRESS", help="of the service's Ray cluster, ray://... included; default $RAY_ADDRESS, else here"
    )
    job.add_argument("--app", metavar="NAME", help="of the application in that cluster (default: search)")
    job.add_argument("--calls-in-flight", type=int, metavar="N", help="about 8 for each replica of the embedder (default: 8)")
    job.add_argument("--own-embedders", type=int, metavar="N", help="actors that embed in place of the deployed embedders")
    job.add_argument("--config", metavar="CONFIG", help="that the application is deployed with: what the job's own embedders are")
    job.add_argument("--dead-letters", metavar="FILE", help="for rows that are not stored, and why (default: dead-letters.jsonl)")


def run(args: argparse.Namespace) -> int:
    job = {
        "--ray-address": args.ray_address,
        "--app": args.app,
        "--calls-in-flight": args.calls_in_flight,
        "--own-embedders": args.own_embedders,
        "--config": args.config,
        "--dead-letters": args.dead_letters,
    }
    stated = [part for option, value in job.items() if value is not None for part in (option, str(value))]
    if not (args.job or stated or needs_ray_data(args.source)):
        return _index_over_http(args)
    if args.prune or args.url:
        args.parser.error("--prune and --url are not for a job, which finds the service by --ray-address and --app")
    shown = ["--json"] if args.json else []
    return hand_over("graphs.jobs", [args.source, "--collection", args.collection, *shown, *stated], extra="data")


def _index_over_http(args: argparse.Namespace) -> int:
    """Reads the source twice, first to its end: a bad line is found before anything is written, and the total is known."""
    started = perf_counter()
    empty: list[str] = []
    ids = {document.id for document in read_documents(args.source, empty.append)}
    if not ids and Path(args.source).is_dir():
        raise InvalidRequest(f"{args.source} has no text files; its JSON-lines, CSV and Parquet files are read with --job", field="source")
    if args.prune and not ids:
        raise InvalidRequest(f"{args.source} has no documents: --prune would delete all of {args.collection!r}", field="source")
    with Bars(visible=not args.json) as bars:
        written, deleted = asyncio.run(_index(args, ids, bars.add("indexing", len(ids), "documents")))
    print_done(args, {**asdict(written), "deleted": deleted, "empty": empty, "took_s": round(perf_counter() - started, 3)})
    return 0


def print_done(args: argparse.Namespace, done: Mapping[str, Any]) -> None:
    if args.json:
        print(json.dumps({"collection": args.collection, **done}))
    else:
        Console().print(_sentence(args.collection, done), highlight=False, soft_wrap=True)


def _sentence(collection: str, done: Mapping[str, Any]) -> str:
    parts = [f"{done['upserted']:,} embedded and stored", f"{done['unchanged']:,} unchanged"]
    if done.get("deleted"):
        parts.append(f"{done['deleted']:,} deleted")
    if truncated := done["truncated"]:
        # A job, which may be of millions, counts them; here they are named.
        parts.append(f"{truncated if isinstance(truncated, int) else len(truncated):,} longer than the model reads")
    if empty := done.get("empty"):
        parts.append(f"{len(empty):,} empty left out ({empty[0]}{', ...' if len(empty) > 1 else ''})")
    if done.get("rejected"):
        parts.append(f"{done['rejected']:,} left out ({done['dead_letters']} says why)")
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
