"""`bge-serve keys new NAME`: draws an API key, prints it once, and makes the row by which the service knows it.

Needs the `serve` extra, which checks the row; asks no service.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from bgeserve.cli.arguments import Subparsers
from bgeserve.errors import SettingsError


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("keys", help="make API keys")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    new = verbs.add_parser(
        "new",
        help="a key, and the row of the keys file that lets it in",
        description="Print a new API key, once: nothing can show it again. Its row, which has only the key's hash, is added to FILE, or "
        "printed on standard error. A service that reads FILE (BGE_SERVE_API_KEYS_FILE) knows the key at once, and no longer when the row "
        "is taken out.",
    )
    new.add_argument("name", metavar="NAME", help="of its tenant; a tenant may have several keys")
    new.add_argument("--into", type=Path, metavar="FILE", help="the keys file, which is made if it is not there")
    new.add_argument("--lane", choices=["interactive", "bulk"], help="of requests that state none")
    new.add_argument("--models", nargs="+", metavar="PATTERN", help="which it is for; * stands for any characters (default: all)")
    new.add_argument("--collections", nargs="+", metavar="PATTERN", help="likewise, collections and aliases (default: all)")
    new.add_argument("--admin", action="store_true", help="may make, delete, export and import collections, and point aliases")
    new.add_argument("--read-only", action="store_true", help="may neither store nor delete documents")
    new.add_argument("--tokens-per-s", type=float, metavar="TOKENS", help="at each ingress replica, approximately")
    new.add_argument("--expires-at", metavar="TIME", help="such as 2027-01-01T00:00:00Z")
    new.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        from bgeserve.api.keys import new_key, parse_keys
    except ModuleNotFoundError as error:
        raise SettingsError(f"this command needs {error.name}: pip install 'bge-serve[serve]'") from None
    key = new_key()
    line = f"- {json.dumps(_row(args, key))}\n"
    (made,) = parse_keys(line, "the new row")
    if args.into is None:
        print(f"the row of {made.id}, for the keys file:\n\n{line}", file=sys.stderr)
    else:
        rows = _rows(args.into) + line
        parse_keys(rows, f"{args.into} with the new row")
        _replace(args.into.resolve(), rows)
        print(f"{made.id} is in {args.into}; its key, which nothing can show again:", file=sys.stderr)
    print(key)
    return 0


def _row(args: argparse.Namespace, key: str) -> dict[str, Any]:
    """Only what is stated, so that the row says nothing that a default says already."""
    row = {"name": args.name, "sha256": sha256(key.encode()).hexdigest()}
    scope = {name: getattr(args, name) for name in ("lane", "models", "collections", "admin", "read_only", "tokens_per_s", "expires_at")}
    return row | {name: value for name, value in scope.items() if value is not None and value is not False}


def _rows(path: Path) -> str:
    """Those that are there. Raises SettingsError."""
    try:
        rows = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    if rows.strip() == "[]":
        return ""
    return rows if not rows or rows.endswith("\n") else f"{rows}\n"


def _replace(path: Path, rows: str) -> None:
    """In one step, so that a service never reads half a file. Raises SettingsError."""
    whole = path.with_name(f"{path.name}.new")
    try:
        whole.write_text(rows, encoding="utf-8")
        if path.exists():
            shutil.copymode(path, whole)
        whole.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None
