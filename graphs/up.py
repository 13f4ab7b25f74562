"""`bge-serve up CONFIG`: the service in the foreground, on a Ray of its own that ends with it.

This process only watches. The Ray driver (`driver.py`) runs in a POSIX session of its own, so that nothing of it can stay behind. Another
Ray on this machine is neither used nor touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import FrameType
from typing import Any

from bgeserve.api.keyring import KEY_VARIABLE, KEYS_FILE_VARIABLE
from bgeserve.cli.up import add_arguments
from bgeserve.sources import needs_ray_data
from graphs import session
from graphs.own_ray import own_environment

GRACE_S = 15
"""After which a stop no longer asks."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ALONE = {
    # Listens on loopback, and looks for itself there, as Ray has it on Windows; a second node is refused.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Nobody else balances load over this one ingress, so it need not wait to be taken out of a list.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
}
"""This one machine is all there is."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXAMPLES = {
    "graphs.search:build": ("/v1/search", {"query": "compute the SHA256 digest of a file", "top_k": 3}),
    "graphs.embed:build": ("/v1/encode", {"input": ["what is BGE M3?"]}),
    "graphs.rerank:build": ("/v1/rerank", {"query": "what is BGE M3?", "documents": ["an embedding model", "a recipe"]}),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bge-serve up", description="Run a Serve config in the foreground.")
    add_arguments(parser)
    return _Up(parser.parse_args(argv)).run()


class _Up:
    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        """Signals, what the driver says, and its end, in the order in which they come."""
        self._folder = session.new_folder()
        self._log = self._folder / "driver.log"
        self._indexing: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def run(self) -> int:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        _say(f"starting {self._args.config} (Ctrl-C stops it)")
        driver = self._start_driver()
        try:
            return self._watch()
        finally:
            self._stop(driver)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._events.put({"state": "signal"})

    def _start_driver(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "graphs.driver", self._args.config, self._args.host or "", str(self._args.port or "")]
        driver = subprocess.Popen(
            [*command, str(self._folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=own_environment(self._folder) | ALONE,
            start_new_session=True,
        )
        listener = Thread(target=self._listen, args=(driver,), daemon=True)
        listener.start()
        Thread(target=self._wait_for, args=(driver, listener), daemon=True).start()
        return driver

    def _listen(self, driver: subprocess.Popen[str]) -> None:
        assert driver.stdout is not None
        for line in driver.stdout:
            if line.startswith("{"):
                self._events.put(json.loads(line))

    def _wait_for(self, driver: subprocess.Popen[str], listener: Thread) -> None:
        driver.wait()
        # What it said last comes first. Its output may stay open after it: Ray's processes have inherited it.
        listener.join(1)
        self._events.put({"state": "ended"})

    def _watch(self) -> int:
        """Until a signal (0), or until the service cannot start or go on (1)."""
        while True:
            match event := self._events.get():
                case {"state": "ready"}:
                    self._is_ready = True
                    self._welcome(event)
                case {"state": "note"}:
                    _say(event["message"])
                case {"state": "failed"}:
                    for line in event["message"].splitlines():
                        _say(f"{self._args.config}: {line}")
                    if not event["is_explained"]:
                        _say(f"the logs are in {self._keep_logs()}")
                    return 1
                case {"state": "ended"}:
                    _say(f"Ray has ended unexpectedly; its logs are in {self._keep_logs()}")
                    return 1
                case _:
                    _say("stopping")
                    return 0

    def _welcome(self, ready: dict[str, Any]) -> None:
        host, port = ready["host"], ready["port"]
        reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
        url = f"http://{reachable}:{port}"
        _say(f"ready on {url}")
        for graph in ready["graphs"]:
            if graph in EXAMPLES:
                path, body = EXAMPLES[graph]
                print(f"\n  curl -s {url}{path} -H 'content-type: application/json' -d '{json.dumps(body)}'")
        print(f"\n  Metrics: http://127.0.0.1:{ready['metrics_port']}/metrics")
        reach = {"RAY_ADDRESS": ready["ray_address"], **self._access()}
        print(f"  Handles: {' '.join(f'{name}={value}' for name, value in reach.items())} python")
        print("  Ray, its metrics and HAProxy's statistics listen on this machine alone; what Ray answers needs that token.\n", flush=True)
        if host not in LOOPBACK and not any(os.environ.get(name) for name in (KEY_VARIABLE, KEYS_FILE_VARIABLE)):
            _say(f"WARNING: listening on {host} without {KEY_VARIABLE}: whoever reaches this machine can read and change everything")
        if self._args.index:
            self._indexing = self._index(self._args.index, url, ready["ray_address"])

    def _index(self, source: str, url: str, ray_address: str) -> subprocess.Popen[bytes]:
        where = ["--ray-address", ray_address] if needs_ray_data(source) else ["--url", url]
        command = "import sys; from bgeserve.cli import main; sys.exit(main())"
        return subprocess.Popen([sys.executable, "-P", "-c", command, "index", source, *where], env={**os.environ, **self._access()})

    def _access(self) -> dict[str, str]:
        """What a program's environment needs to reach this Ray."""
        name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._folder / "token"), name: ALONE[name]}

    def _stop(self, driver: subprocess.Popen[str]) -> None:
        """Ask a service that is up to end, and end at once what has nothing to lose; a second signal is for those who cannot wait."""
        if self._indexing is not None:
            self._indexing.terminate()
        if self._is_ready and driver.poll() is None:
            assert driver.stdin is not None
            driver.stdin.close()
            with suppress(Empty):
                while self._events.get(timeout=GRACE_S)["state"] not in ("ended", "signal"):
                    continue
        session.kill(driver.pid)
        driver.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep_logs(self) -> Path:
        kept = self._folder.with_name(f"{self._folder.name}-logs")
        kept.mkdir(mode=0o700)
        shutil.copy(self._log, kept)
        if (ray_logs := self._folder / "ray" / "session_latest" / "logs").exists():
            shutil.copytree(ray_logs, kept / "ray", symlinks=True)
        return kept


def _say(message: str) -> None:
    print(f"bge-serve: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
