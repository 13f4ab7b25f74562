"""The closed and the open loop, over anything that answers. Knows clocks and clients, not what a request is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic, process_time

from benchmarks.serving.plan import Closed, Load, Open, Outcome, Plan, Record, Reply, Request

Send = Callable[[Request], Awaitable[Reply]]
Ask = Callable[[Request, float], Awaitable[Outcome]]
Clock = Callable[[], float]


async def run_plan(plan: Plan, send: Send) -> Record:
    cpu_s, start = process_time(), monotonic()

    def clock() -> float:
        return monotonic() - start

    async def ask(request: Request, due_s: float) -> Outcome:
        sent_s = clock()
        reply = await send(request)
        return Outcome(due_s, sent_s, clock(), request.tokens, reply)

    found = await asyncio.gather(*(_run(load, ask, clock) for load in plan.values()))
    return Record(dict(zip(plan, found, strict=True)), clock(), process_time() - cpu_s)


async def _run(load: Load, ask: Ask, clock: Clock) -> list[Outcome]:
    return await (_closed(load, ask, clock) if isinstance(load, Closed) else _open(load, ask, clock))


async def _closed(load: Closed, ask: Ask, clock: Clock) -> list[Outcome]:
    left = iter(load.requests)
    outcomes: list[Outcome] = []

    async def client() -> None:
        while clock() < load.seconds and (request := next(left, None)) is not None:
            outcomes.append(await ask(request, clock()))

    await asyncio.gather(*(client() for _ in range(load.clients)))
    return outcomes


async def _open(load: Open, ask: Ask, clock: Clock) -> list[Outcome]:
    asked: list[asyncio.Task[Outcome]] = []
    for request, due_s in zip(load.requests, load.arrivals_s, strict=True):
        if (wait_s := due_s - clock()) > 0:
            await asyncio.sleep(wait_s)
        asked.append(asyncio.ensure_future(ask(request, due_s)))
    return list(await asyncio.gather(*asked))
