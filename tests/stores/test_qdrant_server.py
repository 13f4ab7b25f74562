"""What only a Qdrant server's store does: whose collections it sees, what it says of a server that it cannot use, what an index needs."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest

from bgeserve.errors import ServiceError, StoreError, Unavailable
from bgeserve.store_settings import QdrantEdgeSettings, QdrantSettings
from bgeserve.stores import open_store
from tests.stores.samples import SCHEMA, chunk, embed, query

if find_spec("qdrant_client") is None:
    pytest.skip("needs bge-serve[qdrant]", allow_module_level=True)

from qdrant_client import QdrantClient, models

from bgeserve.stores.qdrant_server import QdrantStore, connect
from bgeserve.stores.qdrant_server_shard import call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server"


@pytest.fixture
def stranger(path: Path) -> None:
    """Someone else's collection, on the same server."""
    client = QdrantClient(path=str(path))
    vectors = {"dense": models.VectorParams(size=4, distance=models.Distance.DOT)}
    client.create_collection("other_docs", vectors_config=vectors)
    client.create_collection("ours_docs", vectors_config=vectors)
    client.close()


def open_(path: Path, prefix: str = "ours_", language: str | None = "english") -> QdrantStore:
    return QdrantStore(QdrantClient(path=str(path)), prefix, language)


@pytest.mark.usefixtures("stranger")
def test_what_has_not_our_prefix_is_left_alone_and_what_has_must_be_ours(path: Path) -> None:
    with pytest.raises(StoreError, match="'ours_docs' was not made by bge-serve") as refused:
        open_(path)
    assert refused.value.field == "collection_prefix"
    store = open_(path, "more_")
    store.create("docs", SCHEMA)
    assert store.collections() == ["docs"]
    store.close()


def test_another_language_than_the_index_is_refused(path: Path) -> None:
    store = open_(path)
    store.create("docs", SCHEMA)
    store.close()
    with pytest.raises(StoreError, match=r"'german'.*'docs'.*'english'"):
        open_(path, language="german")
    with pytest.raises(StoreError, match="'klingon'"):
        open_(path, language="klingon")


def test_words_weigh_as_in_the_embedded_store(path: Path, tmp_path: Path) -> None:
    chunks = [chunk(f"d{i}", "amber " * (i % 5 + 1) + "basalt " * (i % 3)) for i in range(60)]
    server, edge = open_(path), open_store(QdrantEdgeSettings(path=tmp_path / "edge", create=True))
    answers = []
    for store in (server, edge):
        store.create("docs", SCHEMA)
        for begin in (0, 1, 30):
            some = chunks[begin : {0: 1, 1: 30, 30: 60}[begin]]
            store.upsert("docs", some, embed(some))
        answers.append({hit.key: hit.score for hit in store.search("docs", "full_text", query("amber basalt"), 60, None)})
        store.close()
    assert answers[0] == pytest.approx(answers[1], rel=1e-5)
    assert len(answers[0]) == 60


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match=r"store\.url cannot be used") as refused:
        open_store(QdrantSettings(url="http://127.0.0.1:9", timeout_s=1))
    assert refused.value.field == "url"


@pytest.mark.parametrize(("status", "kind"), [(500, Unavailable), (503, Unavailable), (429, Unavailable), (400, ServiceError)])
def test_a_server_that_fails_is_down_and_one_that_refuses_is_not(status: int, kind: type[ServiceError]) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("retry-after", "1")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        client = connect(QdrantSettings(url=f"http://127.0.0.1:{server.server_port}"))
        with pytest.raises(ServiceError, match="Qdrant failed") as raised:
            call("docs", client.get_collections)
        client.close()
        server.shutdown()
    assert type(raised.value) is kind


def test_a_secret_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QDRANT_KEY", raising=False)
    with pytest.raises(StoreError, match="'QDRANT_KEY', which is not set"):
        open_store(QdrantSettings(url="http://127.0.0.1:9", api_key_env="QDRANT_KEY"))


@pytest.mark.parametrize(("module", "settings"), [("qdrant_client", QdrantSettings(url="http://127.0.0.1:9"))])
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, module: str, settings: QdrantSettings) -> None:
    monkeypatch.setattr("bgeserve.stores.find_spec", lambda name: None if name == module else find_spec(name))
    with pytest.raises(StoreError, match=r"needs qdrant_client: install bge-serve\[qdrant\]"):
        open_store(settings)
