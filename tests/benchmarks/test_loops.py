from __future__ import annotations

import asyncio

from benchmarks.serving.loops import run_plan
from benchmarks.serving.plan import NO_ANSWER, OK, Closed, Open, Reply, Request

REQUESTS = [Request(number, tokens=number) for number in range(1, 8)]


async def test_a_closed_loop_has_as_many_requests_in_flight_as_clients_and_sends_each_once() -> None:
    in_flight, most, sent = 0, 0, []

    async def send(request: Request) -> Reply:
        nonlocal in_flight, most
        sent.append(request.payload)
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return Reply(OK)

    record = await run_plan({"all": Closed(REQUESTS, clients=3, seconds=float("inf"))}, send)
    assert most == 3
    assert sorted(sent) == [request.payload for request in REQUESTS]
    assert sorted(outcome.tokens for outcome in record.outcomes["all"]) == sorted(sent)


async def test_a_closed_loop_sends_nothing_after_its_time() -> None:
    async def send(request: Request) -> Reply:
        raise AssertionError("nothing was to be sent")

    record = await run_plan({"all": Closed(REQUESTS, clients=3, seconds=0)}, send)
    assert record.outcomes == {"all": []}


async def test_an_open_loop_waits_for_nobodys_answer() -> None:
    all_asked = asyncio.Event()
    asked = 0

    async def send(request: Request) -> Reply:
        nonlocal asked
        asked += 1
        if asked == len(REQUESTS):
            all_asked.set()
        await all_asked.wait()
        return Reply(NO_ANSWER)

    arrivals = [n / 1000 for n in range(len(REQUESTS))]
    async with asyncio.timeout(30):
        record = await run_plan({"all": Open(REQUESTS, arrivals)}, send)
    outcomes = record.outcomes["all"]
    assert [outcome.due_s for outcome in outcomes] == arrivals
    assert all(outcome.due_s <= outcome.sent_s <= outcome.ended_s for outcome in outcomes)


async def test_loads_of_one_plan_go_on_together() -> None:
    both = asyncio.Barrier(2)

    async def send(request: Request) -> Reply:
        await both.wait()
        return Reply(OK)

    plan = {"queries": Open(REQUESTS[:1], [0.0]), "bulk": Closed(REQUESTS[1:2], 1, float("inf"))}
    async with asyncio.timeout(30):
        record = await run_plan(plan, send)
    assert {name: len(outcomes) for name, outcomes in record.outcomes.items()} == {"queries": 1, "bulk": 1}
