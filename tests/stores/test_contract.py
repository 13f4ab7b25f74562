"""What every store must do, whichever engine is behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bgeserve.errors import Conflict, FingerprintMismatch, InvalidRequest, NotFound
from bgeserve.filters import Equals
from bgeserve.types import FINDING_LEGS, Chunk, Embeddings, Float32Array, Query, SparseVector
from bgeserve.vector_store import CollectionSchema, VectorStore
from tests.stores.conftest import Opener
from tests.stores.samples import DIMENSIONS, SCHEMA, TOKEN_DIMENSIONS, chunk, dense, embed, pieces_of, query, sparse, tokens

WORDS = ["amber", "basalt", "cedar", "delta", "ember", "fjord", "granite", "harbor", "iris", "juniper"]


def put(store: VectorStore, *chunks: Chunk) -> None:
    store.upsert("docs", chunks, embed(chunks))


def found(store: VectorStore, leg: Any, query: Query, limit: int = 10) -> list[str]:
    hits = store.search("docs", leg, query, limit, None)
    return [c.document_id for c in store.fetch("docs", hits)]


def everything(store: VectorStore) -> list[Chunk]:
    return store.get("docs", store.scroll("docs", 10_000, None)[0])


def test_chunks_come_back_as_they_were(store: VectorStore) -> None:
    stored = [
        chunk("plain"),
        chunk("https://example.org/ä?b=c#d", "日本語 und Ümläute \x00 \n"),
        chunk(
            "typed", metadata={"s": "x", "i": 2**63 - 1, "j": -(2**63 - 1), "f": 0.1, "one": 1.0, "t": True, "list": ["a", 1, 2.5, False]}
        ),
        chunk("odd fields", metadata={"a.b": 1, "a[0]": 2, 'quo"te': 3, "日": 4, " ": 5, "id": 6, "text": 7, "terms": 8, "empty": []}),
        *pieces_of("long", ["first", "second", "third"]),
    ]
    put(store, *stored)
    back = store.get("docs", ["long", "typed", "plain", "https://example.org/ä?b=c#d", "odd fields", "missing"])
    assert back == [*stored[4:], stored[2], stored[0], stored[1], stored[3]]
    assert [type(value) for value in back[3].metadata.values()] == [type(value) for value in stored[2].metadata.values()]


def test_what_was_written_is_there_after_reopening(opener: Opener) -> None:
    store = opener()
    store.create("docs", SCHEMA)
    put(store, *(chunk(f"d{i}", f"text {i}") for i in range(100)))
    store.delete("docs", ["d7"])
    before = everything(store)
    store.flush()
    store.close()
    store = opener()
    assert store.collections() == ["docs"]
    assert store.schema("docs") == SCHEMA
    assert everything(store) == before
    assert store.count("docs") == len(before) == 99
    store.close()


def test_a_write_replaces_the_document(store: VectorStore) -> None:
    put(store, chunk("a", "amber"), chunk("b", "basalt"))
    put(store, chunk("a", "cedar"))
    assert [c.text for c in store.get("docs", ["a", "b"])] == ["cedar", "basalt"]
    assert found(store, "full_text", query("amber")) == []
    assert found(store, "full_text", query("cedar")) == ["a"]
    assert store.count("docs") == 2


@pytest.mark.parametrize("sizes", [(3, 1), (1, 3), (200, 70), (70, 200)])
def test_a_document_has_exactly_the_chunks_of_its_last_write(store: VectorStore, sizes: tuple[int, int]) -> None:
    for version, size in enumerate(sizes):
        put(store, *pieces_of("long", [f"piece {n} of {version}" for n in range(size)], str(version)), chunk("other"))
        stored = store.get("docs", ["long"])
        assert [(c.n, c.text) for c in stored] == [(n, f"piece {n} of {version}") for n in range(size)]
        assert store.content_hashes("docs", ["long"]) == {"long": f"long {version}"}
    assert store.count("docs") == 2
    assert store.delete("docs", ["long", "long", "missing"]) == 1
    assert [c.document_id for c in everything(store)] == ["other"]


def test_content_hashes_of_documents_that_are_there(store: VectorStore) -> None:
    put(store, chunk("a", "amber"), chunk("b", "basalt"))
    assert store.content_hashes("docs", ["a", "b", "c"]) == {"a": chunk("a", "amber").content_hash, "b": chunk("b", "basalt").content_hash}


def test_a_document_whose_chunks_disagree_is_not_stored_whole(store: VectorStore) -> None:
    old, new = pieces_of("long", ["x", "y"], "old"), pieces_of("long", ["x", "z"], "new")
    put(store, old[0], new[1])
    assert store.content_hashes("docs", ["long"]) == {}


def test_dense_leg_ranks_as_numpy_does(store: VectorStore) -> None:
    chunks = [chunk(f"d{i}", f"text {i}") for i in range(300)]
    put(store, *chunks)
    vectors = np.stack([dense(c.text) for c in chunks])
    for text in ("one", "two", "three"):
        scores = vectors @ dense(text)
        hits = store.search("docs", "dense", query(text), 10, None)
        assert [c.document_id for c in store.fetch("docs", hits)] == [f"d{i}" for i in np.argsort(-scores)[:10]]
        np.testing.assert_allclose([h.score for h in hits], np.sort(scores)[::-1][:10], rtol=1e-5)


def test_sparse_leg_scores_by_inner_product(store: VectorStore) -> None:
    rng = np.random.default_rng(0)
    chunks = [chunk(f"d{i}", " ".join(rng.choice(WORDS, 4))) for i in range(100)]
    put(store, *chunks)
    asked = {int(i): float(v) for i, v in zip(sparse("amber iris").indices, sparse("amber iris").values, strict=True)}
    expected = {}
    for c in chunks:
        vector = sparse(c.text)
        expected[c.document_id] = sum(asked.get(int(i), 0.0) * float(v) for i, v in zip(vector.indices, vector.values, strict=True))
    hits = store.search("docs", "sparse", query("amber iris"), 200, None)
    ids = [c.document_id for c in store.fetch("docs", hits)]
    assert {id: pytest.approx(score) for id, score in expected.items() if score} == dict(zip(ids, [h.score for h in hits], strict=True))


def test_full_text_leg_prefers_rare_words_and_short_texts(store: VectorStore) -> None:
    put(store, *(chunk(f"common{i}", "amber basalt cedar") for i in range(20)))
    put(store, chunk("rare", "amber juniper"), chunk("long", "juniper " + "basalt cedar " * 30))
    assert found(store, "full_text", query("amber juniper"))[:2] == ["rare", "long"]


def test_full_text_stems_and_ignores_stop_words(store: VectorStore) -> None:
    put(store, chunk("a", "The parsers are parsing arguments"), chunk("b", "the of and"))
    assert found(store, "full_text", query("parse an argument")) == ["a"]


def test_full_text_without_a_language_takes_words_as_they_are(store: VectorStore) -> None:
    store.create("neutral", replace(SCHEMA, language=None))
    chunks = [chunk("a", "the parsers"), chunk("b", "机器学习")]
    store.upsert("neutral", chunks, embed(chunks))
    assert len(store.search("neutral", "full_text", query("the"), 10, None)) == 1
    assert store.search("neutral", "full_text", query("parser"), 10, None) == []
    assert len(store.search("neutral", "full_text", query("学习"), 10, None)) == 1


def test_texts_and_queries_without_words_are_stored_and_find_nothing(store: VectorStore) -> None:
    empty = SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))
    chunks = [chunk("blank", " "), chunk("a", "amber")]
    store.upsert("docs", chunks, replace(embed(chunks), sparse=[empty, sparse("amber")]))
    assert store.count("docs") == 2
    assert found(store, "full_text", query("...")) == []
    assert found(store, "sparse", replace(query("x"), sparse=empty)) == []
    assert set(found(store, "dense", query("amber"))) == {"a", "blank"}


@pytest.mark.parametrize("leg", FINDING_LEGS)
def test_equal_scores_keep_one_order(opener: Opener, leg: Any) -> None:
    store = opener()
    store.create("docs", SCHEMA)
    put(store, *(chunk(f"d{i}", "amber basalt") for i in range(500)))
    first = store.search("docs", leg, query("amber"), 20, None)
    for _ in range(10):
        assert store.search("docs", leg, query("amber"), 20, None) == first
    assert store.search("docs", leg, query("amber"), 300, None)[:20] == first
    store.close()
    store = opener()
    again = store.search("docs", leg, query("amber"), 20, None)
    assert [hit.key for hit in again] == [hit.key for hit in first]
    # An engine may keep vectors in another precision than it was given them.
    assert [hit.score for hit in again] == pytest.approx([hit.score for hit in first], rel=1e-6)
    store.close()


def test_scroll_meets_each_document_once(store: VectorStore) -> None:
    put(store, *(chunk(f"d{i}") for i in range(50)), *pieces_of("long", [f"p{n}" for n in range(70)]))
    met: list[str] = []
    after: str | None = None
    while True:
        page, after = store.scroll("docs", 7, after)
        met += page
        if after is None:
            break
        assert len(page) == 7
    assert len(met) == 51
    assert set(met) == {"long", *(f"d{i}" for i in range(50))}


def test_a_cursor_that_no_scroll_gave_is_refused(store: VectorStore) -> None:
    with pytest.raises(InvalidRequest, match="'page 2'"):
        store.scroll("docs", 10, "page 2")


def test_matching_names_each_document_once(store: VectorStore) -> None:
    several = [replace(c, metadata={"kind": "x"}) for c in pieces_of("long", ["a", "b"])]
    put(store, *several, chunk("short", metadata={"kind": "x"}), chunk("other", metadata={"kind": "y"}))
    assert sorted(store.matching("docs", Equals("kind", "x"))) == ["long", "short"]


Spoil = Callable[[list[Chunk], Embeddings], tuple[Sequence[Chunk], Embeddings]]
MIDDLE = 70
"""In the second engine call of a write of 100."""


def spoil_chunk(**changes: Any) -> Spoil:
    return lambda chunks, embeddings: ([*chunks[:MIDDLE], replace(chunks[MIDDLE], **changes), *chunks[MIDDLE + 1 :]], embeddings)


def spoil_dense(value: float, where: Any = slice(None)) -> Spoil:
    def spoil(chunks: list[Chunk], embeddings: Embeddings) -> tuple[Sequence[Chunk], Embeddings]:
        assert embeddings.dense is not None
        vectors = embeddings.dense.copy()
        vectors[MIDDLE, where] = value
        return chunks, replace(embeddings, dense=vectors)

    return spoil


def spoil_sparse(indices: Sequence[int], values: Sequence[float], dtype: Any = np.uint32) -> Spoil:
    def spoil(chunks: list[Chunk], embeddings: Embeddings) -> tuple[Sequence[Chunk], Embeddings]:
        vectors = list(embeddings.sparse or ())
        vectors[MIDDLE] = SparseVector(np.array(indices, dtype), np.array(values, np.float32))
        return chunks, replace(embeddings, sparse=vectors)

    return spoil


def spoil_tokens(vectors: Float32Array) -> Spoil:
    def spoil(chunks: list[Chunk], embeddings: Embeddings) -> tuple[Sequence[Chunk], Embeddings]:
        found = list(embeddings.multi_vector or ())
        found[MIDDLE] = vectors
        return chunks, replace(embeddings, multi_vector=found)

    return spoil


BAD_WRITES: dict[str, Spoil] = {
    "no id": spoil_chunk(document_id=""),
    "surrogate in the id": spoil_chunk(document_id="\ud800"),
    "surrogate in the text": spoil_chunk(text="a\udfff"),
    "surrogate in a field": spoil_chunk(metadata={"\ud800": 1}),
    "surrogate in a value": spoil_chunk(metadata={"a": "\ud800"}),
    "unnamed field": spoil_chunk(metadata={"": 1}),
    "NaN in metadata": spoil_chunk(metadata={"a": float("nan")}),
    "infinity in a list": spoil_chunk(metadata={"a": [1, float("inf")]}),
    "65 bits": spoil_chunk(metadata={"a": 2**63}),
    "None": spoil_chunk(metadata={"a": None}),
    "object": spoil_chunk(metadata={"a": {"b": 1}}),
    "list in a list": spoil_chunk(metadata={"a": [[1]]}),
    "bytes": spoil_chunk(metadata={"a": b"ab"}),
    "negative chunk": spoil_chunk(n=-1),
    "chunk 0 missing": spoil_chunk(n=1),
    "chunk twice": spoil_chunk(document_id="new0"),
    "end before start": spoil_chunk(start=5, end=1),
    "NaN vector": spoil_dense(float("nan"), 3),
    "infinite vector": spoil_dense(float("inf"), 3),
    "zero vector": spoil_dense(0.0),
    "dimensions": lambda chunks, embeddings: (chunks, replace(embeddings, dense=np.ones((100, DIMENSIONS + 1), np.float32))),
    "no dense": lambda chunks, embeddings: (chunks, replace(embeddings, dense=None)),
    "no sparse": lambda chunks, embeddings: (chunks, replace(embeddings, sparse=None)),
    "a vector too few": lambda chunks, embeddings: (chunks, replace(embeddings, dense=np.ones((99, DIMENSIONS), np.float32))),
    "a text too few": lambda chunks, embeddings: (chunks[:99], embeddings),
    "sparse index twice": spoil_sparse([3, 3], [1, 1]),
    "sparse NaN": spoil_sparse([3, 4], [1, float("nan")]),
    "sparse negative": spoil_sparse([3, 4], [1, -1]),
    "sparse lengths": spoil_sparse([3, 4], [1]),
    "sparse signed": spoil_sparse([3, -4], [1, 1], np.int64),
    "no token vectors": lambda chunks, embeddings: (chunks, replace(embeddings, multi_vector=None)),
    "token vectors of a text too few": lambda chunks, embeddings: (chunks, replace(embeddings, multi_vector=[tokens("x")] * 99)),
    "a text without token vectors": spoil_tokens(np.zeros((0, TOKEN_DIMENSIONS), np.float32)),
    "token dimensions": spoil_tokens(np.ones((2, TOKEN_DIMENSIONS + 1), np.float32)),
    "one token vector, flat": spoil_tokens(np.ones(TOKEN_DIMENSIONS, np.float32)),
    "NaN token vector": spoil_tokens(np.full((2, TOKEN_DIMENSIONS), np.nan, np.float32)),
    "token vector beyond float16": spoil_tokens(np.full((2, TOKEN_DIMENSIONS), 65_520, np.float32)),
}


@pytest.mark.parametrize("case", BAD_WRITES)
def test_a_bad_item_in_the_middle_changes_nothing(store: VectorStore, case: str) -> None:
    put(store, chunk("new3", "amber"), chunk("kept", "basalt"))
    before = everything(store)
    chunks = [chunk(f"new{i}", f"text {i}") for i in range(100)]
    spoiled, embeddings = BAD_WRITES[case](chunks, embed(chunks))
    with pytest.raises(InvalidRequest):
        store.upsert("docs", spoiled, embeddings)
    assert everything(store) == before
    assert found(store, "full_text", query("text")) == []


def test_vectors_of_another_model_are_refused(store: VectorStore) -> None:
    with pytest.raises(FingerprintMismatch, match=r"tiny@1.*tiny@2"):
        store.upsert("docs", [chunk("a")], embed([chunk("a")], "tiny@2"))
    assert store.count("docs") == 0


@pytest.mark.parametrize(
    "vector",
    [
        None,
        np.ones(DIMENSIONS + 1, np.float32),
        np.ones((1, DIMENSIONS), np.float32),
        np.zeros(DIMENSIONS, np.float32),
        np.full(DIMENSIONS, np.nan),
    ],
)
def test_a_dense_query_that_cannot_be_compared_is_refused(store: VectorStore, vector: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        store.search("docs", "dense", Query("x", dense=vector), 10, None)
    assert refused.value.field == "dense"


@pytest.mark.parametrize(
    "vectors",
    [
        None,
        np.zeros((0, TOKEN_DIMENSIONS), np.float32),
        np.ones(TOKEN_DIMENSIONS, np.float32),
        np.ones((2, TOKEN_DIMENSIONS - 1), np.float32),
        np.full((2, TOKEN_DIMENSIONS), np.inf, np.float32),
    ],
)
def test_token_vectors_of_a_query_that_cannot_be_compared_are_refused(store: VectorStore, vectors: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        store.rescore("docs", Query("x", multi_vector=vectors), [])
    assert refused.value.field == "multi_vector"


def test_a_leg_that_the_collection_lacks_is_refused(store: VectorStore) -> None:
    store.create("lexical", CollectionSchema(SCHEMA.fingerprint, None, False, "english"))
    chunks = [chunk("a", "amber")]
    store.upsert("lexical", chunks, embed(chunks))
    for leg in ("dense", "sparse"):
        with pytest.raises(InvalidRequest, match=leg):
            store.search("lexical", leg, query("amber"), 10, None)
    with pytest.raises(InvalidRequest, match="multi_vector") as refused:
        store.rescore("lexical", query("amber"), [])
    assert refused.value.field == "legs"
    exported = store.export("lexical", ["a"])
    assert exported[0] == chunks
    assert exported[1].dense is exported[1].sparse is exported[1].multi_vector is None
    assert len(store.search("lexical", "full_text", query("amber"), 10, None)) == 1


@pytest.mark.parametrize("name", ["", "../escape", "a/b", ".hidden", "-x", "a\n", "ä", "a" * 129, "a b", "@a", "\x00"])
def test_a_name_that_is_none_is_refused(store: VectorStore, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        store.create(name, SCHEMA)
    assert refused.value.field == "collection"
    assert store.collections() == ["docs"]


def test_collections_are_apart(store: VectorStore, opener: Opener) -> None:
    store.create("other", replace(SCHEMA, fingerprint="other@1"))
    put(store, chunk("a"))
    assert store.count("other") == 0
    assert store.collections() == ["docs", "other"]
    with pytest.raises(InvalidRequest, match="exists"):
        store.create("docs", SCHEMA)
    store.drop("other")
    assert store.collections() == ["docs"]
    assert store.schema("other") is None
    store.create("other", SCHEMA)
    assert store.count("other") == 0


class TestAliases:
    def test_an_alias_is_pointed_elsewhere_and_is_there_after_reopening(self, opener: Opener) -> None:
        store = opener()
        for name in ("docs@1", "docs@2"):
            store.create(name, SCHEMA)
        assert store.aliases() == {}
        for alias, collection in (("docs", "docs@1"), ("a.b-c_d@e", "docs@1"), ("docs", "docs@2"), ("gone", "docs@1")):
            store.set_alias(alias, collection)
        store.remove_alias("gone")
        pointed = {"docs": "docs@2", "a.b-c_d@e": "docs@1"}
        assert store.aliases() == pointed
        store.close()
        store = opener()
        assert store.aliases() == pointed
        assert store.collections() == ["docs@1", "docs@2"]
        store.close()

    def test_a_name_is_an_alias_or_a_collection(self, store: VectorStore) -> None:
        store.create("more", SCHEMA)
        store.set_alias("latest", "docs")
        with pytest.raises(Conflict, match="'more' is a collection"):
            store.set_alias("more", "docs")
        with pytest.raises(Conflict, match="'latest' is an alias, of collection 'docs'"):
            store.create("latest", SCHEMA)
        assert (store.aliases(), store.collections()) == ({"latest": "docs"}, ["docs", "more"])

    def test_a_collection_that_an_alias_names_is_not_dropped(self, store: VectorStore) -> None:
        store.set_alias("latest", "docs")
        with pytest.raises(Conflict, match=r"'docs'.*'latest'"):
            store.drop("docs")
        store.remove_alias("latest")
        store.drop("docs")
        assert (store.aliases(), store.collections()) == ({}, [])

    def test_what_is_not_there_is_named(self, store: VectorStore) -> None:
        with pytest.raises(NotFound, match="'none'"):
            store.set_alias("latest", "none")
        with pytest.raises(NotFound, match="'none'"):
            store.remove_alias("none")
        store.set_alias("latest", "docs")
        with pytest.raises(NotFound, match="'latest'"):
            store.set_alias("newest", "latest")
        with pytest.raises(InvalidRequest, match="an alias's name") as refused:
            store.set_alias("../x", "docs")
        assert (refused.value.field, store.aliases()) == ("alias", {"latest": "docs"})


CALLS: dict[str, Callable[[VectorStore], object]] = {
    "drop": lambda s: s.drop("none"),
    "upsert": lambda s: s.upsert("none", [chunk("a")], embed([chunk("a")])),
    "delete": lambda s: s.delete("none", ["a"]),
    "matching": lambda s: s.matching("none", Equals("a", 1)),
    "get": lambda s: s.get("none", ["a"]),
    "content_hashes": lambda s: s.content_hashes("none", ["a"]),
    "scroll": lambda s: s.scroll("none", 1, None),
    "search": lambda s: s.search("none", "dense", query("a"), 1, None),
    "rescore": lambda s: s.rescore("none", query("a"), []),
    "export": lambda s: s.export("none", ["a"]),
    "fetch": lambda s: s.fetch("none", []),
    "count": lambda s: s.count("none"),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_collection_is_named(store: VectorStore, call: str) -> None:
    assert store.schema("none") is None
    with pytest.raises(NotFound, match="'none'"):
        CALLS[call](store)
