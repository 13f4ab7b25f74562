"""A collection moves from one store to another through two services: what it holds and what it answers stay, and nothing is embedded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bgeserve import Client
from bgeserve.api import create_app
from bgeserve.chunk_file import ChunkFile
from bgeserve.cli import main
from bgeserve.engine import EmbedderEngine
from bgeserve.errors import FingerprintMismatch, InvalidRequest
from bgeserve.protocols import Embedder
from bgeserve.retrieval import StoreRetriever
from bgeserve.service import SearchService, Service
from bgeserve.settings import ChunkSettings, EmbedderSettings, IngressSettings, SearchSettings
from bgeserve.splitting import select_embeddings
from bgeserve.store_settings import MilvusLiteSettings, QdrantEdgeSettings
from bgeserve.types import Document, EmbeddedChunks, Embeddings, Mode
from bgeserve.wire_collections import split_chunks
from tests.api.backend import HashingEmbedder, Switch
from tests.api.serving import serving
from tests.checkpoints import TEXTS, make_bge_m3
from tests.stores.conftest import needs
from tests.test_chunk_file import assert_equal

WORDS = ["amber", "basalt", "cedar", "delta", "ember", "fjord", "granite", "harbor", "iris", "juniper", "kelp", "lava"]
DOCUMENTS = [
    *(Document(f"t{i}", text, {"i": i, "tags": ["a", "b"]}) for i, text in enumerate(TEXTS)),
    *(Document(f"w{i}", " ".join(WORDS[j % 12] for j in range(i, 4 * i, 3)) or "amber", title=f"Words {i}") for i in range(60)),
    Document("long", ". ".join(f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS[:3]) + "."),
]
QUERIES = ["amber basalt", "how do I parse arguments", "fjord harbor iris", "Words 7", TEXTS[0]]
MODES: tuple[Mode, ...] = ("dense", "sparse", "full_text")
Serve = Callable[..., str]


class Counted:
    """A real embedder that remembers what it was asked to embed."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    async def encode(self, texts: list[str], **options: Any) -> Embeddings:
        self.texts += texts
        return await self._embedder.encode(texts, **options)


