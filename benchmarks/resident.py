"""How much memory a process has resident, as Linux counts it: code and mapped files that are in memory too."""

from __future__ import annotations

import re
import threading
from pathlib import Path

MIB = 2**20


def resident(field: str = "VmRSS") -> int:
    """Bytes. VmRSS: now; VmHWM: the most so far; RssAnon: now, without mapped files."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {field}"
    return int(found[1]) * 1024


def peak() -> int:
    return resident("VmHWM")


def forget_peak() -> None:
    """From here on `peak` counts anew."""
    Path("/proc/self/clear_refs").write_text("5")


class PrivatePeak:
    """The most private memory (RssAnon) within a `with`, looked at every few milliseconds: the kernel keeps no peak of it."""

    def __init__(self, every_s: float = 0.002) -> None:
        self.most = 0
        self._every_s = every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PrivatePeak:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            self.most = max(self.most, resident("RssAnon"))
