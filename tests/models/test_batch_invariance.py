"""No result depends on what else is in its batch, or on its place in it: batch == single, for every family, in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgeserve.models.embedder import PackedEmbedder
from bgeserve.types import OUTPUTS, Output, RerankerOptions
from tests.checkpoints import TEXTS
from tests.models.folders import DECODER_EMBEDDERS, ENCODER_EMBEDDERS, LAYERED, M3_OF_8192, RERANKERS, Folders
from tests.models.loaded import Reranker, all_numbers, embedder
from tests.models.parity.case import LOGIT_TOLERANCE, VECTOR_TOLERANCE
from tests.models.parity.mutants import mix_neighbours

EMBEDDERS = (*ENCODER_EMBEDDERS, *DECODER_EMBEDDERS)
MIXED_LENGTHS = ["word " * n for n in (*range(0, 40), *range(40, 600, 40), 600)]
examples = settings(max_examples=12, deadline=None)


@pytest.fixture(scope="module")
def load(folders: Folders) -> Callable[[str], PackedEmbedder]:
    return cache(lambda name: embedder(folders[name]))


@pytest.fixture(scope="module")
def load_reranker(folders: Folders) -> Callable[[str], Reranker]:
    return cache(lambda name: Reranker(folders[name]))


def numbers(row: Any) -> list[float]:
    """Of all outputs, lexical weights by id."""
    sparse = row.sparse
    weights = np.zeros(0) if sparse is None else np.zeros(4000)
    if sparse is not None:
        weights[sparse.indices] = sparse.values
    return np.concatenate([row.dense, weights, np.ravel([] if row.multi_vector is None else row.multi_vector)]).tolist()


def check_embedder(model: PackedEmbedder, sequences: list[Any]) -> None:
    outputs = [model.info.outputs]
    together = model.forward(sequences, outputs * len(sequences))
    for sequence, row in zip(sequences, together, strict=True):
        (alone,) = model.forward([sequence], outputs)
        np.testing.assert_allclose(numbers(row), numbers(alone), rtol=0, atol=VECTOR_TOLERANCE)


def check_reranker(model: Reranker, items: list[Any]) -> None:
    for item, together in zip(items, model.forward(items), strict=True):
        (alone,) = model.forward([item])
        assert alone.parts.keys() == together.parts.keys()
        assert all_numbers([together]) == pytest.approx(all_numbers([alone]), abs=LOGIT_TOLERANCE)


# --- lengths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDERS)
def test_texts_of_all_lengths_in_one_batch(name: str, load: Callable[[str], PackedEmbedder]) -> None:
    model = load(name)
    sequences = model.tokenize(MIXED_LENGTHS)
    assert max(sequence.cost for sequence in sequences) >= min(600, model.info.max_tokens)
    check_embedder(model, sequences)


@pytest.mark.parametrize("name", RERANKERS)
def test_pairs_of_all_lengths_in_one_batch(name: str, load_reranker: Callable[[str], Reranker]) -> None:
    model = load_reranker(name)
    check_reranker(model, model.items("some words", MIXED_LENGTHS) + model.items("word " * 300, MIXED_LENGTHS[::8]))


def test_a_text_of_8192_tokens_among_others(folders: Folders) -> None:
    model = embedder(folders[M3_OF_8192], max_tokens=8192)
    sequences = model.tokenize(["short", "word " * 9000, *TEXTS[:3]])
    assert max(sequence.cost for sequence in sequences) == 8192
    check_embedder(model, sequences)


# --- random batches ---------------------------------------------------------------------------------------------------------

words = st.sampled_from(sorted({word for text in TEXTS for word in text.split()}))
texts = st.lists(words, max_size=60).map(" ".join) | st.sampled_from([*TEXTS, "", "word"])


@pytest.mark.parametrize("name", EMBEDDERS)
@examples
@given(batch=st.lists(st.tuples(texts, st.sampled_from(["query", "document"])), min_size=1, max_size=8))
def test_random_texts(name: str, load: Callable[[str], PackedEmbedder], batch: list[tuple[str, Any]]) -> None:
    model = load(name)
    check_embedder(model, [model.tokenize([text], input_type)[0] for text, input_type in batch])


@st.composite
def asked_of_layers(draw: st.DrawFn, lightweight: bool) -> RerankerOptions:
    """Options of a reranker with layers 2 to 6."""
    cutoffs = draw(st.none() | st.lists(st.integers(2, 6), min_size=1, max_size=4))
    prompt = draw(st.sampled_from([None, "Is it?", ""]))
    if not lightweight:
        return RerankerOptions(prompt=prompt, cutoff_layers=cutoffs)
    ratio = draw(st.sampled_from([None, 1, 2, 4, 8]))
    layers = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    return RerankerOptions(prompt=prompt, cutoff_layers=cutoffs, compress_layers=layers, compress_ratio=ratio)


def options_of(name: str) -> st.SearchStrategy[RerankerOptions | None]:
    return asked_of_layers(name.endswith("lightweight")) if name in LAYERED else st.none()


@pytest.mark.parametrize("name", RERANKERS)
@examples
@given(data=st.data())
def test_random_pairs_with_options_of_their_own(name: str, load_reranker: Callable[[str], Reranker], data: st.DataObject) -> None:
    model = load_reranker(name)
    asked = data.draw(st.lists(st.tuples(texts, texts, options_of(name)), min_size=1, max_size=10))
    check_reranker(model, [item for query, passage, options in asked for item in model.items(query, [passage], options)])


@pytest.mark.parametrize("name", RERANKERS)
@examples
@given(data=st.data())
def test_the_order_of_a_batch_does_not_matter(name: str, load_reranker: Callable[[str], Reranker], data: st.DataObject) -> None:
    model = load_reranker(name)
    asked = data.draw(st.lists(st.tuples(texts, options_of(name)), min_size=2, max_size=8))
    items = [item for passage, options in asked for item in model.items(TEXTS[0], [passage], options)]
    order = data.draw(st.permutations(range(len(items))))
    scored, shuffled = model.forward(items), model.forward([items[i] for i in order])
    expected = [scored[i] for i in order]
    assert all_numbers(shuffled) == pytest.approx(all_numbers(expected), abs=LOGIT_TOLERANCE)


@examples
@given(batch=st.lists(st.tuples(texts, texts, st.tuples(*[st.sampled_from([0.0, 0.3, 1.0])] * 3)), min_size=1, max_size=6))
def test_random_hybrid_pairs_with_weights_of_their_own(bge_m3: Path, batch: list[tuple[str, str, tuple[float, ...]]]) -> None:
    model = _hybrid(bge_m3)
    items: list[Any] = []
    for query, passage, shares in batch:
        weights: dict[Output, float] = dict(zip(OUTPUTS, shares, strict=True))
        items += model.items(query, [passage], RerankerOptions(weights=weights if any(shares) else None))
    check_reranker(model, items)


@cache
def _hybrid(folder: Path) -> Reranker:
    return Reranker(folder, scoring="hybrid")


def test_a_leak_between_texts_would_be_seen(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    mix_neighbours(monkeypatch)
    model = embedder(folders["bge-m3"])
    with pytest.raises(AssertionError):
        check_embedder(model, model.tokenize(["one two", "two one"]))
