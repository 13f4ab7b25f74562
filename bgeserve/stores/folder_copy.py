"""A copy of one of a store's folders, as a store of its own: `copies/NAME` in the folder of the store that it is of.

Whoever asks for one may be far away, so it gives a name and never a path. Knows files, and not what they hold: nothing may write to them
meanwhile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bgeserve.errors import Conflict, ServiceError
from bgeserve.stores.folder import StoreFolder, make_manifest, sync_folder

COPIES = "copies"


def copy_store(store: StoreFolder, collection: Path, name: str, min_free_bytes: int) -> Path:
    """Copy a collection's folder into a new store; durable on return, and whole or absent after a crash.

    Raises Conflict (there is such a copy), StorageFull (the disk would have less than `min_free_bytes` left), ServiceError.
    """
    copies = store.path / COPIES
    made, partial = copies / name, copies / f".{name}.part"
    if made.exists():
        raise Conflict(f"there is a copy {name!r} already, in {made}: choose another name", field="name")
    files = [path for path in collection.rglob("*") if path.is_file()]
    # What they take, not how long they are: the engine's files are mostly holes.
    store.ensure_room(min_free_bytes + sum(512 * path.stat().st_blocks for path in files))
    shutil.rmtree(partial, ignore_errors=True)
    target = partial / collection.parent.name / collection.name
    target.parent.mkdir(parents=True)
    copied = subprocess.run(
        ["cp", "--recursive", "--sparse=always", str(collection), str(target)], capture_output=True, text=True, check=False
    )
    if copied.returncode:
        raise ServiceError(f"copy {name!r} of {collection} failed: {copied.stderr.strip()}")
    make_manifest(partial, store.kind)
    _sync(partial)
    partial.rename(made)
    sync_folder(copies)
    sync_folder(store.path)
    return made


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)
