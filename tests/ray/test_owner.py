"""The death of the process that owns an embedded store, on a cluster of two nodes of which one has the folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from graphs import session
from tests.checkpoints import make_bert
from tests.ray import cluster
from tests.ray.cluster import Cluster
from tests.ray.processes import START_S, replicas

pytestmark = pytest.mark.ray

FRONT, INDEX = {"front": 1.0}, {"index": 1.0}
"""What only the one node has, and only the other."""


class TwoNodes:
    """The front and the embedder on the one, the owner and its folder on the other, which can be lost and come back."""

    def __init__(self, folder: Path) -> None:
        self._other = folder / "other"
        self._other.mkdir()
        self._head: Cluster = cluster.start(folder, gpus=0, resources=FRONT)
        self._node = cluster.join(self._head, self._other, INDEX)
        self.url = self._head.deploy("config.yaml", yaml.safe_dump(_config(str(make_bert(folder / "bert")))))
        self.client = httpx.Client(base_url=self.url, timeout=START_S, headers={"x-timeout-ms": "60000"})

    def owner(self) -> int:
        deadline = time.monotonic() + START_S
        while not (found := replicas("retriever", self._node.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return found[-1]

    def put(self, *ids: str) -> httpx.Response:
        documents = [{"id": id, "text": f"the text of {id}"} for id in ids]
        return self.client.put("/v1/collections/default/documents", json={"documents": documents})

    def put_until_stored(self, id: str) -> None:
        """As a client does that heeds what it is told."""
        deadline = time.monotonic() + START_S
        while (answer := self.put(id)).status_code != 200:
            require_refusal(answer)
            assert time.monotonic() < deadline
            time.sleep(int(answer.headers["retry-after"]))

    def stored(self) -> set[str]:
        return {document["id"] for document in self.client.get("/v1/collections/default/documents").json()["documents"]}

    def lose_node(self) -> None:
        session.kill(self._node.pid)
        self._node.wait()

    def bring_node_back(self) -> None:
        self._node = cluster.join(self._head, self._other, INDEX)

    def indexes(self) -> list[Path]:
        """Folders that hold one, on either node."""
        return list(self._head.folder.rglob("store.json"))

    def stop(self) -> None:
        self.client.close()
        self.lose_node()
        self._head.stop()


def require_refusal(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "unavailable"


def _config(model: str) -> dict[str, Any]:
    arguments = {
        "embedders": {"tiny": {"model": model, "cpus": 0.1, "workers": 1}},
        "store": {"path": "index", "create": True, "cpus": 0.1, "node_resource": "index", "min_free_bytes": 2**20},
        "search": {"legs": ["dense", "full_text"]},
        "ingress": {"cpus": 0.1},
    }
    in_front = {"ray_actor_options": {"num_cpus": 0.1, "resources": {"front": 0.001}}}
    deployments = [
        {"name": "embedder-tiny", **in_front},
        {"name": "ingress", **in_front},
        # A hung owner is found out in seconds, so that a test can wait for it.
        {"name": "retriever", "health_check_timeout_s": 1, "graceful_shutdown_timeout_s": 3},
    ]
    application = {"name": "search", "import_path": "graphs.search:build", "route_prefix": "/", "args": arguments}
    http = {"host": "127.0.0.1", "port": 8000}
    return {"proxy_location": "HeadOnly", "http_options": http, "applications": [{**application, "deployments": deployments}]}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    started = TwoNodes(tmp_path_factory.mktemp("two-nodes"))
    assert started.put("first").status_code == 200
    yield started
    started.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_write_waits_for_the_owner_that_follows_one_that_is_killed_or_hangs(nodes: TwoNodes, number: int) -> None:
    before = nodes.owner()
    os.kill(before, number)
    nodes.put_until_stored(f"after {number}")
    assert nodes.owner() != before
    assert {"first", f"after {number}"} <= nodes.stored()


def test_without_the_node_that_has_the_index_nobody_stands_in_for_it(nodes: TwoNodes) -> None:
    stored = nodes.stored()
    nodes.lose_node()
    require_refusal(nodes.put("in between"))
    require_refusal(nodes.client.post("/v1/search", json={"query": "the text of first", "mode": "full_text"}))
    assert nodes.client.get("/readyz").json() == {"ready": False, "waiting_for": ["retriever"]}
    nodes.bring_node_back()
    nodes.put_until_stored("afterwards")
    # The refused write was not stored behind its writer's back.
    assert nodes.stored() == stored | {"afterwards"}
    assert len(nodes.indexes()) == 1
