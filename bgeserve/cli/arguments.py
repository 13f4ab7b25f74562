"""What the commands that talk to a service take: its address, and texts from the command line or stdin."""

from __future__ import annotations

import argparse
import sys

from bgeserve.client import Client

Subparsers = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage] (what argparse's add_subparsers answers has no public name)


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="of the service (default: BGE_SERVE_URL, else http://127.0.0.1:8000)")
    parser.add_argument("--timeout-s", type=float, default=30, metavar="SECONDS", help="for the answer (default: 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def connect(args: argparse.Namespace, *, retry: bool = True) -> Client:
    """The key comes from BGE_SERVE_API_KEY: on a command line every user of the machine could read it."""
    return Client(args.url, timeout_s=args.timeout_s, retry=retry)


def texts_of(args: argparse.Namespace, given: list[str]) -> list[str]:
    """The texts as given, or the lines of stdin for a lone "-"; without any, ends as wrong usage."""
    texts = [line.strip() for line in sys.stdin if line.strip()] if given == ["-"] else given
    if not texts:
        args.parser.error("no texts came from stdin")
    return texts
