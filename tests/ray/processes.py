"""Starts of the real service for tests, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.quickstart import handle_environment
from benchmarks.serving.processes import title
from graphs import session
from graphs.ports import free_port

BIN = Path(sys.executable).parent
CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
START_S = 180
"""More than any start takes on a busy machine of two cores."""


@dataclass
class Up:
    """One `bge-serve up`, with its own data directory and port."""

    process: subprocess.Popen[str]
    port: int
    data: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while "ready on" not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def handle_environment(self) -> dict[str, str]:
        return handle_environment(self.said)

    def driver_pid(self) -> int:
        return next(one.leader_pid for one in session.running() if one.up_pid == self.process.pid)

    def abort(self) -> None:
        """For the end of a test that failed half way."""
        if self.process.poll() is None:
            for one in session.running():
                if one.up_pid == self.process.pid:
                    session.kill(one.leader_pid)
            self.process.kill()
            self.process.wait()

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def up(folder: Path, *arguments: str, config: Path = QUICKSTART, port: int | None = None, data: Path | None = None) -> Up:
    port = port or free_port()
    data = data or folder / "data"
    log = folder / "up.log"
    command = [BIN / "bge-serve", "up", str(config), "--port", str(port), *arguments]
    environment = os.environ | {"BGE_SERVE_DATA": str(data)}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, text=True)
    return Up(process, port, data, log)


@contextmanager
def search_service(folder: Path, **arguments: Any) -> Iterator[Up]:
    """A service of `graphs.search` with these arguments, ready; its store is of its own."""
    arguments["store"] = {"kind": "qdrant_edge", "path": "documents", "create": True, "cpus": 0.1}
    arguments["ingress"] = {"cpus": 0.1}
    config = folder / "config.yaml"
    application = {"name": "search", "import_path": "graphs.search:build", "route_prefix": "/", "args": arguments}
    config.write_text(yaml.safe_dump({"applications": [application]}))
    started = up(folder, config=config)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.abort()


def replicas(deployment: str, leader_pid: int) -> list[int]:
    """Pids of a deployment's replicas, among the processes of one session."""
    return [pid for pid in session.processes(leader_pid) if title(pid).startswith(f"ray::ServeReplica:search:{deployment}")]


def nodes(leader_pid: int) -> int:
    """How many of a cluster's nodes are processes of one session."""
    return sum("/raylet/raylet " in title(pid) for pid in session.processes(leader_pid))


def listening(pids: list[int]) -> set[int]:
    """Ports on which these processes listen."""
    return {port for _, port in _listening(pids)}


def open_to_others(pids: list[int]) -> set[int]:
    """Those of them that other machines reach."""
    return {port for address, port in _listening(pids) if not address.endswith("0100007F") and address != "0" * 24 + "01000000"}


def _listening(pids: list[int]) -> list[tuple[str, int]]:
    """Addresses as the kernel writes them: 0100007F is 127.0.0.1, and the end of what IPv6 makes of it."""
    sockets = {link.name for pid in pids for link in _socket_links(pid)}
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    found = [row[1].rpartition(":") for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    return [(address, int(port, 16)) for address, _, port in found]


def _socket_links(pid: int) -> list[Path]:
    links: list[Path] = []
    with suppress(OSError):  # processes end while one looks
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                links.append(entry.readlink())
    return links
