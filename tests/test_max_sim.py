"""MaxSim in numpy against its definition, over whatever float16 can hold."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from bgeserve.max_sim import as_float16, max_sim

DIMENSIONS = 5
NUMBERS = st.floats(-4, 4, width=16)


def vectors(most: int) -> st.SearchStrategy[np.ndarray]:
    return st_numpy.arrays(np.float16, st.tuples(st.integers(1, most), st.just(DIMENSIONS)), elements=NUMBERS)


@given(query=vectors(6), passages=st.lists(vectors(9), max_size=4))
def test_is_the_mean_of_the_greatest_products(query: np.ndarray, passages: list[np.ndarray]) -> None:
    expected = [np.mean([max(float(a @ b) for b in p.astype(np.float64)) for a in query.astype(np.float64)]) for p in passages]
    found = max_sim(query.astype(np.float32), passages)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_every_finite_float16_keeps_its_value() -> None:
    """The only vector of a query is 1, so that the score is the passage's one number."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    found = max_sim(np.ones((1, 1), np.float32), list(finite.reshape(-1, 1, 1)))
    np.testing.assert_array_equal(found, finite.astype(np.float32))


def test_the_query_is_rounded_as_the_passages_are() -> None:
    query = np.array([[0.1, 0.2]], np.float32)
    passage = np.eye(2, dtype=np.float16)
    assert max_sim(query, [passage])[0] == np.float32(np.float16(0.2)) == as_float16(query)[0, 1]
    assert np.float32(0.2) != np.float32(np.float16(0.2))


def test_many_long_passages_score_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    query = rng.uniform(-1, 1, (7, 16)).astype(np.float32)
    passages = [rng.uniform(-1, 1, (length, 16)).astype(np.float16) for length in (1, 1500, 3, 700, 700, 1, 1024, 2)]
    alone = [max_sim(query, [passage])[0] for passage in passages]
    np.testing.assert_allclose(max_sim(query, passages), alone, rtol=1e-6)
