"""A Ray of two nodes on this machine with the service on it, deployed as operators do; its processes, and whether all of it is there.

The first node has the front (proxy, ingress, controller) and the collections; each node has one replica of every model. With Redis the
head is as on Kubernetes, without any work.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.drills.services import FRONT, Config, Place
from benchmarks.serving.processes import Program, is_dead, state_of, title
from graphs import session
from graphs.own_ray import own_environment
from graphs.ports import free_port

BIN = Path(sys.executable).parent
START_S = 240.0
"""More than any start takes on a busy machine of two cores."""
POLL_S = 0.1
OBJECT_STORE_BYTES = 128 * 2**20
HAPROXY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_FRONT_ELSEWHERE = """#!/bin/sh
sed -i -E 's/^( *bind [^ ]*):{port}$/\\1:{elsewhere}/' "$3" && exec "{haproxy}" "$@"
"""


class NotWhole(Exception):
    """Says what is not there."""


class Cluster:
    """Started by the constructor, without an application; `stop` ends and removes all of it."""

    def __init__(self, place: Place, *, redis: str | None = None) -> None:
        """redis: address of one that keeps the cluster's state, so that it outlives the head; then the front is on the other node."""
        self.place = place
        self.config: Config = {}
        """As it was handed over last."""
        self._temp = session.new_folder()
        self._redis = redis
        shared = {"BGE_SERVE_DATA": str(place.work / "data"), **({"RAY_REDIS_ADDRESS": redis} if redis else {})}
        self._environment = own_environment(self._temp) | shared
        self.port = free_port()
        if redis is not None:
            # Two proxies cannot have one port of one machine, and on Kubernetes no traffic goes to the head's either.
            self._environment |= _proxy_elsewhere(self._temp, self._environment, self.port)
        (self._temp / "worker").mkdir()
        # Its proxy has ports of its own.
        self._of_worker = (
            own_environment(self._temp / "worker") | shared | {"RAY_AUTH_TOKEN_PATH": self._environment["RAY_AUTH_TOKEN_PATH"]}
        )
        self._ports = {name: free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
        self.head = self.start_head()
        self.worker = self.start_worker()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start_head(self) -> Program:
        # A new head elsewhere would not find it; here Ray takes the other node for a cluster that still runs.
        (self._temp / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        options = [f"--{name}={value}" for name, value in {**self._ports, "temp-dir": self._temp / "ray"}.items()]
        self.head = self._node(
            "head", self._environment, "--head", *options, *_resources(cpus=0 if self._redis else 4, front=not self._redis)
        )
        self.until(lambda: self._ask("/api/version") is not None, "Ray does not start")
        return self.head

    def start_worker(self) -> Program:
        address = f"--address=127.0.0.1:{self._ports['port']}"
        self.worker = self._node("worker", self._of_worker, address, *_resources(cpus=4, front=bool(self._redis)))
        return self.worker

    def deploy(self, config: Config) -> None:
        """Hands the config over, and does not wait for what comes of it."""
        self.config = config
        path = self.place.work / "config.yaml"
        where = "EveryNode" if self._redis else "HeadOnly"
        stated = {"proxy_location": where, "http_options": {"host": "127.0.0.1", "port": self.port}, **config}
        path.write_text(yaml.safe_dump(stated))
        command = [BIN / "serve", "deploy", path, "--address", self._dashboard]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=START_S, check=False)
        if done.returncode:
            raise RuntimeError(f"serve deploy: {done.stderr}")

    def until_whole(self, unlike: frozenset[int] = frozenset()) -> None:
        """Until every deployment has all its replicas, none of them one of these processes. Raises NotWhole after START_S."""
        self.until(lambda: self.is_whole(unlike), "the service does not come to be whole")

    def is_whole(self, unlike: frozenset[int] = frozenset()) -> bool:
        deployments = self._deployments()
        if not deployments or not self.pids("haproxy"):
            return False
        for deployment in deployments:
            running = {replica["pid"] for replica in deployment["replicas"] if replica["state"] == "RUNNING"}
            others = len(deployment["replicas"]) - len(running)
            alive = {pid for pid in running if state_of(pid, pid) not in (None, "Z", "T")} - unlike
            if deployment["status"] != "HEALTHY" or others or len(alive) != len(running) or len(alive) != deployment["target_num_replicas"]:
                return False
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def replicas(self, deployment: str, node: Program | None = None) -> list[int]:
        """Pids, on both nodes or on one."""
        return self.pids(f"ray::ServeReplica:search:{deployment}", node)

    def pids(self, beginning: str, node: Program | None = None) -> list[int]:
        """Of the processes whose title, or the name of whose program, begins so."""
        return [pid for one in ([node] if node else [self.head, self.worker]) for pid in one.pids() if _is_called(pid, beginning)]

    def survivors(self) -> list[int]:
        """Of every process of both nodes."""
        return [pid for node in (self.head, self.worker) for pid in node.pids() if not is_dead(pid)]

    def until(self, condition: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            if time.monotonic() > deadline:
                raise NotWhole(f"{problem}: {self._says()}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        for node in (self.worker, self.head):
            node.kill()
        shutil.rmtree(self._temp, ignore_errors=True)

    @property
    def _dashboard(self) -> str:
        return f"http://127.0.0.1:{self._ports['dashboard-port']}"

    def _node(self, name: str, environment: Mapping[str, str], *options: str) -> Program:
        common = [f"--dashboard-agent-listen-port={free_port()}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        command = [BIN / "ray", "start", "--block", *options, *common]
        return Program(command, self.place.work / f"{name}.log", environment, self.place.work)

    def _ask(self, path: str) -> Any:
        token = Path(self._environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        with suppress(httpx.HTTPError, ValueError):
            answer = httpx.get(f"{self._dashboard}{path}", headers={"authorization": f"Bearer {token}"}, timeout=5)
            return answer.json() if answer.status_code == 200 else None
        return None

    def _deployments(self) -> list[Mapping[str, Any]]:
        applications = (self._ask("/api/serve/applications/") or {}).get("applications", {})
        return [deployment for application in applications.values() for deployment in application["deployments"].values()]

    def _says(self) -> str:
        told = {
            one["name"]: [one["status"], one["message"], [replica["state"] for replica in one["replicas"]]] for one in self._deployments()
        }
        return f"{json.dumps(told)}; {self.head.said_last()}"


def _proxy_elsewhere(folder: Path, environment: Mapping[str, str], port: int) -> Mapping[str, str]:
    """For a proxy that is there, at a port that nobody knows: Ray hands every proxy the same one."""
    script = folder / "front-elsewhere"
    haproxy = environment[HAPROXY]
    script.write_text(_FRONT_ELSEWHERE.format(port=port, elsewhere=free_port(), haproxy=haproxy))
    script.chmod(0o700)
    return {HAPROXY: str(script)}


def _resources(*, cpus: int, front: bool) -> list[str]:
    return [f"--num-cpus={cpus}", f"--resources={json.dumps({FRONT: 1} if front else {})}"]


def _is_called(pid: int, beginning: str) -> bool:
    said = title(pid)
    return said.startswith(beginning) or Path(said.split(" ")[0]).name == beginning
