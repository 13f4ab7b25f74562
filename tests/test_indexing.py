"""Writing through the pipeline into a real store: what changed is embedded, what did not is not, and the later of two writes wins."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgeserve.caller import A_JOB
from bgeserve.chunking import Span, chunk_spans
from bgeserve.errors import ComputeError, FingerprintMismatch
from bgeserve.fusion import Fusion
from bgeserve.index_embedders import IndexEmbedders
from bgeserve.indexing import IndexPipeline, documents_of, whole
from bgeserve.protocols import WriteTicket
from bgeserve.retrieval import StoreRetriever
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import Chunk, Chunking, Document, Embeddings, ModelInfo, Query

PUT: dict[str, Any] = {"truncate": True, "caller": A_JOB}


class CountingEmbedder:
    """Vectors from the text's length; each text can be held back, and fail."""

    def __init__(self, fingerprint: str = "model-1") -> None:
        self.fingerprint = fingerprint
        self.embedded: list[str] = []
        self.held: dict[str, asyncio.Event] = {}
        self.begun: dict[str, asyncio.Event] = {}

    def hold(self, text: str) -> None:
        self.held[text], self.begun[text] = asyncio.Event(), asyncio.Event()

    async def info(self) -> ModelInfo:
        return ModelInfo("e", "embedder", "m", 512, fingerprint=self.fingerprint)

    async def chunk(self, texts: Sequence[str], chunking: Chunking) -> list[list[Span]]:
        tokens = [[match.span() for match in re.finditer(r"\w+", text)] for text in texts]
        return [chunk_spans(text, found, chunking.max_tokens, chunking.overlap_tokens) for text, found in zip(texts, tokens, strict=True)]

    async def encode(self, texts: Sequence[str], **options: Any) -> Embeddings:
        for text in texts:
            if text in self.held:
                self.begun[text].set()
                await self.held[text].wait()
            if text == "poison":
                raise ComputeError("poison")
        self.embedded += texts
        dense = np.array([[1.0, len(text)] for text in texts], np.float32)
        dense /= np.linalg.norm(dense, axis=1, keepdims=True)
        tokens = [np.tile(vector, (len(text), 1)) for text, vector in zip(texts, dense, strict=True)]
        return Embeddings(
            self.fingerprint,
            [1] * len(texts),
            [text.startswith("long") for text in texts],
            dense=dense,
            multi_vector=tokens if "multi_vector" in options["outputs"] else None,
        )


@pytest.fixture
async def retriever(tmp_path: Path) -> AsyncGenerator[StoreRetriever]:
    store = StoreRetriever(QdrantEdgeSettings(path=tmp_path / "store", create=True))
    yield store
    await store.close()


async def stored(retriever: StoreRetriever, id: str) -> str | None:
    chunks = await retriever.get("default", [id])
    return chunks[0].text if chunks else None


async def test_a_write_is_stored_and_counted(retriever: StoreRetriever) -> None:
    pipeline = IndexPipeline(IndexEmbedders(CountingEmbedder(), retriever), retriever, ["dense"])
    result = await pipeline.put("default", [Document("a", "one", {"n": 1}), Document("b", "long two")], **PUT)
    assert (result.upserted, result.unchanged, result.tokens, list(result.truncated)) == (2, 0, 2, ["b"])
    assert await stored(retriever, "a") == "one"
    assert (await retriever.describe("default")).state == "ready"


