"""Splitting loses nothing, keeps order, and bounds each call."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgeserve.splitting import concat_embeddings, concat_scores, gather_bounded, split_by_bytes
from bgeserve.types import Embeddings, Scores, SparseVector


@given(st.lists(st.text(max_size=60)), st.integers(1, 100))
def test_slices_cover_the_texts_in_order_and_stay_within_the_limit(texts: list[str], max_bytes: int) -> None:
    slices = split_by_bytes(texts, max_bytes)
    assert [text for part in slices for text in texts[part]] == texts
    for part, following in zip_longest(slices, slices[1:]):
        size = sum(len(text) for text in texts[part])
        assert size <= max_bytes or len(texts[part]) == 1
        if following is not None:
            assert size + len(texts[following][0]) > max_bytes


def embeddings(n: int, fingerprint: str = "m") -> Embeddings:
    sparse = [SparseVector(np.array([i], np.uint32), np.ones(1, np.float32)) for i in range(n)]
    return Embeddings(fingerprint, list(range(n)), [False] * n, dense=np.full((n, 2), n, np.float32), sparse=sparse)


def test_embeddings_of_consecutive_calls_become_one_answer() -> None:
    whole = concat_embeddings([embeddings(2), embeddings(3)])
    assert len(whole) == 5
    assert whole.tokens == [0, 1, 0, 1, 2]
    assert whole.dense is not None
    assert whole.dense.tolist() == [[2, 2]] * 2 + [[3, 3]] * 3
    assert whole.sparse is not None
    assert [vector.indices[0] for vector in whole.sparse] == [0, 1, 0, 1, 2]
    assert whole.multi_vector is None


def test_embeddings_of_two_models_are_never_one_answer() -> None:
    with pytest.raises(ValueError, match="different models"):
        concat_embeddings([embeddings(1, "a"), embeddings(1, "b")])


def test_scores_of_consecutive_calls_become_one_answer() -> None:
    part = Scores(np.ones(1, np.float32), np.zeros(1, np.float32), [3], [True], timings_ms={"wait": 2, "forward": 5})
    slower = replace(part, timings_ms={"wait": 4, "forward": 3})
    assert concat_scores([part, slower]).timings_ms == {"wait": 4, "forward": 5}
    assert concat_scores([part, part]).tokens == [3, 3]
    assert concat_scores([part, part]).raw.tolist() == [1, 1]


async def test_calls_in_flight_are_bounded_and_a_failure_cancels_the_rest() -> None:
    in_flight = peak = finished = 0

    async def call(n: int) -> int:
        nonlocal in_flight, peak, finished
        in_flight += 1
        peak = max(peak, in_flight)
        await asyncio.sleep(0.005)
        in_flight -= 1
        if n == 5:
            raise KeyError(n)
        finished += 1
        return n

    assert await gather_bounded([lambda n=n: call(n) for n in range(5)], 2) == [0, 1, 2, 3, 4]
    assert peak == 2
    with pytest.raises(KeyError):
        await gather_bounded([lambda n=n: call(n) for n in range(5, 100)], 3)
    assert finished <= 5 + 3
