"""`bge-serve collections`: what there is. `create`, `alias` and `copy` make, name and copy them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from rich.console import Console

from bgeserve.cli.arguments import Subparsers, add_service_arguments, connect
from bgeserve.cli.output import print_json, print_table


def add_parser(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser("collections", help="list the collections, with their aliases")
    add_service_arguments(parser)
    parser.set_defaults(run=run)
    _add_create(subparsers)
    _add_alias(subparsers)
    _add_copy(subparsers)


def _add_create(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser("create", help="make an empty collection, for any embedder of the service")
    parser.add_argument("collection", metavar="COLLECTION")
    parser.add_argument("--embedder", metavar="MODEL", help="which makes its vectors (default: as the service's settings say)")
    add_service_arguments(parser)
    parser.set_defaults(run=create)


def _add_alias(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser(
        "alias",
        help="let a name stand for a collection, and point it elsewhere in one step",
        description="Whatever takes a collection takes its alias. Pointing it back is how a new index is taken back.",
    )
    parser.add_argument("alias", metavar="ALIAS")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("collection", nargs="?", metavar="COLLECTION")
    target.add_argument("--remove", action="store_true", help="the alias; its collection stays")
    add_service_arguments(parser)
    parser.set_defaults(run=alias)


def _add_copy(subparsers: Subparsers[Any]) -> None:
    parser = subparsers.add_parser(
        "copy",
        help="copy an embedded collection, while it serves, into a store of its own",
        description="Of Qdrant Edge, into copies/NAME in the folder of the store; writes wait until it is done, searches do not.",
    )
    parser.add_argument("collection", metavar="COLLECTION")
    parser.add_argument("name", metavar="NAME")
    add_service_arguments(parser)
    parser.set_defaults(run=copy)


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        found = client.collections()
    if args.json:
        print_json([asdict(info) for info in found])
        return 0
    rows = [(info.name, ", ".join(info.aliases), f"{info.count:,}", info.state, info.fingerprint or "") for info in found]
    print_table(["collection", "aliases", "documents", "state", "model"], rows)
    for info in found:
        if info.warning:
            Console(stderr=True).print(f"{info.name}: {info.warning}", highlight=False, soft_wrap=True)
    return 0


def create(args: argparse.Namespace) -> int:
    with connect(args) as client:
        info = client.create_collection(args.collection, embedder=args.embedder)
    if args.json:
        print_json(asdict(info))
    else:
        print(f"{info.name}: {info.count:,} documents, vectors of {info.fingerprint}")
    return 0


def alias(args: argparse.Namespace) -> int:
    with connect(args) as client:
        before = client.remove_alias(args.alias) if args.remove else client.set_alias(args.alias, args.collection)
    if args.json:
        print_json({"alias": args.alias, "collection": args.collection, "before": before})
    elif args.remove:
        print(f"{args.alias} is no alias any more; {before} is still there")
    else:
        print(f"{args.alias} is {args.collection}" + (f"; it was {before}" if before else ""))
    return 0


def copy(args: argparse.Namespace) -> int:
    with connect(args) as client:
        path = client.copy_collection(args.collection, args.name)
    if args.json:
        print_json({"collection": args.collection, "path": path})
    else:
        print(path)
    return 0
