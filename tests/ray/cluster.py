"""A Ray that runs already, as a person or an operator would have started it: for what is deployed onto it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from graphs import session
from graphs.ports import free_port
from tests.ray.processes import BIN, QUICKSTART, START_S


@dataclass
class Cluster:
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    """For programs that are to find it."""
    dashboard: str
    client: str
    """Address for programs outside the cluster (Ray Client)."""
    folder: Path
    temp: Path

    def deploy_quickstart(self) -> str:
        """Deploys it with `serve deploy`, waits until it is ready, and answers its URL."""
        return self.deploy(QUICKSTART.name, QUICKSTART.read_text())

    def deploy(self, name: str, config: str) -> str:
        """Likewise, any config whose port is 8000."""
        port = free_port()
        path = self.folder / name
        path.write_text(config.replace("port: 8000", f"port: {port}"))
        deployed = self.run(BIN / "serve", "deploy", str(path), "--address", self.dashboard)
        assert deployed.returncode == 0, deployed.stderr
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/readyz")
        return url

    def run_module(self, module: str, *arguments: str) -> str:
        done = self.run(sys.executable, "-m", module, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parents[2]
        return subprocess.run(command, cwd=root, env=self.environment, capture_output=True, text=True, timeout=START_S, check=False)

    def stop(self) -> None:
        session.kill(self.process.pid)
        self.process.wait()
        shutil.rmtree(self.temp, ignore_errors=True)


def start(
    folder: Path, *, gpus: int = 0, cpus: float | None = None, resources: Mapping[str, float] | None = None, worker_nodes: int = 0
) -> Cluster:
    """The CPUs, GPUs and resources are numbers in Ray's books: there need not be any. worker_nodes: that Ray's autoscaler may add, with one
    CPU each, and takes away when they idle."""
    token, temp = folder / "token", session.new_folder()
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "BGE_SERVE_DATA": str(folder / "data"),
        # As on the cluster's pods: a process that is started for a Ray Client does not crash.
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        # How long, in place of Ray's 30 s, one is waited for that died nevertheless.
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "15",
    }
    ports = {name: free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
    options = [f"--{name}={value}" for name, value in {**ports, "num-gpus": gpus, "temp-dir": temp}.items()]
    if cpus is not None:
        options.append(f"--num-cpus={cpus:g}")
    if worker_nodes:
        environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        options.append(f"--autoscaling-config={_autoscaling_config(folder, ports['port'], worker_nodes)}")
    process = _start_node(folder, environment, "--head", *options, resources=resources)
    dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
    _wait_for(f"{dashboard}/api/version")
    client = f"ray://127.0.0.1:{ports['ray-client-server-port']}"
    return Cluster(process, environment | {"RAY_ADDRESS": f"127.0.0.1:{ports['port']}"}, dashboard, client, folder, temp)


def _autoscaling_config(folder: Path, port: int, worker_nodes: int) -> Path:
    """Nodes that are processes of this machine, as Ray's own tests have them."""
    node = {"node_config": {}, "resources": {"CPU": 1, "object_store_memory": 128 * 2**20}}
    config = {
        "cluster_name": "fake",
        "provider": {
            "type": "fake_multinode",
            "gcs_address": f"127.0.0.1:{port}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
        },
        "max_workers": worker_nodes,
        "upscaling_speed": 10,
        "idle_timeout_minutes": 0.1,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {**node, "max_workers": 0},
            "worker": {**node, "min_workers": 0, "max_workers": worker_nodes},
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{when}commands": [] for when in ("initialization_", "setup_", "head_setup_", "worker_setup_")},
        **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
    }
    path = folder / "autoscaling.json"
    path.write_text(json.dumps(config))
    return path


def join(cluster: Cluster, folder: Path, resources: Mapping[str, float]) -> subprocess.Popen[bytes]:
    """Another node, with a data directory of its own, in a session of its own."""
    environment = {name: value for name, value in cluster.environment.items() if name != "RAY_ADDRESS"}
    environment["BGE_SERVE_DATA"] = str(folder / "data")
    return _start_node(folder, environment, f"--address={cluster.environment['RAY_ADDRESS']}", resources=resources)


def _start_node(
    folder: Path, environment: Mapping[str, str], *options: str, resources: Mapping[str, float] | None
) -> subprocess.Popen[bytes]:
    common = [f"--dashboard-agent-listen-port={free_port()}", f"--object-store-memory={128 * 2**20}"]
    command = [BIN / "ray", "start", "--block", *options, *common, f"--resources={json.dumps(resources or {})}"]
    with (folder / "ray.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def _wait_for(url: str) -> None:
    """Until something answers there, refusals for want of a token included, and is ready."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(url, timeout=5).status_code < 500 and httpx.get(url, timeout=5).status_code != 404:
                return
        except httpx.HTTPError:
            assert time.monotonic() < deadline, url
        time.sleep(0.2)
