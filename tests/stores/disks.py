"""A file system of its own for a test. Skips, saying why, where it cannot be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.durability.disk import CannotMount, Disk, memory_disk


@contextmanager
def ext4(folder: Path, size_mib: int) -> Iterator[Disk]:
    try:
        disk = Disk(folder, size_mib)
    except CannotMount as problem:
        pytest.skip(str(problem))
    try:
        yield disk
    finally:
        disk.remove()


@contextmanager
def tmpfs(folder: Path, size_mib: int) -> Iterator[Path]:
    with ExitStack() as mounted:
        try:
            path = mounted.enter_context(memory_disk(folder, size_mib))
        except CannotMount as problem:
            pytest.skip(str(problem))
        yield path
