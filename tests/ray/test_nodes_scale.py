"""Replicas that no node has room for bring nodes, and take them along when they go: on Ray's own autoscaler, with nodes of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.ray import cluster
from tests.ray.cluster import Cluster
from tests.ray.paced import MODEL, QUICK, Watched, application
from tests.ray.processes import nodes

pytestmark = pytest.mark.ray


@pytest.fixture
def one_node(tmp_path: Path) -> Iterator[Cluster]:
    started = cluster.start(tmp_path, cpus=2, worker_nodes=3)
    yield started
    started.stop()


def test_one_node_becomes_four_and_one_again_and_no_request_fails(one_node: Cluster) -> None:
    model = {**MODEL, "cpus": 1, "replicas": {"min": 1, "max": 4, **QUICK}}  # beside the ingress, a node has room for one
    http = {"host": "127.0.0.1", "port": 8000}
    config = {"proxy_location": "HeadOnly", "http_options": http, "applications": [application(embedders={"m": model})]}
    service = Watched(one_node.deploy("config.yaml", yaml.safe_dump(config)))
    with service.client:
        assert nodes(one_node.process.pid) == 1
        assert service.ask_until_running("m", 4) == (4, {200})
        assert nodes(one_node.process.pid) == 4
        service.wait_until(lambda: service.running("m") == 1 and nodes(one_node.process.pid) == 1)
