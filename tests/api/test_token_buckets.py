"""Tokens per second of a key: guessed from bytes, corrected by what was computed, refused with the seconds until there is room."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from bgeserve.api import create_app
from bgeserve.api.token_buckets import BURST_S, TokenBuckets
from bgeserve.errors import ComputeError, InvalidRequest, RateLimited
from bgeserve.splitting import BYTES_PER_TOKEN
from tests.api.backend import Stage
from tests.api.conftest import LIMITS
from tests.api.keyrings import keyring_of_keys, made_key, signed

RATE = 100
FULL = RATE * BURST_S
KEY = made_key("a", tokens_per_s=RATE)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def texts(tokens: float) -> list[str]:
    return ["x" * int(tokens * BYTES_PER_TOKEN)]


def spend(buckets: TokenBuckets, guess: float, tokens: int | None = None) -> None:
    with buckets.spending(KEY, texts(guess)) as spent:
        spent.tokens = tokens


def test_a_full_bucket_is_a_burst_and_fills_at_the_rate() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    spend(buckets, FULL)
    with pytest.raises(
        RateLimited, match=rf"the key {KEY.id} may use 100 tokens per second here .* needs about 50, and it has 0"
    ) as refused:
        spend(buckets, 50)
    assert refused.value.retry_after_s == pytest.approx(0.5)
    clock.now += 0.49
    with pytest.raises(RateLimited):
        spend(buckets, 50)
    clock.now += 0.02
    spend(buckets, 50)
    clock.now += 1000
    spend(buckets, FULL)
    with pytest.raises(RateLimited):
        spend(buckets, 1)


def test_what_was_computed_counts_and_may_leave_a_debt_that_is_paid_off() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    spend(buckets, 1, tokens=3 * FULL)
    with pytest.raises(RateLimited) as refused:
        spend(buckets, 10)
    assert refused.value.retry_after_s == pytest.approx((2 * FULL + 10) / RATE)
    clock.now += refused.value.retry_after_s or 0
    spend(buckets, 10)


def test_what_took_less_than_it_looked_is_given_back() -> None:
    buckets = TokenBuckets(Clock())
    for _ in range(50):
        spend(buckets, FULL - 50, tokens=1)


def test_a_request_above_the_bucket_is_let_in_when_it_is_full() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    spend(buckets, 5 * FULL)
    with pytest.raises(RateLimited) as refused:
        spend(buckets, 5 * FULL)
    assert refused.value.retry_after_s == pytest.approx(5 * BURST_S)
    clock.now += 5 * BURST_S
    spend(buckets, 5 * FULL)


@pytest.mark.parametrize(("raised", "is_charged"), [(InvalidRequest("wrong"), False), (ComputeError("failed"), True), (KeyError(), True)])
def test_only_what_was_refused_costs_nothing(raised: Exception, is_charged: bool) -> None:
    buckets = TokenBuckets(Clock())
    with pytest.raises(type(raised)), buckets.spending(KEY, texts(FULL)):
        raise raised
    if is_charged:
        with pytest.raises(RateLimited):
            spend(buckets, 1)
    else:
        spend(buckets, FULL)


def test_keys_have_buckets_of_their_own_and_most_have_none() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    spend(buckets, FULL)
    with buckets.spending(made_key("b", tokens_per_s=RATE), texts(FULL)):
        pass
    for _ in range(3):
        with buckets.spending(made_key("c"), texts(100 * FULL)):
            pass


DOCUMENT = {"documents": [{"id": "a", "text": "x" * 400}]}
CASES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/encode", {"input": "x" * 400}),
    ("POST", "/v1/embeddings", {"input": ["x" * 200, "x" * 200]}),
    ("POST", "/v1/rerank", {"query": "x", "documents": ["x" * 400]}),
    ("POST", "/v1/search", {"query": "x" * 400}),
    ("POST", "/inference", {"model": "hashing", "sentences": "x" * 400}),
    ("POST", "/inference", {"model": "overlap", "sentence_pairs": [["x", "x" * 400]]}),
    ("PUT", "/v1/collections/default/documents", DOCUMENT),
]


@pytest.mark.parametrize(("method", "path", "body"), CASES)
async def test_over_http_every_way_to_compute_is_counted(stage: Stage, method: str, path: str, body: Any) -> None:
    """About a hundred tokens by their bytes, of which the models say that it is one or two: the guess alone would let in no second one."""
    app = create_app(stage.service, LIMITS, keyring_of_keys(made_key("poor", tokens_per_s=10), made_key("rich", tokens_per_s=11)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        answers = [await client.request(method, path, json=body, headers=signed("poor")) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429], "a burst holds a hundred tokens, and one of them is used"
        more = [await client.request(method, path, json=body, headers=signed("rich")) for _ in range(2)]
        assert [answer.status_code for answer in more] == [200, 200], "the guess is corrected by the answer"
    answer = answers[1]
    message = answer.json()["error"]["message"] if path.startswith("/v1/") else answer.json()["msg"]
    assert "may use 10 tokens per second here (tokens_per_s)" in message
    assert 1 <= int(answer.headers["retry-after-ms"]) <= 1000
    assert answer.headers["retry-after"] == "1"
    if path.startswith("/v1/"):
        assert (answer.json()["error"]["type"], answer.json()["error"]["code"]) == ("rate_limit_error", "rate_limited")