async def test_token_vectors_go_to_the_owner_as_it_keeps_them(retriever: StoreRetriever, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Embeddings] = []
    finish_write = retriever.finish_write

    async def watched(collection: str, ticket: WriteTicket, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        sent.append(embeddings)
        await finish_write(collection, ticket, chunks, embeddings)

    monkeypatch.setattr(retriever, "finish_write", watched)
    await IndexPipeline(IndexEmbedders(CountingEmbedder(), retriever), retriever, ["dense", "multi_vector"]).put(
        "default", [Document("a", "one")], **PUT
    )
    assert [vectors.dtype for vectors in sent[0].multi_vector or ()] == [np.float16]
    assert list((await retriever.describe("default")).legs) == ["dense", "full_text", "multi_vector"]
    asked = Query("one", dense=np.array([1, 0], np.float32), multi_vector=np.array([[1, 0]], np.float32))
    how: dict[str, Any] = {"fingerprint": "model-1", "fusion": Fusion(), "candidates": 5, "limit": 5}
    ((hit,),) = await retriever.retrieve("default", [asked], legs=["dense", "multi_vector"], **how)
    assert hit.scores["multi_vector"] == pytest.approx(1 / 10**0.5, abs=1e-3)


async def test_only_what_changed_is_embedded_again(retriever: StoreRetriever) -> None:
    embedder = CountingEmbedder()
    pipeline = IndexPipeline(IndexEmbedders(embedder, retriever), retriever, ["dense"])
    await pipeline.put("default", [Document("a", "one"), Document("b", "two"), Document("c", "three", {"x": 1})], **PUT)
    embedder.embedded.clear()
    changed = [Document("a", "one"), Document("b", "TWO"), Document("c", "three", {"x": 2}), Document("d", "four")]
    result = await pipeline.put("default", changed, **PUT)
    assert embedder.embedded == ["TWO", "three", "four"]
    assert (result.upserted, result.unchanged) == (3, 1)
    assert (await pipeline.put("default", changed, **PUT)).upserted == 0
    assert len(embedder.embedded) == 3


async def test_the_write_accepted_later_wins_whichever_is_embedded_first(retriever: StoreRetriever) -> None:
    embedder = CountingEmbedder()
    pipeline = IndexPipeline(IndexEmbedders(embedder, retriever), retriever, ["dense"])
    embedder.hold("slow, first")
    first = asyncio.create_task(pipeline.put("default", [Document("a", "slow, first"), Document("b", "first only")], **PUT))
    await embedder.begun["slow, first"].wait()
    await pipeline.put("default", [Document("a", "second")], **PUT)
    embedder.held["slow, first"].set()
    await first
    assert await stored(retriever, "a") == "second"
    assert await stored(retriever, "b") == "first only"


async def test_a_delete_in_between_is_not_undone_by_an_older_write(retriever: StoreRetriever) -> None:
    embedder = CountingEmbedder()
    pipeline = IndexPipeline(IndexEmbedders(embedder, retriever), retriever, ["dense"])
    embedder.hold("slow")
    first = asyncio.create_task(pipeline.put("default", [Document("a", "slow")], **PUT))
    await embedder.begun["slow"].wait()
    await retriever.delete("default", ["a"])
    embedder.held["slow"].set()
    await first
    assert await stored(retriever, "a") is None


async def test_a_later_write_that_fails_does_not_take_the_earlier_one_with_it(retriever: StoreRetriever) -> None:
    embedder = CountingEmbedder()
    pipeline = IndexPipeline(IndexEmbedders(embedder, retriever), retriever, ["dense"])
    embedder.hold("slow")
    first = asyncio.create_task(pipeline.put("default", [Document("a", "slow")], **PUT))
    await embedder.begun["slow"].wait()
    with pytest.raises(ComputeError):
        await pipeline.put("default", [Document("a", "poison")], **PUT)
    embedder.held["slow"].set()
    await first
    assert await stored(retriever, "a") == "slow"
    assert (await retriever.describe("default")).state == "ready"


async def test_an_owner_that_restarted_is_asked_again(tmp_path: Path) -> None:
    settings = QdrantEdgeSettings(path=tmp_path / "store", create=True)

    class Restarting:
        """The owner, replaced by a fresh one between a write's beginning and its end."""

        def __init__(self) -> None:
            self.owner = StoreRetriever(settings)
            self.restarts = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.owner, name)

        async def finish_write(self, collection: str, ticket: WriteTicket, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
            if not self.restarts:
                self.restarts += 1
                await self.owner.close()
                self.owner = StoreRetriever(settings)
            await self.owner.finish_write(collection, ticket, chunks, embeddings)

    retriever = Restarting()
    embedder = CountingEmbedder()
    result = await IndexPipeline(IndexEmbedders(embedder, retriever), retriever, ["dense"]).put("default", [Document("a", "text")], **PUT)  # type: ignore[arg-type]
    assert result.upserted == 1
    assert embedder.embedded == ["text", "text"]
    assert await stored(retriever.owner, "a") == "text"
    await retriever.owner.close()


async def test_another_models_vectors_are_refused(retriever: StoreRetriever) -> None:
    await IndexPipeline(IndexEmbedders(CountingEmbedder("model-1"), retriever), retriever, ["dense"]).put(
        "default", [Document("a", "one")], **PUT
    )
    other = CountingEmbedder("model-2")
    with pytest.raises(FingerprintMismatch, match="model-1"):
        await IndexPipeline(IndexEmbedders(other, retriever), retriever, ["dense"]).put("default", [Document("a", "two")], **PUT)
    assert other.embedded == []
    assert await stored(retriever, "a") == "one"


def test_the_content_hash_is_of_text_and_metadata_and_of_nothing_else() -> None:
    same = whole(Document("a", "text", {"x": 1, "y": [1, 2]})).content_hash
    assert whole(Document("b", "text", {"y": [1, 2], "x": 1})).content_hash == same
    assert whole(Document("a", "text", {"x": 1, "y": [2, 1]})).content_hash != same
    assert whole(Document("a", "text!", {"x": 1, "y": [1, 2]})).content_hash != same
    assert whole(Document("a", "text", {"x": True, "y": [1, 2]})).content_hash != same


async def test_a_title_goes_before_every_chunk_and_is_no_part_of_the_text(retriever: StoreRetriever) -> None:
    embedder = CountingEmbedder()
    pipeline = IndexPipeline(IndexEmbedders(embedder, retriever), retriever, ["dense"], Chunking(max_tokens=6, overlap_tokens=0))
    document = Document("a", LONG, {}, "Numbers")
    await pipeline.put("default", [document], **PUT)
    assert embedder.embedded == ["Numbers\nOne two three. Four five six. ", "Numbers\nSeven eight nine. Ten."]
    assert documents_of(await retriever.get("default", ["a"])) == [document]
    query = Query("numbers")
    how: dict[str, Any] = {"fingerprint": None, "legs": ["full_text"], "fusion": Fusion(), "candidates": 10, "limit": 10}
    ((hit,),) = await retriever.retrieve("default", [query], **how)
    assert (hit.id, hit.title) == ("a", "Numbers")
    assert (await pipeline.put("default", [document], **PUT)).unchanged == 1
    assert (await pipeline.put("default", [Document("a", LONG, {}, "Other")], **PUT)).upserted == 1
    assert await retriever.retrieve("default", [query], **how) == [[]]


LONG = "One two three. Four five six. Seven eight nine. Ten."


async def test_a_long_document_is_stored_in_chunks_and_comes_back_whole(retriever: StoreRetriever) -> None:
    embedder = CountingEmbedder()
    pipeline = IndexPipeline(IndexEmbedders(embedder, retriever), retriever, ["dense"], Chunking(max_tokens=6, overlap_tokens=3))
    result = await pipeline.put("default", [Document("a", LONG, {"x": 1}), Document("b", "short")], **PUT)
    assert (result.upserted, result.tokens) == (2, 4)
    assert embedder.embedded == ["One two three. Four five six. ", "Four five six. Seven eight nine. ", "Seven eight nine. Ten.", "short"]
    chunks = await retriever.get("default", ["a", "b"])
    assert [(chunk.document_id, chunk.n, LONG[chunk.start : chunk.end]) for chunk in chunks[:3]] == [
        ("a", n, text) for n, text in enumerate(embedder.embedded[:3])
    ]
    assert documents_of(chunks) == [Document("a", LONG, {"x": 1}), Document("b", "short")]
    assert (await retriever.describe("default")).count == 2


async def test_pages_hold_whole_documents(retriever: StoreRetriever) -> None:
    pipeline = IndexPipeline(IndexEmbedders(CountingEmbedder(), retriever), retriever, ["dense"], Chunking(max_tokens=6, overlap_tokens=3))
    documents = {f"d{n}": Document(f"d{n}", f"{LONG} {n}") for n in range(7)}
    await pipeline.put("default", list(documents.values()), **PUT)
    found: list[Document] = []
    after: str | None = None
    while True:
        chunks, after = await retriever.scroll("default", limit=3, after=after)
        assert len({chunk.document_id for chunk in chunks}) <= 3
        found += documents_of(chunks)
        if after is None:
            break
    assert {document.id: document for document in found} == documents
    assert len(found) == len(documents)


async def test_unchanged_text_is_embedded_again_only_when_it_is_cut_otherwise(retriever: StoreRetriever) -> None:
    embedder = CountingEmbedder()
    document = Document("a", LONG)
    for chunking, chunks in ((Chunking(6, 3), 3), (Chunking(6, 3), 0), (Chunking(6, 0), 2), (None, 1), (None, 0)):
        embedder.embedded.clear()
        await IndexPipeline(IndexEmbedders(embedder, retriever), retriever, ["dense"], chunking).put("default", [document], **PUT)
        assert len(embedder.embedded) == chunks
    assert [chunk.text for chunk in await retriever.get("default", ["a"])] == [LONG]
