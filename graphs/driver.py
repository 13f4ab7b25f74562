"""The Ray driver under `bge-serve up`: checks the config, starts a Ray of its own, deploys, and ends with its input.

Speaks to `up` in JSON lines on standard output: {"state": "note" | "failed", "message": ...} or {"state": "ready", ...}.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray._private import worker  # pyright: ignore[reportPrivateUsage]
from ray.serve._private.api import serve_start
from ray.serve.schema import ApplicationStatusOverview, ServeDeploySchema

from bgeserve.errors import SettingsError, StartupError
from graphs import session
from graphs.check import check
from graphs.session import Session

POLL_S = 0.2
WATCH_S = 1
OBJECT_STORE_BYTES = 256 * 2**20
"""Only what is too large for gRPC passes through it."""
STARTUP_ERROR = re.compile(r"^bgeserve\.errors\.\w+: (.*)$", re.MULTILINE)


def main(config_path: str, host: str, port: str, folder: str, up_pid: str) -> int:
    stop = threading.Event()
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    try:
        config = _config(Path(config_path), host, port)
        Session(int(up_pid), os.getpid(), config.http_options.port, str(Path.cwd())).record(Path(folder))
        _start_ray(folder)
        _deploy(config)
        _wait_until_running(stop)
    except StartupError as error:
        _say(state="failed", message=error.message, is_explained=not isinstance(error, _Unexplained))
        return 1
    if not stop.is_set():
        http, (node, *_) = config.http_options, ray.nodes()
        graphs = [application.import_path for application in config.applications]
        address, metrics_port = ray.get_runtime_context().gcs_address, node["MetricsExportPort"]
        _say(state="ready", host=http.host, port=http.port, graphs=graphs, ray_address=address, metrics_port=metrics_port)
        while not stop.wait(WATCH_S):
            _end_with_ray()
    # What was acknowledged is on disk already; this lets requests end and the store close its folder.
    serve.shutdown()
    ray.shutdown()
    return 0


def _wait_for_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def _config(path: Path, host: str, port: str) -> ServeDeploySchema:
    """The checked config, with the address that the command line states instead of its own. Raises SettingsError."""
    config = check(path)
    stated = config.http_options.model_fields_set
    # Ray's own default, behind HAProxy, is every interface.
    config.http_options.host = host or (config.http_options.host if "host" in stated else "127.0.0.1")
    config.http_options.port = int(port or config.http_options.port)
    for left, alive in session.left_behind():
        pids = " ".join(map(str, alive))
        _say(state="note", message=f"a start in {left.started_in} was killed and left processes behind; end them with: kill {pids}")
    _refuse_taken(config.http_options.host, config.http_options.port)
    return config


def _refuse_taken(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}") from None
            others = [other for other in session.running() if other.port == port]
            who = f"bge-serve, started in {others[0].started_in} (pid {others[0].up_pid})" if others else "another program"
            raise SettingsError(f"port {port} is taken by {who}: stop it, or choose another port (--port, or PORT= of make)") from None


def _start_ray(folder: str) -> None:
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=f"{folder}/ray",
    )


def _deploy(config: ServeDeploySchema) -> None:
    client = serve_start(
        http_options=config.http_options.model_dump(),
        proxy_location=config.proxy_location,
        grpc_options=config.grpc_options.model_dump(),
        controller_options=config.controller_options,
    )
    client.deploy_apps(config)


def _wait_until_running(stop: threading.Event) -> None:
    """Raises StartupError with what the first replica that could not start had to say."""
    while not stop.is_set():
        applications = serve.status().applications
        for name, application in applications.items():
            _raise_failure(name, application)
        if applications and all(application.status.value == "RUNNING" for application in applications.values()):
            return
        time.sleep(POLL_S)


def _raise_failure(name: str, application: ApplicationStatusOverview) -> None:
    if application.status.value == "DEPLOY_FAILED" and not application.deployments:
        raise _Unexplained(name, application.message)
    for name, deployment in application.deployments.items():
        if reasons := STARTUP_ERROR.findall(deployment.message):
            raise StartupError(f"{name}: {reasons[-1]}")
        # Serve would try twice more; here somebody waits.
        if deployment.status.value == "DEPLOY_FAILED" or deployment.message.startswith("A replica failed to start"):
            raise _Unexplained(name, deployment.message)


def _end_with_ray() -> None:
    """Nobody else would notice that Ray is gone: its ports would stay open, and every request wait."""
    dead = {kind for kind, _ in worker._global_node.dead_processes()}  # pyright: ignore
    if dead & {"raylet", "gcs_server"}:
        os._exit(1)  # What runs at exit would wait for the dead.


class _Unexplained(StartupError):
    """What bge-serve did not raise on purpose: its last line for the terminal, the rest for the log."""

    def __init__(self, where: str, message: str) -> None:
        print(message, file=sys.stderr)
        super().__init__(f"{where}: {message.strip().rpartition(chr(10))[2]}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