@pytest.fixture(scope="module")
def m3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    folder = make_bge_m3(tmp_path_factory.mktemp("m3"))
    engine = EmbedderEngine("m3", EmbedderSettings(model=str(folder), dtype="float32", max_queue_s=60))
    yield Counted(engine)
    engine.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a service over that store; answers its URL."""
    with ExitStack() as stack:

        def start(store: Any, embedder: Any, legs: tuple[str, ...] = ("dense", "sparse", "full_text", "multi_vector")) -> str:
            retriever = StoreRetriever(store(path=tmp_path / store.__name__, create=True, min_free_bytes=2**20))
            stack.callback(lambda: asyncio.run(retriever.close()))
            settings = SearchSettings(legs=legs, chunking=ChunkSettings(max_tokens=60, overlap_tokens=10))  # type: ignore[arg-type]
            service = Service({"m": embedder}, {}, SearchService(embedder, retriever, {}, settings), None)  # type: ignore[arg-type]
            return stack.enter_context(serving(create_app(service, IngressSettings())))

        yield start


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_collection_moves_from_qdrant_edge_to_milvus_lite(
    capsys: pytest.CaptureFixture[str], serve: Serve, m3: Counted, tmp_path: Path
) -> None:
    needs("milvus_lite", "milvus")
    edge, milvus = serve(QdrantEdgeSettings, m3), serve(MilvusLiteSettings, m3)
    file = tmp_path / "docs.parquet"
    with Client(edge) as here, Client(milvus) as there:
        here.put_documents(DOCUMENTS, collection="docs@1")
        here.set_alias("docs", "docs@1")
        m3.texts.clear()
        exported = run(capsys, "export", "docs", str(file), "--url", edge)
        assert (exported["collection"], exported["documents"]) == ("docs@1", len(DOCUMENTS))
        assert exported["chunks"] > len(DOCUMENTS) + 5
        imported = run(capsys, "import", str(file), "--collection", "moved", "--url", milvus)
        assert (imported["upserted"], imported["unchanged"]) == (len(DOCUMENTS), 0)
        again = run(capsys, "import", str(file), "--collection", "moved", "--url", milvus)
        assert (again["upserted"], again["unchanged"]) == (0, len(DOCUMENTS))
        assert m3.texts == []
        assert here.collection("docs").fingerprint == there.collection("moved").fingerprint
        # Nor would putting the documents themselves embed anything.
        assert there.put_documents(DOCUMENTS, collection="moved").unchanged == len(DOCUMENTS)
        assert m3.texts == []
        assert {document.id: document for document in there.documents(collection="moved")} == {each.id: each for each in DOCUMENTS}
        for mode in MODES:
            for query in QUERIES:
                found = [
                    [(hit.id, hit.chunk) for hit in client.search(query, collection=name, mode=mode, top_k=10)]
                    for client, name in ((here, "docs"), (there, "moved"))
                ]
                assert found[0] == found[1]
                assert len(found[0]) == 10 or mode == "full_text"


def test_what_is_exported_is_what_was_imported(serve: Serve, m3: Counted, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = serve(QdrantEdgeSettings, m3)
    with Client(url) as client:
        client.put_documents(DOCUMENTS)
        first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
        run(capsys, "export", "default", str(first), "--url", url)
        client.import_chunks(client.export_chunks("default"), collection="copy")
        run(capsys, "export", "copy", str(second), "--url", url)
    pieces = [list(split_chunks(ChunkFile(path).documents())) for path in (first, second)]
    assert len(pieces[0]) == len(pieces[1]) > 0
    for one, other in zip(*pieces, strict=True):
        assert one.embeddings.dense is not None
        assert one.embeddings.sparse is not None
        assert one.embeddings.multi_vector is not None
        assert_equal(one, other)


def test_vectors_of_a_model_that_the_service_has_not_are_refused(
    serve: Serve, m3: Counted, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    edge, other = serve(QdrantEdgeSettings, m3), serve(MilvusLiteSettings, HashingEmbedder(Switch()), ("dense",))
    file = tmp_path / "docs.parquet"
    with Client(edge) as client:
        client.put_documents(DOCUMENTS[:3])
        (page,) = client.export_chunks()
        fingerprint = client.collection().fingerprint
    run(capsys, "export", "default", str(file), "--url", edge)
    assert main(["import", str(file), "--url", other]) == 1
    said = capsys.readouterr().err
    assert fingerprint is not None
    assert fingerprint in said
    assert "hashed-words@1/dense/32" in said
    with Client(other) as client:
        with pytest.raises(FingerprintMismatch):
            client.import_chunks([page])
        assert client.collection().count == 0


def test_what_cannot_be_stored_is_named(serve: Serve, m3: Counted) -> None:
    with Client(serve(QdrantEdgeSettings, m3)) as client:
        client.put_documents([DOCUMENTS[-1]])
        (page,) = client.export_chunks()
        rows = range(1, len(page.chunks))
        beheaded = EmbeddedChunks([page.chunks[row] for row in rows], select_embeddings(page.embeddings, rows))
        with pytest.raises(InvalidRequest, match="'long' must come whole"):
            client.import_chunks([beheaded], collection="other")
        assert "other" not in [info.name for info in client.collections()]


def test_an_empty_collection_is_not_exported(serve: Serve, m3: Counted, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = serve(QdrantEdgeSettings, m3)
    with Client(url) as client:
        client.create_collection("empty")
    for collection, said in (("default", "'default' holds nothing yet"), ("empty", "'empty' has no documents")):
        assert main(["export", collection, str(tmp_path / "docs.parquet"), "--url", url]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "docs.parquet").exists()


def test_without_its_extra_the_command_says_what_to_install(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgeserve.chunk_file.find_spec", lambda name: None)
    for command in (["export", "default", "x"], ["import", "x"]):
        assert main(command) == 1
        assert "pip install pyarrow" in capsys.readouterr().err
