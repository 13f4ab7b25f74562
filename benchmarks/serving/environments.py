"""A peer's own environment: a venv under the peers' folder, made when it is first needed. Knows pip, not the peers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL_S = 1800
STAMP = "installed.txt"


class Unavailable(Exception):
    """A peer cannot be measured here, and why."""


@dataclass(frozen=True, slots=True)
class Environment:
    name: str
    python: str
    """Such as 3.12."""
    packages: Sequence[str]

    def ensure(self, peers: Path) -> Path:
        """Its `bin` folder. Raises Unavailable."""
        folder = peers / self.name
        stamp = folder / STAMP
        wanted = "\n".join(self.packages)
        if not stamp.is_file() or stamp.read_text() != wanted:
            interpreter = find_python(self.python)
            print(f"installing {' '.join(self.packages)} into {folder} (minutes, the first time)", file=sys.stderr, flush=True)
            _run([interpreter, "-m", "venv", folder])
            _run([folder / "bin" / "pip", "install", "--quiet", *self.packages])
            stamp.write_text(wanted)
        return folder / "bin"


def find_python(version: str) -> Path:
    """This interpreter, one on PATH, or one of pyenv's. Raises Unavailable."""
    for candidate in _candidates(version):
        says = "import sys; print('%d.%d' % sys.version_info[:2])"
        asked = subprocess.run([candidate, "-c", says], capture_output=True, text=True)
        # pyenv puts a shim of every version on PATH, which fails for those that are not chosen.
        if asked.returncode == 0 and asked.stdout.strip() == version:
            return candidate
    raise Unavailable(f"no Python {version} found on PATH or in pyenv")


def _candidates(version: str) -> Iterator[Path]:
    yield Path(sys.executable)
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)


def _run(command: Sequence[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"not installed within {INSTALL_S} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise Unavailable(f"{Path(command[0]).name} failed: {lines[-1][:300]}")
