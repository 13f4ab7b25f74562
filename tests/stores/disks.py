"""A file system of its own for a test. Skips, saying why, where it cannot be made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.durability.disk import CannotMount, Disk


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
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a tmpfs")
    path = folder / "tmpfs"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", path], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(file: Path) -> None:
    """Take all the room of a disk away."""
    with file.open("wb", buffering=0) as output, suppress(OSError):
        while output.write(bytes(2**20)):
            continue
