"""File systems of one's own: in an image file, whose power can be cut (mkfs.ext4 and a loop device needed), and in memory. As root."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_EXT4_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): what is not on the device now never gets there
_WITHOUT_FLUSHING_THE_JOURNAL = (2).to_bytes(4, "little")


class CannotMount(Exception):
    """Says what is missing."""


@contextmanager
def memory_disk(folder: Path, size_mib: int) -> Generator[Path]:
    """A file system in memory, mounted at `folder`/tmpfs, which is soon full. Raises CannotMount."""
    if os.geteuid() != 0:
        raise CannotMount("needs root, to mount a tmpfs")
    path = folder / "tmpfs"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", path], check=False, capture_output=True, text=True)
    if done.returncode:
        raise CannotMount(f"cannot mount a tmpfs: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(file: Path) -> None:
    """Take all the room of a disk away."""
    with file.open("wb", buffering=0) as output, suppress(OSError):
        while output.write(bytes(2**20)):
            continue


class Disk:
    """An ext4 file system in a file in `folder`, mounted at `path`."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        """Raises CannotMount."""
        if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
            raise CannotMount("needs root and mkfs.ext4, to mount a file system of its own")
        self.path = folder / "disk"
        self.path.mkdir()
        self._image = folder / "disk.img"
        with self._image.open("wb") as file:
            file.truncate(size_mib * 2**20)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True)
        self._mount()

    def cut_power(self) -> None:
        """Lose what has not reached the device, as a power cut does: from here on the file system only fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_SHUTDOWN, _WITHOUT_FLUSHING_THE_JOURNAL)
        finally:
            os.close(descriptor)

    def restore_power(self) -> None:
        """Mount a copy of what had reached the device in place of the file system whose power was cut; who still has files of that open
        keeps them, and nothing that he does to them gets anywhere."""
        survivor = self._image.with_suffix(".copy")
        subprocess.run(["cp", "--sparse=always", self._image, survivor], check=True)
        subprocess.run(["umount", "--lazy", self.path], check=True)
        survivor.replace(self._image)
        self._mount()

    def remove(self) -> None:
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "--lazy", self.path], check=True, capture_output=True)
        self._image.unlink()

    def _mount(self) -> None:
        done = subprocess.run(["mount", "-o", "loop", self._image, self.path], check=False, capture_output=True, text=True)
        if done.returncode:
            raise CannotMount(f"needs a loop device: {done.stderr.strip()}")
