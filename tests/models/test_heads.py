from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bgeserve.catalog import Pooling
from bgeserve.models.heads import TokenRows, lexical_weights, max_sim, multi_vector, pool, token_vectors

LENGTHS = (1, 2, 5)
HIDDEN = torch.randn(sum(LENGTHS), 6, generator=torch.Generator().manual_seed(0))
TEXTS = HIDDEN.split(LENGTHS)


def rows() -> TokenRows:
    return TokenRows(HIDDEN, np.arange(sum(LENGTHS)), np.array(LENGTHS))


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", [text[0] for text in TEXTS]),
        ("last_token", [text[-1] for text in TEXTS]),
        ("mean", [text.mean(dim=0) for text in TEXTS]),
    ],
)
def test_pooling(pooling: Pooling, expected: list[torch.Tensor]) -> None:
    torch.testing.assert_close(pool(rows(), pooling), torch.stack([vector / vector.norm() for vector in expected]))


weights_of_tokens = st.lists(st.tuples(st.integers(0, 6), st.floats(-2, 2, width=32)), min_size=1, max_size=8)


@settings(deadline=None)
@given(st.lists(weights_of_tokens, min_size=1, max_size=6))
def test_lexical_weights_are_the_largest_of_each_id(texts: list[list[tuple[int, float]]]) -> None:
    linear = nn.Linear(1, 1)
    with torch.no_grad():
        linear.weight.fill_(1)
        linear.bias.fill_(0)
        tokens = [token for text in texts for token in text]
        hidden = torch.tensor([[weight] for _, weight in tokens])
        ids = np.array([i for i, _ in tokens])
        found = lexical_weights(TokenRows(hidden, ids, np.array([len(text) for text in texts])), linear, ignored_ids=[0, 3])
    for text, vector in zip(texts, found, strict=True):
        expected: dict[int, float] = {}
        for token, weight in text:
            if token not in (0, 3) and weight > 0:
                expected[token] = max(weight, expected.get(token, 0))
        assert dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True)) == expected
        assert vector.indices.tolist() == sorted(expected)
        assert vector.indices.dtype == np.uint32
        assert vector.values.dtype == np.float32


def test_multi_vector_drops_the_first_token_alone() -> None:
    linear = nn.Linear(6, 3)
    with torch.no_grad():
        found = multi_vector(rows(), linear)
        expected = [linear(text[1:]) for text in TEXTS]
    assert [tuple(vectors.shape) for vectors in found] == [(0, 3), (1, 3), (4, 3)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs / theirs.norm(dim=-1, keepdim=True))


def test_selected_rows_are_those_of_the_wanted_texts() -> None:
    from bgeserve.models.packing import PackedBatch, PositionScheme
    from bgeserve.models.tokenizing import TokenSequence

    batch = PackedBatch.pack([TokenSequence(np.full(n, n, np.int32)) for n in LENGTHS], PositionScheme(), torch.device("cpu"))
    some = TokenRows.select(HIDDEN, batch, np.array([True, False, True]))
    assert some.ids.tolist() == [1, 5, 5, 5, 5, 5]
    assert some.lengths.tolist() == [1, 5]
    torch.testing.assert_close(some.hidden, torch.cat([TEXTS[0], TEXTS[2]]))


def test_max_sim_is_the_mean_of_the_best_cosines() -> None:
    query, passage = (token_vectors(rows())[i] for i in (1, 2))
    expected = np.mean([max(float(q @ p) for p in passage) for q in query])
    assert float(max_sim(query, passage)) == pytest.approx(expected, abs=1e-6)
    assert float(max_sim(query, query)) == pytest.approx(1, abs=1e-6)
