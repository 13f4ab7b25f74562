"""The folder of an embedded store: who owns it, whether it is ours, and files that are whole or absent.

Knows nothing of vectors. A folder has one owner at a time, by a lock that the kernel drops when the owner dies; its manifest tells one
store from another (`store_id`) and names the format of what lies beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from pathlib import Path
from typing import Any

from bgeserve.errors import StorageFull, StoreError, StoreInUse

FORMAT = 1
_MANIFEST = "store.json"
_LOCK = "lock"
_ALIASES = "aliases.json"


class StoreFolder:
    """An opened, locked folder. Raises StoreError: missing without `create`, not ours, of another format, owned by another process
    (StoreInUse)."""

    def __init__(self, path: Path, kind: str, create: bool) -> None:
        self.path = path
        self.kind = kind
        _require_usable(path, create)
        self._lock = _lock(path)
        try:
            _make_or_check_manifest(path, kind)
        except BaseException:
            self.close()
            raise

    def ensure_room(self, min_free_bytes: int) -> None:
        """Raises StorageFull when the disk has less than this left."""
        disk = os.statvfs(self.path)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < min_free_bytes:
            raise StorageFull(
                f"the disk of store.path {self.path} has {free_bytes} bytes left; "
                f"nothing is written while that is under min_free_bytes: {min_free_bytes}"
            )

    def aliases(self) -> dict[str, str]:
        """Which collection each alias names. Raises StoreError when that cannot be read."""
        file = self.path / _ALIASES
        try:
            return dict(json.loads(file.read_text())) if file.exists() else {}
        except (ValueError, TypeError) as error:
            raise StoreError(f"{file} cannot be read as a store's aliases: {error!r}", field="path") from error

    def keep_alias(self, alias: str, collection: str | None) -> None:
        """Durably; None: it goes away."""
        others = {name: named for name, named in self.aliases().items() if name != alias}
        write_json(self.path / _ALIASES, others if collection is None else {**others, alias: collection})

    def close(self) -> None:
        os.close(self._lock)


def is_store(path: Path) -> bool:
    return (path / _MANIFEST).exists()


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file so that after a crash at any point it is either the old or the new one, and after the return the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut: a synced file whose name is lost is lost."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_usable(path: Path, create: bool) -> None:
    if path.exists() and not path.is_dir():
        raise StoreError(f"store.path {path} is not a folder", field="path")
    # A start that was killed between the lock and the manifest leaves these two behind: still nobody's store.
    found = {entry.name for entry in path.iterdir()} - {_LOCK, _MANIFEST + ".tmp"} if path.exists() else set[str]()
    if not found and not create:
        state = "is empty" if path.exists() else "does not exist"
        raise StoreError(
            f"store.path {path} {state}: is the index on another machine? To start a new one there, set `create: true` under `store`",
            field="path",
        )
    if found and _MANIFEST not in found:
        raise StoreError(f"store.path {path} holds {min(found)!r} but no {_MANIFEST}: it is not a bge-serve store", field="path")
    path.mkdir(parents=True, exist_ok=True)


def _lock(path: Path) -> int:
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 32).decode() or "unknown"
        os.close(descriptor)
        raise StoreInUse(f"store.path {path} is in use by another process (pid {owner}): a folder has one owner", field="path") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def make_manifest(path: Path, kind: str) -> None:
    """Make a folder a store, one that is told from all others."""
    write_json(path / _MANIFEST, {"kind": kind, "format": FORMAT, "store_id": str(uuid.uuid4())})


def _make_or_check_manifest(path: Path, kind: str) -> None:
    manifest = path / _MANIFEST
    if not manifest.exists():
        make_manifest(path, kind)
        sync_folder(path.parent)
        return
    try:
        content = json.loads(manifest.read_text())
        found = content["kind"], content["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{manifest} cannot be read as a store's manifest: {error!r}", field="path") from error
    if found != (kind, FORMAT):
        raise StoreError(f"{manifest} is of kind and format {found}; this version reads {(kind, FORMAT)}", field="path")
