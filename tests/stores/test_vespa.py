"""What the Vespa store sends, compared with what Vespa documents, and what it makes of documented answers. No Vespa was asked: that is what
the contract suite does, where VESPA_URL is set.

docs.vespa.ai/en/reference/: api/document-v1.html, schemas/document-json-format.html, api/query.html, querying/yql.html,
ranking/tensor.html, querying/default-result-format.html.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgeserve.errors import BgeServeError, InvalidRequest, ServiceError, StorageFull, StoreError, Unavailable
from bgeserve.filters import And, Equals, Filter, In, Not, Or, Range
from bgeserve.store_settings import VespaSettings
from bgeserve.stores import open_store
from bgeserve.stores.bm25 import WordSplitter
from bgeserve.stores.keys import chunk_key, document_key
from bgeserve.stores.ranges import range_terms
from bgeserve.stores.terms import term
from bgeserve.types import Chunk, Embeddings, Query, SparseVector
from bgeserve.vector_store import CollectionSchema, VectorStore
from tests.stores.recorder import Recorder, hits, recorder

if find_spec("vespa") is None:
    pytest.skip("needs bge-serve[vespa]", allow_module_level=True)

from bgeserve.stores.vespa_documents import place_of, whole_weights
from bgeserve.stores.vespa_filter import expression

SCHEMA = CollectionSchema("tiny@1", 2, has_sparse=True, language=None, token_dimensions=2)
TYPE = "bge_chunk_dense2_sparse_tokens2"
MINE = 'collection in ("dd36a9f65109ffcfc21cff99b8721821")'
CHUNK = Chunk("a/ä", 0, 0, 11, "amber\x00amber", {"kind": "x"}, "hash", "basalt")
SPARSE = SparseVector(np.array([7, 4294967295], np.uint32), np.array([0.5, 2.25], np.float32))
QUERY = Query(
    "amber basalt amber",
    dense=np.array([0.6, -0.8], np.float32),
    sparse=SPARSE,
    multi_vector=np.array([[1, 0], [0.6, 0.8]], np.float32),
)
EXAMPLES = Embeddings(
    "tiny@1",
    [1],
    [False],
    dense=np.array([[0.6, -0.8]], np.float32),
    sparse=[SPARSE],
    multi_vector=[np.array([[1, 0], [0.6, 0.8]], np.float32)],
)


DENSE = {"dense": "[0.6000000238418579, -0.800000011920929]"}
WEIGHTS = {"sparse": "{7:0.5,4294967295:2.25}"}


@pytest.fixture
def vespa() -> Iterator[Recorder]:
    with recorder() as found:
        yield found


def settings(vespa: Recorder, **changes: Any) -> VespaSettings:
    return VespaSettings(**{"url": vespa.url, "language": None, "exact": True, **changes})


@pytest.fixture
def store(vespa: Recorder) -> Iterator[VectorStore]:
    store = open_store(settings(vespa))
    store.create("docs", SCHEMA)
    vespa.requests.clear()
    yield store
    store.close()


def code(word: str) -> str:
    """Of a word, as the full-text leg of every store has it."""
    (found,) = WordSplitter(None).words(word)
    return found


def test_a_chunk_is_put_as_a_document(vespa: Recorder, store: VectorStore) -> None:
    store.upsert("docs", [CHUNK], EXAMPLES)
    (put,) = vespa.sent("POST", "/document/v1/")
    key = chunk_key(CHUNK)
    assert put.path == f"/document/v1/bge_serve_docs/{TYPE}/docid/{key}"
    assert put.parameters == {"timeout": "10000ms"}
    fields = put.body["fields"]
    amber, basalt = code("amber"), code("basalt")
    assert sorted(fields.pop("words")) == sorted([basalt, amber, amber])
    record = fields.pop("record")
    assert record.isascii()
    assert record.isprintable()
    assert json.loads(record) == asdict(CHUNK)
    assert fields == {
        "collection": "dd36a9f65109ffcfc21cff99b8721821",
        "key": key,
        "document_key": document_key("a/ä"),
        "place": int(key, 16) >> 65,
        "n": 0,
        "terms": [term("kind", "x")],
        "dense": {"values": "3F19999ABF4CCCCD"},
        "weights": {"7": 32768, "4294967295": 147456},
        "sparse": {"7": 0.5, "4294967295": 2.25},
        # Rounded to float16: 0.6 is 0.60009765625, 0.8 is 0.7998046875.
        "multi_vector": {"0": "3F80000000000000", "1": "3F19A0003F4CC000"},
    }


def test_hexadecimal_cells_are_as_documented(vespa: Recorder, store: VectorStore) -> None:
    store.upsert("docs", [CHUNK], EXAMPLES)
    (put,) = vespa.sent("POST", "/document/v1/")
    # The conversion of document-json-format.html#tensor-hex-dump.
    documented = [format(struct.unpack("=I", struct.pack("=f", number))[0], "08X") for number in (0.6, -0.8)]
    assert put.body["fields"]["dense"] == {"values": "".join(documented)}


def test_what_is_empty_is_not_sent(vespa: Recorder, store: VectorStore) -> None:
    empty = replace(EXAMPLES, sparse=[SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))])
    store.upsert("docs", [replace(CHUNK, text="...", title="", metadata={})], empty)
    (put,) = vespa.sent("POST", "/document/v1/")
    assert not {"words", "terms", "weights", "sparse"} & put.body["fields"].keys()


def test_the_first_chunk_is_put_last_and_surplus_ones_are_removed(vespa: Recorder, store: VectorStore) -> None:
    chunks = [replace(CHUNK, n=n) for n in range(3)]
    dense, tokens = np.array([[0.6, -0.8]] * 3, np.float32), [np.array([[1, 0]], np.float32)] * 3
    thrice = Embeddings("tiny@1", [1] * 3, [False] * 3, dense, [SPARSE] * 3, tokens)
    old = {"key": chunk_key(replace(CHUNK, n=3)), "document_key": document_key("a/ä")}
    vespa.searches.append(hits(*({"key": chunk_key(chunk), "document_key": old["document_key"]} for chunk in chunks), old))
    store.upsert("docs", chunks, thrice)
    puts = [request.body["fields"]["n"] for request in vespa.requests if request.method == "POST" and request.path != "/search/"]
    assert (sorted(puts), puts[-1]) == ([0, 1, 2], 0)
    assert [request.path for request in vespa.sent("DELETE")] == [f"/document/v1/bge_serve_docs/{TYPE}/docid/{old['key']}"]


@pytest.mark.parametrize(
    ("leg", "exact", "where", "inputs"),
    [
        ("dense", True, "({targetHits:26,approximate:false}nearestNeighbor(dense, dense))", DENSE),
        ("dense", False, "({targetHits:26,approximate:true}nearestNeighbor(dense, dense))", DENSE),
        ("sparse", True, "dotProduct(weights, @weights)", WEIGHTS),
        ("sparse", False, "({targetHits:26}wand(weights, @weights))", WEIGHTS),
        ("full_text", True, '(words contains "AMBER" or words contains "BASALT")', {}),
        ("full_text", False, '({targetHits:26}weakAnd(words contains "AMBER", words contains "BASALT"))', {}),
    ],
)
def test_a_leg_is_one_query(vespa: Recorder, leg: Any, exact: bool, where: str, inputs: dict[str, str]) -> None:
    store = open_store(settings(vespa, exact=exact))
    store.create("docs", SCHEMA)
    vespa.searched()
    vespa.searches.append(hits({"key": "b", "relevance": 0.5}, {"key": "c", "relevance": 2.5}, {"key": "a", "relevance": 0.5}))
    found = store.search("docs", leg, QUERY, 10, Equals("kind", "x"))
    assert [(hit.key, hit.score) for hit in found] == [("c", 2.5), ("a", 0.5), ("b", 0.5)]
    (body,) = vespa.searched()
    where = where.replace("AMBER", code("amber")).replace("BASALT", code("basalt"))
    weights = {"weights": "{7:32768,4294967295:147456}"} if leg == "sparse" else {}
    assert body == {
        "yql": f'select * from sources * where ({where} and terms in ("{term("kind", "x")}") and {MINE})',
        "model.restrict": TYPE,
        "ranking.profile": leg,
        "presentation.summary": "keys",
        "presentation.format.tensors": "short-value",
        "hits": 26,
        "timeout": "10000ms",
        "ranking.softtimeout.enable": False,
        **{f"input.query({name})": value for name, value in inputs.items()},
        **weights,
    }
    store.close()


def test_rescoring_ranks_the_given_keys_by_a_mean_over_the_querys_vectors(vespa: Recorder, store: VectorStore) -> None:
    vespa.searches.append(hits({"key": "aa", "relevance": 1.5}, {"key": "bb", "relevance": 1.0}))
    found = store.rescore("docs", QUERY, ["bb", "aa", "cc"])
    assert [(hit.key, hit.score) for hit in found] == [("aa", 0.75), ("bb", 0.5)]
    (body,) = vespa.searched()
    assert body["yql"] == f'select * from sources * where (key in ("bb","aa","cc") and {MINE})'
    assert (body["ranking.profile"], body["hits"]) == ("multi_vector", 3)
    assert body["input.query(multi_vector)"] == "{0:[1.0, 0.0],1:[0.60009765625, 0.7998046875]}"


def test_documents_come_back_page_by_page(vespa: Recorder, store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgeserve.stores.vespa_collection.PAGE", 2)
    chunks = [replace(CHUNK, n=n) for n in range(3)]
    rows = [{"key": chunk_key(chunk), "record": json.dumps(asdict(chunk))} for chunk in chunks]
    # The second page begins with the last of the first.
    vespa.searches += [hits(*rows[:2]), hits(*rows[1:]), hits(rows[2])]
    assert store.get("docs", ["a/ä"]) == chunks
    bodies = vespa.searched()
    place = int(chunk_key(CHUNK), 16) >> 65
    these = f'{MINE} and document_key in ("{document_key("a/ä")}")'
    order = "order by place asc, n asc"
    assert [body["yql"].removeprefix("select * from sources * where ") for body in bodies] == [
        f"({these}) {order}",
        *(f"({these} and (place > {place}L or (place = {place}L and n >= {n}L))) {order}" for n in (1, 2)),
    ]
    for body in bodies:
        wanted = {"ranking.profile": "unranked", "sorting.degrading": False, "presentation.summary": "chunks", "hits": 2}
        assert {name: body[name] for name in wanted} == wanted


def test_vectors_come_back_as_they_were_sent(vespa: Recorder, store: VectorStore) -> None:
    row = {"key": chunk_key(CHUNK), "record": json.dumps(asdict(CHUNK))}
    sparse, tokens = {"4294967295": 2.25, "7": 0.5}, {"10": [0.25, 0.5], "2": [1.0, 0.0]}
    vespa.searches.append(hits({**row, "dense": [0.6000000238418579, -0.800000011920929], "sparse": sparse, "multi_vector": tokens}))
    chunks, vectors = store.export("docs", ["a/ä"])
    assert chunks == [CHUNK]
    assert vectors.dense is not None
    assert vectors.sparse is not None
    assert vectors.multi_vector is not None
    np.testing.assert_array_equal(vectors.dense, EXAMPLES.dense)
    np.testing.assert_array_equal(vectors.sparse[0].indices, SPARSE.indices)
    np.testing.assert_array_equal(vectors.sparse[0].values, SPARSE.values)
    np.testing.assert_array_equal(vectors.multi_vector[0], np.array([[1, 0], [0.25, 0.5]], np.float32))
    (body,) = vespa.searched()
    assert body["presentation.summary"] == "vectors"


def test_documents_are_counted_by_their_first_chunks(vespa: Recorder, store: VectorStore) -> None:
    vespa.searches.append(hits(total=1234))
    assert store.count("docs") == 1234
    (body,) = vespa.searched()
    assert (body["yql"], body["hits"]) == (f"select * from sources * where ({MINE} and n = 0)", 0)


def test_collections_and_aliases_are_documents_that_are_found_again(vespa: Recorder) -> None:
    store = open_store(settings(vespa))
    store.create("docs@2", SCHEMA)
    store.set_alias("docs", "docs@2")
    collection, alias = vespa.sent("POST", "/document/v1/")
    store.close()
    assert collection.path == "/document/v1/bge_serve_/bge_catalogue/docid/collection.docs%402"
    assert alias.path == "/document/v1/bge_serve_/bge_catalogue/docid/alias.docs"
    vespa.searches.append(hits(*({"record": put.body["fields"]["record"]} for put in (alias, collection))))
    again = open_store(settings(vespa))
    (body,) = vespa.searched()
    assert body["yql"] == f'select * from sources * where service in ("{collection.body["fields"]["service"]}")'
    assert (body["model.restrict"], body["presentation.summary"], body["hits"]) == ("bge_catalogue", "records", 10_000)
    assert (again.collections(), again.schema("docs@2"), dict(again.aliases())) == (["docs@2"], SCHEMA, {"docs": "docs@2"})
    again.remove_alias("docs")
    again.drop("docs@2")
    assert [(request.path, request.parameters.get("selection"), request.parameters.get("cluster")) for request in vespa.sent("DELETE")] == [
        ("/document/v1/bge_serve_/bge_catalogue/docid/alias.docs", None, None),
        (f"/document/v1/bge_serve_docs@2/{TYPE}/docid/", "true", "bgeserve_content"),
        ("/document/v1/bge_serve_/bge_catalogue/docid/collection.docs%402", None, None),
    ]
    again.close()


def test_an_application_without_our_types_is_refused(vespa: Recorder) -> None:
    answers = {"bge_catalogue": 404, TYPE: 400}
    message = "Document type bge_chunk does not exist"
    vespa.documents = lambda request: (answers[request.path.split("/")[4]], {"pathId": request.path, "message": message})
    store = open_store(settings(vespa))
    with pytest.raises(ServiceError, match=f"no document type '{TYPE}': write the package with `bge-serve vespa-package`"):
        store.create("docs", SCHEMA)
    store.close()
    answers["bge_catalogue"] = 400
    with pytest.raises(StoreError, match="no document type 'bge_catalogue'") as refused:
        open_store(settings(vespa))
    assert refused.value.field == "url"


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((507, {"message": "out of disk"}), StorageFull, "out of disk"),
        ((503, {"message": "no node"}), Unavailable, "no node"),
        ((504, {"message": "late"}), Unavailable, "late"),
        ((400, {"message": "no such field"}), ServiceError, "no such field"),
        ((404, {"message": "not here"}), ServiceError, "not here"),
        ((404, "<html>"), ServiceError, "what answered is no Vespa"),
    ],
)
def test_a_write_that_fails_is_named(
    vespa: Recorder, store: VectorStore, answer: tuple[int, Any], error: type[BgeServeError], message: str
) -> None:
    vespa.documents = lambda request: answer
    with pytest.raises(error, match=message) as caught:
        store.upsert("docs", [CHUNK], EXAMPLES)
    assert type(caught.value) is error


def test_an_answer_from_a_part_of_what_is_stored_is_no_answer(vespa: Recorder, store: VectorStore) -> None:
    degraded = {"coverage": 50, "documents": 1, "full": False, "degraded": {"timeout": True}}
    vespa.searches.append(hits({"key": "a"}, coverage=degraded))
    with pytest.raises(Unavailable, match="searched a part"):
        store.search("docs", "dense", QUERY, 10, None)
    error = {"code": 8, "summary": "Error in search reply", "message": "no such rank profile"}
    vespa.searches.append((200, {"root": {"id": "toplevel", "relevance": 1.0, "errors": [error]}}))
    with pytest.raises(ServiceError, match="no such rank profile"):
        store.search("docs", "dense", QUERY, 10, None)


def test_a_write_is_tried_again_when_vespa_has_too_many_in_hand(vespa: Recorder, store: VectorStore) -> None:
    answers = iter([(429, {"message": "too many"})])
    vespa.documents = lambda request: next(answers, (200, {"pathId": request.path, "id": "id:ns:type::id"}))
    store.upsert("docs", [CHUNK], EXAMPLES)
    assert len(vespa.sent("POST", "/document/v1/")) == 2
    vespa.searches += [(429, {"message": "too many"})]
    with pytest.raises(Unavailable, match="too many"):
        store.count("docs")


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match=r"store\.url http://127\.0\.0\.1:9 cannot be used: Vespa does not answer") as refused:
        open_store(VespaSettings(url="http://127.0.0.1:9", timeout_s=1))
    assert refused.value.field == "url"


def test_a_token_is_sent_and_secrets_that_are_not_there_are_named(vespa: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VESPA_TOKEN", "secret")
    open_store(settings(vespa, token_env="VESPA_TOKEN")).close()
    assert {request.headers["authorization"] for request in vespa.requests} == {"Bearer secret"}
    monkeypatch.delenv("VESPA_TOKEN")
    with pytest.raises(StoreError, match="'VESPA_TOKEN', which is not set"):
        open_store(settings(vespa, token_env="VESPA_TOKEN"))
    with pytest.raises(StoreError, match=r"store\.certificate names the file .*none\.pem, which is not here"):
        open_store(settings(vespa, certificate=tmp_path / "none.pem"))
    (tmp_path / "client.pem").write_text("no certificate")
    with pytest.raises(StoreError, match=r"store\.certificate .*client\.pem, with its key, is not what PEM files hold"):
        open_store(settings(vespa, certificate=tmp_path / "client.pem"))


def test_a_bad_write_is_refused_before_anything_is_sent(vespa: Recorder, store: VectorStore) -> None:
    with pytest.raises(InvalidRequest):
        store.upsert("docs", [replace(CHUNK, metadata={"a": float("nan")})], EXAMPLES)
    assert vespa.requests == []


X, Y = f'terms in ("{term("a", "x")}")', f'terms in ("{term("b", 1)}")'
RANGE = Range("a", gte=1.0, lt=1.0000000000000002)


@pytest.mark.parametrize(
    ("filter", "yql"),
    [
        (Equals("a", "x"), X),
        (In("a", ("x", True)), f'terms in ("{term("a", "x")}","{term("a", True)}")'),
        (In("a", ()), "false"),
        (And((Equals("a", "x"), Equals("b", 1))), f"({X} and {Y})"),
        (And(()), "true"),
        (Or((Equals("a", "x"), Equals("b", 1))), f"({X} or {Y})"),
        (Or(()), "false"),
        (Not(Equals("a", "x")), f"(true and !({X}))"),
        (Or((Not(Equals("a", "x")), Equals("b", 1))), f"((true and !({X})) or {Y})"),
        (Not(And(())), "(true and !(true))"),
        (RANGE, f'terms in ("{range_terms(RANGE)[0]}")'),
        (Range("a", gt=2, lt=1), "false"),
    ],
)
def test_a_filter_in_yql(filter: Filter, yql: str) -> None:
    assert expression(filter) == yql


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(0, 2**32 - 1)), max_size=20))
def test_places_and_numbers_are_in_the_order_of_keys(chunks: list[tuple[str, int]]) -> None:
    keys = {chunk_key(replace(CHUNK, document_id=id, n=n)): n for id, n in chunks}
    assert sorted(keys) == sorted(keys, key=lambda key: (place_of(key), keys[key]))
    assert all(0 <= place_of(key) < 2**63 for key in keys)


def test_whole_weights_keep_what_is_tiny_or_huge() -> None:
    vector = SparseVector(np.arange(3, dtype=np.uint32), np.array([1e-9, 0.1, 1e30], np.float32))
    assert whole_weights(vector) == {"0": 1, "1": 6554, "2": 2**31 - 1}
