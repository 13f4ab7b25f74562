"""`bge-serve status`: ready or not, the models with their replicas and what these have to do, a collection. Exit code 1 when not ready.

`--watch` shows it live, with all collections. `--wait MODEL` waits until that model is available, and lists it alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

from rich.console import Console

from bgeserve.cli.arguments import Subparsers, add_service_arguments, connect
from bgeserve.cli.output import print_json, print_table
from bgeserve.cli.watch import COLLECTION_COLUMNS, LOAD_COLUMNS, STATUS_COLUMNS, collection_row, load_row, loads_of, status_row, watch
from bgeserve.client import Client
from bgeserve.errors import NotFound
from bgeserve.types import CollectionInfo, ModelInfo, ModelStatus


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser("status", help="whether the service is ready, its models and a collection; or wait for a model")
    parser.add_argument("--collection", default="default")
    parser.add_argument("--watch", action="store_true", help="live: replicas, backlog, tokens per second, refusals, collections")
    parser.add_argument("--every-s", type=float, default=2.0, metavar="S", help="between two looks of --watch (default 2)")
    parser.add_argument("--wait", metavar="MODEL", help="until this model is available, for --timeout-s at most")
    add_service_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.wait is not None:
        return _wait(args)
    with connect(args, retry=False) as client:
        return watch(client, args.every_s, as_json=args.json) if args.watch else _once(client, args)


def _once(client: Client, args: argparse.Namespace) -> int:
    readiness = client.ready()
    statuses, loads = client.statuses(), loads_of(client)
    # What a model is it says itself: one that still loads would be waited for, one at zero replicas would be started.
    models = client.models() if all("RUNNING" in status.replicas for status in statuses) else []
    collection = _collection(client, args.collection)
    if args.json:
        found = {"statuses": statuses, "models": models, "loads": loads}
        listed = {name: [asdict(each) for each in some] for name, some in found.items()}
        print_json({**asdict(readiness), **listed, "collection": collection and asdict(collection)})
        return 0 if readiness.ready else 1
    print("ready" if readiness.ready else f"not ready: waiting for {', '.join(readiness.waiting_for)}")
    _print_statuses(statuses)
    if loads:
        print_table(LOAD_COLUMNS, [load_row(load) for load in loads])
    if models:
        print_table(["model", "max tokens", "dimensions", "outputs", "options"], [_model_row(model) for model in models])
    if collection is not None:
        print_table(COLLECTION_COLUMNS, [collection_row(collection)])
    return 0 if readiness.ready else 1


def _wait(args: argparse.Namespace) -> int:
    with connect(args) as client, _progress(f"waiting for {args.wait}"):
        status = client.wait_for_model(args.wait, args.timeout_s)
    if args.json:
        print_json(asdict(status))
    else:
        _print_statuses([status])
    return 0


def _progress(what: str) -> AbstractContextManager[object]:
    """For a person at a terminal; a log would only get its escapes."""
    console = Console(stderr=True)
    return console.status(what) if console.is_terminal else nullcontext()


def _collection(client: Client, name: str) -> CollectionInfo | None:
    try:
        return client.collection(name)
    except NotFound:
        return None  # no such collection, or a service of models alone


def _print_statuses(statuses: Sequence[ModelStatus]) -> None:
    print_table(STATUS_COLUMNS, [status_row(status) for status in statuses])


def _model_row(model: ModelInfo) -> tuple[object, ...]:
    return model.name, model.max_tokens, model.dimensions or "", " ".join(model.outputs), " ".join(model.options)
