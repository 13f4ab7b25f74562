"""`bge-serve status`: ready or not, the models, a collection. Exit code 1 when the service is not ready."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from bgeserve.cli.arguments import Subparsers, add_service_arguments, connect
from bgeserve.cli.output import print_json, print_table
from bgeserve.client import Client
from bgeserve.errors import NotFound
from bgeserve.types import CollectionInfo


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser("status", help="whether the service is ready, its models and a collection")
    parser.add_argument("--collection", default="default")
    add_service_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with connect(args, retry=False) as client:
        readiness = client.ready()
        models = client.models()
        collection = _collection(client, args.collection)
    if args.json:
        print_json({**asdict(readiness), "models": [asdict(model) for model in models], "collection": collection and asdict(collection)})
        return 0 if readiness.ready else 1
    print("ready" if readiness.ready else f"not ready: waiting for {', '.join(readiness.waiting_for)}")
    columns = ["model", "role", "what", "replicas", "max tokens", "dimensions", "outputs"]
    print_table(columns, [(m.name, m.role, m.model, m.replicas, m.max_tokens, m.dimensions or "", " ".join(m.outputs)) for m in models])
    if collection is not None:
        print_table(["collection", "documents", "state", "legs", "fingerprint"], [_row(collection)])
    return 0 if readiness.ready else 1


def _collection(client: Client, name: str) -> CollectionInfo | None:
    try:
        return client.collection(name)
    except NotFound:
        return None  # no such collection, or a service of models alone


def _row(collection: CollectionInfo) -> tuple[object, ...]:
    return collection.name, collection.count, collection.state, " ".join(collection.legs), collection.fingerprint or "empty"
