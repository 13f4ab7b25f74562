"""A file system of its own for a test: small enough to fill, and one whose power can be cut. Skips, saying why, where it cannot be made."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_EXT4_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): what is not on the device now never gets there
_WITHOUT_FLUSHING_THE_JOURNAL = (2).to_bytes(4, "little")


@contextmanager
def ext4(folder: Path, size_mib: int) -> Iterator[Path]:
    """An ext4 file system in a file in `folder`, mounted."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4, to mount a file system of its own")
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(size_mib * 2**20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if (failed := _mount(image, mounted)) is not None:
        pytest.skip(f"needs a loop device: {failed}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)


def cut_power(mounted: Path) -> None:
    """Lose what has not reached the device, as a power cut does, and start the file system again. Nothing may have a file open on it."""
    descriptor = os.open(mounted, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _EXT4_SHUTDOWN, _WITHOUT_FLUSHING_THE_JOURNAL)
    finally:
        os.close(descriptor)


def restore_power(mounted: Path) -> None:
    subprocess.run(["umount", mounted], check=True)
    failed = _mount(mounted.parent / "disk.img", mounted)
    assert failed is None, failed


def _mount(image: Path, mounted: Path) -> str | None:
    done = subprocess.run(["mount", "-o", "loop", image, mounted], check=False, capture_output=True, text=True)
    return done.stderr if done.returncode else None
