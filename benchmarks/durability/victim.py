"""The service that is struck: the real one, started as its users start it, with an embedder so small that the store is what takes time.

Knows our config, our processes and how each kind of death comes about.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import httpx
import yaml

from benchmarks.durability.disk import Disk
from benchmarks.random_checkpoints import Size, make_checkpoint
from benchmarks.serving.processes import Program, children_of, state_of, title
from graphs.ports import free_port

Store = Literal["qdrant_edge", "milvus_lite"]
KINDS = {"qdrant_edge": "qdrant_edge", "milvus_lite": "milvus"}
"""What the settings call them."""
OWNER = "ray::ServeReplica:search:retriever"
START_S = 240
"""More than any start takes on a busy machine of two cores."""
POLL_S = 0.05
LAST_LINES = 40


class Victim:
    """Starts in `work`; the store lies on `disk`, or in `work` where there is none."""

    def __init__(self, store: Store, work: Path, disk: Disk | None) -> None:
        self._disk = disk
        self._log = work / "up.log"
        self._config = work / "config.yaml"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        folder = (work if disk is None else disk.path) / "store"
        self._config.write_text(yaml.safe_dump(_config(port, _model(work), KINDS[store], folder)))
        self._program = self._start()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=START_S).status_code == 200:
                    return
            if self._program.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service does not start: {self._program.said_last()}")
            time.sleep(POLL_S)

    def kill_owner(self) -> None:
        """The process that owns the collections, and nothing else."""
        os.kill(self._owner(), signal.SIGKILL)

    def kill_node(self) -> None:
        """Every process of Ray and of ours; then it is started again over the same folder."""
        self._program.kill()
        self._program = self._start()

    def cut_power(self) -> None:
        """The owner, with what it has started, stands still while its disk loses what was not on it, and never comes round."""
        assert self._disk is not None
        owners = [owner := self._owner(), *children_of(owner)]
        _hold_still(owners)
        self._disk.cut_power()
        self._disk.restore_power()
        for pid in owners:
            os.kill(pid, signal.SIGKILL)

    def says(self) -> str:
        """Its last lines, and whether it says that it is ready."""
        try:
            ready = httpx.get(f"{self.url}/readyz", timeout=START_S).text
        except httpx.TransportError as error:
            ready = repr(error)
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([f"/readyz: {ready}", f"{len(self._program.pids())} processes", *lines[-LAST_LINES:]])

    def stop(self) -> None:
        self._program.stop()

    def _start(self) -> Program:
        return Program([Path(sys.executable).parent / "bge-serve", "up", self._config], self._log)

    def _owner(self) -> int:
        """Waits for one that is being started."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if owners := [pid for pid in self._program.pids() if title(pid).startswith(OWNER)]:
                return owners[-1]
            time.sleep(POLL_S)
        raise RuntimeError(f"no process owns the collections: {self._program.said_last()}")


def _model(work: Path) -> str:
    return str(make_checkpoint("bge-small-en-v1.5", work, Size(width=32, layers=1)))


def _config(port: int, model: str, kind: str, folder: Path) -> dict[str, object]:
    arguments = {
        "embedders": {"tiny": {"model": model, "cpus": 0.1, "workers": 1}},
        "store": {"kind": kind, "path": str(folder), "create": True, "cpus": 0.1},
        # Chunks of a line or two, so that documents have several.
        "search": {"legs": ["dense", "full_text"], "chunking": {"max_tokens": 48, "overlap_tokens": 8}},
        "ingress": {"cpus": 0.1},
    }
    application = {"name": "search", "import_path": "graphs.search:build", "route_prefix": "/", "args": arguments}
    return {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}


def _hold_still(pids: Sequence[int]) -> None:
    """On return no thread of theirs runs: what they had said by now they had said before the power went."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    while any(state_of(pid, int(thread.name)) != "T" for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()):
        time.sleep(0.001)
