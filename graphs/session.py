"""The processes and the folder of one `bge-serve up`. All that it starts is in one POSIX session, which is how it is found again.

Knows nothing of Ray: a process belongs by its session, whatever it has become.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path("/tmp")
"""Ray and HAProxy put sockets below it, and HAProxy takes paths of at most 97 bytes, 70 of which are its own: TMPDIR may be too long."""
PREFIX = "bge-serve-"
RECORD = "session.json"


@dataclass(frozen=True)
class Session:
    up_pid: int
    """Of `bge-serve up`, in the user's terminal."""
    leader_pid: int
    """Of the Ray driver, which every other process descends from."""
    port: int
    started_in: str

    def record(self, folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps(asdict(self)))


def new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=ROOT))


def processes(leader_pid: int) -> list[int]:
    """Pids of the session's living processes."""
    return [pid for pid in _pids() if _session_of(pid) == leader_pid and not _is_dead(pid)]


def kill(leader_pid: int, timeout_s: float = 10) -> None:
    """End every process of the session at once, and wait until none is left."""
    deadline = time.monotonic() + timeout_s
    while (alive := processes(leader_pid)) and time.monotonic() < deadline:
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def running() -> Iterator[Session]:
    return (session for _, session in _recorded() if not _is_dead(session.up_pid))


def left_behind() -> Iterator[tuple[Session, list[int]]]:
    """Sessions whose `up` was killed and that still have processes; the folder of one that has none is removed."""
    for folder, session in _recorded():
        if not _is_dead(session.up_pid):
            continue
        alive = processes(session.leader_pid)
        # Numbers of sessions are used again: this one is still ours when one of its processes writes to our folder.
        if any(_has_open(pid, folder) for pid in alive):
            yield session, alive
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _recorded() -> Iterator[tuple[Path, Session]]:
    for record in ROOT.glob(f"{PREFIX}*/{RECORD}"):
        with suppress(OSError, ValueError, TypeError):
            if record.stat().st_uid == os.getuid():
                yield record.parent, Session(**json.loads(record.read_text()))


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _is_dead(pid: int) -> bool:
    """Gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _has_open(pid: int, folder: Path) -> bool:
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if link.readlink().is_relative_to(folder):
                    return True
    return False
