"""A paced service (`benchmarks/autoscale/paced.py`) under load, and how many replicas of each model it is seen to have meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx

from benchmarks.autoscale.paced import TOKEN
from tests.ray.processes import START_S

TOKENS_PER_S = 2000
TIMEOUT_S = 120
JOB_TEXTS = 500
JOB_TOKENS = 40
"""Of each text."""
QUICK = {"cold_start_s": 5, "hold_down_s": 4}
MODEL = {"model": "paced", "cpus": 0.1, "workers": 1, "max_batch_tokens": 400}


def application(**arguments: Any) -> dict[str, Any]:
    """Of a Serve config."""
    arguments = {"tokens_per_s": TOKENS_PER_S, "ingress": {"cpus": 0.1, "timeout_s": TIMEOUT_S}, **arguments}
    return {"name": "search", "import_path": "benchmarks.autoscale.paced:build", "route_prefix": "/", "args": arguments}


class Watched:
    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=TIMEOUT_S)

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

    def ask_until_running(self, model: str, replicas: int) -> tuple[int, set[int]]:
        """Jobs and queries side by side until so many run, for `START_S` at most: how many ran then, and the statuses of all requests."""
        return asyncio.run(self._ask_until_running(model, replicas))

    async def _ask_until_running(self, model: str, replicas: int) -> tuple[int, set[int]]:
        enough = asyncio.Event()
        statuses: set[int] = set()

        async def ask(client: httpx.AsyncClient, texts: int, pause_s: float, **headers: str) -> None:
            while not enough.is_set():
                answer = await client.post("/v1/encode", json={"input": [TOKEN * JOB_TOKENS] * texts}, headers=headers)
                statuses.add(answer.status_code)
                await asyncio.sleep(pause_s)

        async with httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_S) as client, asyncio.TaskGroup() as asking:
            for _ in range(3):
                asking.create_task(ask(client, JOB_TEXTS, 0, **{"x-lane": "bulk"}))
            for _ in range(4):
                asking.create_task(ask(client, 1, 0.2))
            running = 0
            for _ in range(START_S * 2):
                if (running := await asyncio.to_thread(self.running, model)) >= replicas:
                    break
                await asyncio.sleep(0.5)
            enough.set()
        return running, statuses

    def _replicas(self, model: str) -> dict[str, int]:
        models = self.client.get("/v1/status").json()["models"]
        return next(one["replicas"] for one in models if one["name"] == model)
