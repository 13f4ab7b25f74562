"""On a Ray that runs already, without the fast front: `serve deploy`, shares of GPUs, and `bge-serve up` beside it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.serving.processes import title
from graphs import session
from tests.ray import cluster
from tests.ray.cluster import Cluster
from tests.ray.load import lose_a_replica
from tests.ray.processes import BIN, CONFIGS, START_S, Up, replicas

pytestmark = pytest.mark.ray
BringUp = Callable[..., Up]


@pytest.fixture(scope="module")
def running_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = cluster.start(tmp_path_factory.mktemp("cluster"), gpus=2)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def url(running_ray: Cluster) -> str:
    return running_ray.deploy_quickstart()


def test_the_quickstart_is_deployed_with_serve_deploy(url: str) -> None:
    documents = [{"id": "gzip", "text": "read and write gzip files"}, {"id": "argparse", "text": "parse command line arguments"}]
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.put("/v1/collections/default/documents", json={"documents": documents}).status_code == 200
        answer = client.post("/v1/search", json={"query": "compress a file", "top_k": 1}).json()
    assert [hit["id"] for hit in answer["results"]] == ["gzip"]


async def test_an_embedder_that_is_killed_loses_no_request(url: str, running_ray: Cluster) -> None:
    before, statuses, after = await lose_a_replica(url, lambda: replicas("embedder-all-minilm", running_ray.process.pid))
    assert statuses == {200}
    assert before != after


def test_a_config_is_checked_against_the_cluster(running_ray: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text((CONFIGS / "embed-only.yaml").read_text())
    assert running_ray.run(BIN / "bge-serve", "check", str(config), "--cluster").stdout == f"{config}: embed: ok\n"
    config.write_text(config.read_text().replace("gpus: 1", "gpus: 3"))
    refused = running_ray.run(BIN / "bge-serve", "check", str(config), "--cluster")
    assert refused.returncode == 1
    assert refused.stderr.endswith(": embedder-bge-m3 needs 3 GPU for each replica; the cluster has 2\n")


@pytest.mark.parametrize("path", ["/api/jobs/", "/api/serve/applications/", "/nodes?view=summary", "/api/v0/actors"])
def test_the_dashboard_answers_nobody_without_the_token(running_ray: Cluster, path: str) -> None:
    token = Path(running_ray.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    signed = {"authorization": f"Bearer {token}"}
    assert httpx.get(running_ray.dashboard + path, headers=signed, timeout=60).status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}):
        assert httpx.get(running_ray.dashboard + path, headers=headers, timeout=60).status_code in (401, 403)


def test_a_job_is_not_taken_without_the_token(running_ray: Cluster) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        submitted = httpx.post(f"{running_ray.dashboard}/api/jobs/", json={"entrypoint": "true"}, headers=headers, timeout=60)
        assert submitted.status_code in (401, 403)


def test_up_beside_it_leaves_it_alone(url: str, tmp_path: Path, bring_up: BringUp) -> None:
    (tmp_path / "small.py").write_text("from ray import serve\n\n@serve.deployment\nclass Small: ...\n\napp = Small.bind()\n")
    config = tmp_path / "config.yaml"
    config.write_text("applications: [{name: small, import_path: 'small:app'}]")
    beside = bring_up(config=config)
    beside.wait_until_ready()
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert beside.stop() == 0
    assert httpx.get(f"{url}/readyz").status_code == 200
    answer = httpx.post(f"{url}/v1/encode", json={"input": "still there"}, timeout=60)
    assert answer.status_code == 200


def test_a_data_job_runs_from_a_ray_client_and_as_a_submitted_job(url: str, running_ray: Cluster, tmp_path: Path) -> None:
    """A second run finds everything stored: both put the same documents into the same service. The client's own process in the cluster dies
    before it serves, as Ray's do now and then (ray-project/ray#63202), and the client comes again."""
    source = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"id": [f"d{n}" for n in range(100)], "text": [f"text number {n}" for n in range(100)]}), source)
    index = (BIN / "bge-serve", "index", str(source), "--collection", "jobs", "--json")
    with ThreadPoolExecutor(1) as beside:
        lost = beside.submit(_lose_the_first_server_of_a_ray_client, running_ray.process.pid)
        outside = running_ray.run(*index, "--ray-address", running_ray.client)
    lost.result()
    assert outside.returncode == 0, outside.stderr
    done = json.loads(outside.stdout)
    assert (done["upserted"], done["unchanged"], done["rejected"]) == (100, 0, 0)
    submitted = running_ray.run(BIN / "ray", "job", "submit", "--address", running_ray.dashboard, "--", *index)
    assert submitted.returncode == 0, submitted.stderr
    assert '"upserted": 0, "unchanged": 100' in submitted.stdout
    assert httpx.get(f"{url}/v1/collections/jobs", timeout=60).json()["count"] == 100


def _lose_the_first_server_of_a_ray_client(leader_pid: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for pid in session.processes(leader_pid):
            if "--mode=specific-server" in title(pid):
                return os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    raise AssertionError("no client came")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here a replica on CUDA starts")
def test_replicas_get_their_share_of_gpus_and_cuda_without_cuda_is_refused(running_ray: Cluster) -> None:
    told = json.loads(running_ray.run_module("tests.ray.gpu_client"))
    assert [share for share, _ in told["halves"]] == [0.5, 0.5]
    assert [share for share, _ in told["wholes"]] == [1, 1]
    assert {gpu for _, gpus in told["wholes"] for gpu in gpus} == {"0", "1"}
    assert told["refusal"].startswith("bgeserve.errors.SettingsError: ")
    assert "cuda" in told["refusal"].lower()
