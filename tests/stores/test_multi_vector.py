"""Token vectors in every store: their scores against numpy, and what an export gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from bgeserve.types import Chunk, Embeddings, Float32Array, Query, SparseVector
from bgeserve.vector_store import ScoredId, VectorStore
from tests.stores.conftest import Opener
from tests.stores.samples import SCHEMA, TOKEN_DIMENSIONS, chunk, embed, pieces_of, query, tokens

WORDS = ["amber", "basalt", "cedar", "delta", "ember", "fjord", "granite", "harbor", "iris", "juniper"]


def texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, int(rng.integers(0, 40)))) + f" number{i}" for i in range(count)]


def put(store: VectorStore, *chunks: Chunk, collection: str = "docs") -> None:
    store.upsert(collection, chunks, embed(chunks))


def keys_by_id(store: VectorStore) -> dict[str, str]:
    hits = store.search("docs", "dense", query("x"), 1000, None)
    return {c.document_id: hit.key for c, hit in zip(store.fetch("docs", hits), hits, strict=True)}


def expected_score(asked: Float32Array, passage: Float32Array) -> float:
    """MaxSim, written out in double precision over what float16 keeps."""
    ours, theirs = (vectors.astype(np.float16).astype(np.float64) for vectors in (asked, passage))
    return float(np.mean([max(float(a @ b) for b in theirs) for a in ours]))


def same_scores(found: Sequence[ScoredId], other: Sequence[ScoredId]) -> bool:
    return [hit.key for hit in found] == [hit.key for hit in other] and np.allclose([h.score for h in found], [h.score for h in other])


def test_scores_are_those_of_numpy_best_first(store: VectorStore) -> None:
    chunks = [chunk(f"d{i}", text) for i, text in enumerate(texts(150))]
    put(store, *chunks)
    keys = keys_by_id(store)
    asked = query("amber fjord unheard of")
    expected = {keys[c.document_id]: expected_score(tokens(asked.text), tokens(c.text)) for c in chunks}
    found = store.rescore("docs", asked, list(keys.values()))
    assert {hit.key: hit.score for hit in found} == pytest.approx(expected, abs=1e-5)
    assert found == sorted(found, key=lambda hit: (-hit.score, hit.key))
    some = list(keys.values())[3:40]
    assert {hit.key for hit in store.rescore("docs", asked, some)} == set(some)
    assert store.rescore("docs", asked, []) == []


def test_equal_scores_stand_by_key(store: VectorStore) -> None:
    put(store, *(chunk(f"d{i}", "amber basalt") for i in range(50)))
    keys = sorted(keys_by_id(store).values())
    assert [hit.key for hit in store.rescore("docs", query("basalt"), keys[::-1])] == keys


def test_what_was_replaced_or_deleted_counts_no_longer(store: VectorStore) -> None:
    put(store, chunk("a", "amber"), chunk("b", "basalt"), *pieces_of("long", ["cedar", "delta"]))
    keys = keys_by_id(store)
    before = store.rescore("docs", query("fjord"), list(keys.values()))
    put(store, chunk("a", "fjord"))
    store.delete("docs", ["b", "long"])
    (after,) = store.rescore("docs", query("fjord"), list(keys.values()))
    assert len(before) == 3
    assert after.key == keys["a"]
    assert after.score == pytest.approx(1, abs=1e-3)


def test_scores_are_the_same_after_reopening(opener: Opener) -> None:
    store = opener()
    store.create("docs", SCHEMA)
    put(store, *(chunk(f"d{i}", text) for i, text in enumerate(texts(70))))
    keys = list(keys_by_id(store).values())
    before = store.rescore("docs", query("amber iris"), keys)
    store.flush()
    store.close()
    store = opener()
    assert same_scores(store.rescore("docs", query("amber iris"), keys), before)
    store.close()


def test_a_text_of_very_many_token_vectors_is_kept_whole(store: VectorStore) -> None:
    rng = np.random.default_rng(0)
    long = rng.uniform(-1, 1, (20_000, TOKEN_DIMENSIONS)).astype(np.float32)
    chunks = [chunk("short"), chunk("long", "amber")]
    store.upsert("docs", chunks, replace(embed(chunks), multi_vector=[tokens("short"), long]))
    vectors = store.export("docs", ["long"])[1].multi_vector
    assert vectors is not None
    np.testing.assert_array_equal(vectors[0], long.astype(np.float16))
    (found,) = store.rescore("docs", query("amber"), [keys_by_id(store)["long"]])
    assert found.score == pytest.approx(expected_score(tokens("amber"), long), abs=1e-5)


def assert_same_vectors(ours: Embeddings, theirs: Embeddings) -> None:
    for a, b in zip(ours.sparse or (), theirs.sparse or (), strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.values, b.values)
    for a, b in zip(ours.multi_vector or (), theirs.multi_vector or (), strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours.dense is not None
    assert theirs.dense is not None
    # A Qdrant scales vectors whose length is not 1 to the last digit.
    np.testing.assert_allclose(ours.dense, theirs.dense, rtol=1e-6)


def test_an_export_has_everything_that_was_stored(store: VectorStore) -> None:
    chunks = [
        *(chunk(f"d{i}", text, {"i": i}) for i, text in enumerate(texts(130))),
        *pieces_of("long", ["first piece", "second", "third"]),
        chunk("no words", " "),
    ]
    written = embed(chunks)
    written = replace(written, sparse=[*(written.sparse or ())[:-1], SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))])
    store.upsert("docs", chunks, written)
    ids = ["no words", "long", *(f"d{i}" for i in range(130)), "missing"]
    exported, vectors = store.export("docs", ids)
    assert exported == store.get("docs", ids)
    assert vectors.fingerprint == SCHEMA.fingerprint
    assert (list(vectors.tokens), list(vectors.truncated)) == ([0] * 134, [False] * 134)
    rounded = [found.astype(np.float16).astype(np.float32) for found in embed(exported).multi_vector or ()]
    no_words = [SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32)), *(embed(exported).sparse or ())[1:]]
    assert_same_vectors(vectors, replace(embed(exported), sparse=no_words, multi_vector=rounded))
    assert [type(found).__name__ for found in (vectors.dense, *(vectors.multi_vector or ()))] == ["ndarray"] * 135
    assert all(found.dtype == np.float32 for found in vectors.multi_vector or ())


def test_what_was_exported_can_be_stored_and_exported_again_unchanged(store: VectorStore) -> None:
    put(store, *(chunk(f"d{i}", text) for i, text in enumerate(texts(40))))
    ids = [f"d{i}" for i in range(40)]
    chunks, vectors = store.export("docs", ids)
    store.create("copy", SCHEMA)
    store.upsert("copy", chunks, vectors)
    copied, again = store.export("copy", ids)
    assert copied == chunks
    assert_same_vectors(again, vectors)


def test_an_export_of_nothing_has_the_collections_shape(store: VectorStore) -> None:
    chunks, vectors = store.export("docs", ["missing"])
    assert chunks == []
    assert len(vectors) == 0
    assert vectors.dense is not None
    assert vectors.dense.shape == (0, SCHEMA.dimensions)
    assert vectors.sparse == vectors.multi_vector == []


def test_a_query_may_have_more_vectors_than_a_text(store: VectorStore) -> None:
    put(store, chunk("a", "amber"))
    asked = np.concatenate([tokens(word) for word in WORDS])
    (found,) = store.rescore("docs", Query("x", multi_vector=asked), list(keys_by_id(store).values()))
    assert found.score == pytest.approx(expected_score(asked, tokens("amber")), abs=1e-5)
