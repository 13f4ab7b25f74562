"""A new index beside the old one: made, compared, put in its place and taken back, from the command line and over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import log2
from pathlib import Path
from typing import Any

import httpx
import pytest

from bgeserve import Client
from bgeserve.api import create_app
from bgeserve.cli import main
from bgeserve.cli.compare import overlap
from bgeserve.retrieval import StoreRetriever
from bgeserve.service import SearchService, Service
from bgeserve.settings import IngressSettings, SearchSettings
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import Document
from tests.api.serving import serving
from tests.retrieval.test_index_embedders import Model

CORPUS = {"docs@1": {"d1": "amber", "d2": "amber basalt", "d3": "cedar"}, "docs@2": {"d1": "amber", "d4": "fjord"}}


@contextmanager
def reindexing(path: Path) -> Iterator[str]:
    """A service with docs@1 of the old model and docs@2 of the new one."""
    old, new = Model("old@1"), Model("new@1")
    retriever = StoreRetriever(QdrantEdgeSettings(path=path / "store", create=True, min_free_bytes=2**20))
    searching = SearchService(old, retriever, {}, SearchSettings(), [new])  # type: ignore[arg-type]
    service = Service({"old": old, "new": new}, {}, searching, None)  # type: ignore[arg-type]
    with serving(create_app(service, IngressSettings())) as url, Client(url) as client:
        client.create_collection("docs@2", embedder="new")
        for collection, texts in CORPUS.items():
            client.put_documents([Document(id, text) for id, text in texts.items()], collection=collection)
        yield url
    asyncio.run(retriever.close())


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with reindexing(tmp_path) as url:
        monkeypatch.setenv("BGE_SERVE_URL", url)
        yield url


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """For tests that change nothing in it."""
    with reindexing(tmp_path_factory.mktemp("unchanged")) as url:
        yield url


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 1
    return capsys.readouterr().err


def ids(collection: str) -> set[str]:
    with Client() as client:
        return {document.id for document in client.documents(collection=collection)}


def test_an_index_is_put_in_place_and_taken_back(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert run(capsys, "alias", "docs", "docs@1") == {"alias": "docs", "collection": "docs@1", "before": None}
    assert ids("docs") == set(CORPUS["docs@1"])
    assert main(["alias", "docs", "docs@2"]) == 0
    assert capsys.readouterr().out == "docs is docs@2; it was docs@1\n"
    assert ids("docs") == set(CORPUS["docs@2"])
    assert main(["alias", "docs", "docs@1"]) == 0
    assert ids("docs") == set(CORPUS["docs@1"])
    capsys.readouterr()
    assert run(capsys, "alias", "docs", "--remove")["before"] == "docs@1"
    assert "there is no collection 'docs'" in refused(capsys, "search", "x", "--collection", "docs")


def test_collections_are_listed_with_their_aliases(capsys: pytest.CaptureFixture[str], url: str) -> None:
    run(capsys, "alias", "docs", "docs@2")
    assert main(["collections"]) == 0
    assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] == [
        ["default", "", "0", "ready", ""],
        ["docs@1", "", "3", "ready", "old@1"],
        ["docs@2", "docs", "2", "ready", "new@1"],
    ]
    assert run(capsys, "collections")[2]["aliases"] == ["docs"]


def test_a_collection_is_made_for_an_embedder(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert run(capsys, "create", "docs@3", "--embedder", "new")["fingerprint"] == "new@1"
    assert run(capsys, "create", "more")["fingerprint"] == "old@1"
    assert "'docs@3' is there, for vectors of new@1" in refused(capsys, "create", "docs@3")
    assert "the embedders are ['new', 'old']" in refused(capsys, "create", "docs@4", "--embedder", "none")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("PUT", "/v1/aliases/docs%2F", {"collection": "docs@1"}, 404, "there is nothing at"),
        ("PUT", "/v1/aliases/@docs", {"collection": "docs@1"}, 400, "alias"),
        ("PUT", "/v1/aliases/docs", {"collection": "a b"}, 400, "collection"),
        ("PUT", "/v1/aliases/docs", {}, 400, "collection is required"),
        ("PUT", "/v1/aliases/docs", {"collection": "none"}, 404, "there is no collection 'none'"),
        ("PUT", "/v1/aliases/docs@1", {"collection": "docs@2"}, 409, "'docs@1' is a collection"),
        ("DELETE", "/v1/aliases/none", None, 404, "there is no alias 'none'"),
        ("PUT", "/v1/collections/docs@1", {"embedder": "new"}, 409, "'docs@1' is there, for vectors of old@1"),
        ("PUT", "/v1/collections/docs@1", {"model": "new"}, 400, "model is not a field here"),
        ("GET", "/v1/collections/docs@1/chunks?limit=65", None, 400, "limit"),
        ("GET", "/v1/collections/docs@1/chunks?after=x", None, 400, "after must be the cursor"),
        ("GET", "/v1/collections/none/chunks", None, 404, "there is no collection 'none'"),
    ],
)
def test_what_is_wrong_is_named(unchanged: str, method: str, path: str, body: Any, status: int, said: str) -> None:
    answer = httpx.request(method, unchanged + path, json=body)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dense": "AAA"}, "chunks[0].dense must be base64 of little-endian 4-byte values"),
        ({"dense": "AAAA"}, "chunks[0].dense must be base64 of little-endian 4-byte values"),
        ({"dense": [0.5]}, "chunks[0].dense must be base64 of little-endian 4-byte values, not [0.5]"),
        ({"dense": None}, "chunks[1].dense must be there in every chunk or in none"),
        ({"dense": "AACAPw=="}, "chunks[1].dense must have 1 dimensions, as that of chunks[0], not 8"),
        ({"multi_vector": {"shape": [2, 2], "base64": "AACAPw=="}}, "has 1 values, which cannot have the shape [2, 2]"),
        ({"n": -1}, "chunks[0].n"),
        ({"content_hash": ""}, "chunks[0].content_hash"),
        ({"start": 9, "end": 3}, "ends before it starts"),
        ({"id": "d9", "n": 1}, "must come whole"),
        ({"colour": "blue"}, "chunks[0].colour is not a field here"),
    ],
)
def test_of_chunks_what_is_wrong_is_named_and_nothing_is_stored(unchanged: str, change: dict[str, Any], said: str) -> None:
    page = httpx.get(f"{unchanged}/v1/collections/docs@1/chunks").json()
    chunks = [{**chunk, "sparse": None} for chunk in page["chunks"]]
    body = {"fingerprint": page["fingerprint"], "chunks": [{**chunks[0], **change}, *chunks[1:]]}
    answer = httpx.put(f"{unchanged}/v1/collections/new/chunks", json=body)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), answer.text
    assert httpx.get(f"{unchanged}/v1/collections/new").status_code == 404


class TestCompare:
    @pytest.fixture
    def queries(self, tmp_path: Path) -> str:
        path = tmp_path / "queries.jsonl"
        texts = {"same": "amber", "none": "quartz", "other": "fjord"}
        path.write_text("".join(json.dumps({"_id": id, "text": text}) + "\n" for id, text in texts.items()))
        return str(path)

    def test_what_two_collections_share_and_how_good_each_is(
        self, capsys: pytest.CaptureFixture[str], url: str, queries: str, tmp_path: Path
    ) -> None:
        qrels = tmp_path / "test.tsv"
        qrels.write_text("query-id\tcorpus-id\tscore\nsame\td2\t1\nother\td4\t1\nunasked\td1\t1\n")
        run(capsys, "alias", "docs", "docs@1")
        found = run(capsys, "compare", "docs", "docs@2", "--queries", queries, "--qrels", str(qrels), "--mode", "full_text")
        assert found["queries"] == [
            {"id": "same", "overlap@10": 0.5},
            {"id": "none", "overlap@10": 1},
            {"id": "other", "overlap@10": 0},
        ]
        assert found["overlap@10"] == 0.5
        # d2 is second for "same" in the one, d4 is first for "other" in the other.
        assert found["docs"]["nDCG@10"] == pytest.approx(1 / log2(3) / 2, abs=1e-4)
        assert found["docs@2"]["nDCG@10"] == pytest.approx(1 / 2)

    def test_a_person_sees_where_they_agree_least(self, capsys: pytest.CaptureFixture[str], url: str, queries: str) -> None:
        assert main(["compare", "docs@1", "docs@2", "--queries", queries, "--mode", "full_text"]) == 0
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert lines[:3] == [["other", "fjord", "0.0"], ["same", "amber", "0.5"], ["none", "quartz", "1.0"]]
        assert [line[:2] for line in lines[3:]] == [["docs@1", "0.500"], ["docs@2", "0.500"]]

    def test_judgements_of_other_queries_are_refused(
        self, capsys: pytest.CaptureFixture[str], url: str, queries: str, tmp_path: Path
    ) -> None:
        qrels = tmp_path / "test.tsv"
        qrels.write_text("unasked\td1\t1\n")
        assert "judges none of the queries" in refused(capsys, "compare", "docs@1", "docs@2", "--queries", queries, "--qrels", str(qrels))

    @pytest.mark.parametrize(
        ("one", "other", "share"),
        [
            ("abc", "cba", 1),
            ("abcd", "ab", 0.5),
            ("", "", 1),
            ("", "a", 0),
            ("abcdefghijX", "abcdefghijY", 1),
            ("Xabcdefghij", "abcdefghijX", 0.9),
        ],
    )
    def test_overlap_is_of_the_first_ten(self, one: str, other: str, share: float) -> None:
        assert overlap(list(one), list(other)) == share
