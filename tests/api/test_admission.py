"""How much may be in progress at one ingress, and who is refused first."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from bgeserve.api import create_app
from bgeserve.api.admission import ByteBudget
from bgeserve.errors import Overloaded
from tests.api.backend import Stage
from tests.api.conftest import LIMITS


def test_what_is_held_is_given_back() -> None:
    budget = ByteBudget(100)
    for _ in range(5):
        with budget.request("a") as held:
            held.grow(60)
            held.grow(100)
            held.grow(100)


def test_past_the_limit_a_request_is_refused_and_those_before_it_are_not_disturbed() -> None:
    budget = ByteBudget(100)
    with budget.request("a") as first, budget.request("a") as second:
        first.grow(90)
        with pytest.raises(Overloaded, match=r"hold 90 bytes; the limit is 100 \(max_inflight_bytes\)") as refused:
            second.grow(11)
        assert refused.value.retry_after_s == 1.0
        second.grow(10)
        first.grow(90)
    with budget.request("a") as third:
        third.grow(100)


def test_a_tenant_that_fills_everything_does_not_lock_out_another() -> None:
    budget = ByteBudget(100)
    with budget.request("flood") as flood, budget.request("other") as other, budget.request("flood") as more:
        flood.grow(100)
        other.grow(50)
        with pytest.raises(Overloaded):
            other.grow(51)
        with pytest.raises(Overloaded):
            more.grow(1)


async def test_over_http_the_refusal_says_when_to_come_back(stage: Stage) -> None:
    app = create_app(stage.service, LIMITS.model_copy(update={"max_inflight_bytes": 40}))
    stage.embedding.delay_s = 1.0
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        running = asyncio.create_task(client.post("/v1/encode", json={"input": "a text of thirty bytes"}))
        async with asyncio.timeout(20):
            while stage.embedding.started == 0:  # noqa: ASYNC110  # the stand-in tells nobody
                await asyncio.sleep(0)
        assert stage.embedding.started == 1
        refused = await client.post("/v1/encode", json={"input": "a text of thirty bytes"})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["retry-after-ms"]) >= 1
        assert (await running).status_code == 200
        stage.embedding.delay_s = 0
        assert (await client.post("/v1/encode", json={"input": "a text of thirty bytes"})).status_code == 200
