"""Requests that go on while a replica dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import httpx

WORKERS = 6
TIMEOUT_S = 120


async def lose_a_replica(url: str, pids: Callable[[], list[int]]) -> tuple[list[int], set[int], list[int]]:
    """Kill an embedder's replica while clients ask: pids before, the statuses that the clients saw, pids after."""
    before: list[int] = []
    statuses: set[int] = set()

    async def ask(client: httpx.AsyncClient, worker: int) -> None:
        count = 0
        while not before or count < 5:
            # Little enough that even a machine that does much else at the same time does not refuse it as overload.
            body = {"input": [f"text {count} of {worker} " * 20] * 2}
            statuses.add((await client.post("/v1/encode", json=body)).status_code)
            count += 1
            if not before and count == 3:
                before.extend(pids())
                os.kill(before[0], signal.SIGKILL)

    headers = {"x-timeout-ms": str(TIMEOUT_S * 1000)}
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, headers=headers) as client:
        await asyncio.gather(*(ask(client, worker) for worker in range(WORKERS)))
    return before, statuses, pids()
