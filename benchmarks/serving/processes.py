"""A program with everything that it starts: found, paused, weighed and ended. Knows Linux's /proc, not what the programs do."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

STOP_S = 30
"""After which a stop no longer asks. Ray needs about ten."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Program:
    """In a session of its own, so that a Ctrl-C in the terminal reaches only whoever will then stop this in order."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        **pipes: int,
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **pipes},
            )
        # It is there until somebody waits for it. What it led stays in its session when it has gone.
        self._leader = {one.pid: one.started for one in _all_processes() if one.pid == self.process.pid}
        self._seen = dict(self._leader)
        """When each began, by pid."""

    def pids(self) -> list[int]:
        """Of the living: the process, its descendants, and whatever is in a session that one of them led, whoever its parent is by now."""
        living = {one.pid: one for one in _all_processes()}
        # Numbers are used again: one that another process has by now is not ours.
        known = {pid for pid, started in self._seen.items() if pid not in living or living[pid].started == started}
        members = known & living.keys()
        while joining := {one.pid for one in living.values() if one.parent in members or one.session in known | members} - members:
            members |= joining
        self._seen = self._leader | {pid: living[pid].started for pid in members}
        return sorted(pid for pid in members if not is_dead(pid))

    def pause(self) -> None:
        """What is not measured must not take time from what is: an idle Ray alone takes an eighth of a core."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        self.resume()
        self.pids()
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        self.kill()

    def kill(self) -> None:
        """All of it at once, without a word."""
        while self.pids():
            self._signal(signal.SIGKILL)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()

    def said_last(self) -> str:
        """The last line of its output, which says why it ended where it did not mean to."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    def _signal(self, number: int) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the process has used so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_bytes(pids: Sequence[int]) -> int:
    """Of all of them together; what they share counts once in each."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


def title(pid: int) -> str:
    """What the process calls itself; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def is_dead(pid: int) -> bool:
    """Gone, or a zombie."""
    return state_of(pid, pid) in (None, "Z")


def state_of(pid: int, thread: int) -> str | None:
    """The kernel's letter: T is stopped, Z a zombie. None: gone."""
    try:
        return Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def children_of(pid: int) -> list[int]:
    return [one.pid for one in _all_processes() if one.parent == pid]


class _Process(NamedTuple):
    pid: int
    parent: int
    session: int
    started: int
    """In the kernel's ticks."""


def _all_processes() -> Iterator[_Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                yield _Process(int(entry.name), int(fields[1]), int(fields[3]), int(fields[19]))
