"""A whole backend of a few lines: the real Service over deterministic pieces that live in this process.

Words are hashed into 32 dimensions, so texts that share words are near each other; documents live in a dict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from bgeserve.caller import ANYONE, Caller
from bgeserve.errors import BgeServeError, InvalidRequest, NotFound, StaleWrite
from bgeserve.filters import Filter, matches
from bgeserve.fusion import Fusion, fuse
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness, WriteTicket
from bgeserve.service import SearchService, Service
from bgeserve.settings import SearchSettings
from bgeserve.types import (
    Chunk,
    CollectionInfo,
    EmbedderOptions,
    Embeddings,
    Hit,
    InputType,
    Lane,
    Leg,
    ModelInfo,
    ModelStatus,
    Output,
    Query,
    RerankerOptions,
    Scores,
    SparseVector,
)

DIMENSIONS = 32
MAX_TOKENS = 16
LAYERS = (8, 40)
FINGERPRINT = "hashed-words@1/dense/32"


@dataclass
class Switch:
    """What the next calls of a model meet: a delay, failures (each once)."""

    delay_s: float = 0
    failures: list[Exception] = field(default_factory=list)
    started: int = 0
    cancelled: int = 0
    lanes: list[Lane] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    timeouts_s: list[float | None] = field(default_factory=list)
    options: list[Any] = field(default_factory=list)
    load: ModelLoad = field(default_factory=ModelLoad)

    async def meet(self, caller: Caller, options: Any) -> None:
        self.started += 1
        self.options.append(options)
        self.lanes.append(caller.lane)
        self.tenants.append(caller.tenant)
        self.timeouts_s.append(caller.deadline.remaining_s())
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            raise self.failures.pop(0)


def words(text: str) -> list[str]:
    return text.lower().split()


def dense_of(text: str) -> np.ndarray:
    vector = np.zeros(DIMENSIONS, np.float32)
    for word in words(text):
        vector[crc32(word.encode()) % DIMENSIONS] += 1
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def sparse_of(text: str) -> SparseVector:
    weights: dict[int, float] = {}
    for word in words(text):
        weights[crc32(word.encode())] = weights.get(crc32(word.encode()), 0) + 1
    indices = sorted(weights)
    return SparseVector(np.array(indices, np.uint32), np.array([weights[i] for i in indices], np.float32))


def cut(texts: Sequence[str], truncate: bool) -> tuple[list[str], list[bool]]:
    over = [len(words(text)) > MAX_TOKENS for text in texts]
    if any(over) and not truncate:
        raise InvalidRequest(f"input[{over.index(True)}] has more than {MAX_TOKENS} tokens and truncate is false", field="input")
    return [" ".join(words(text)[:MAX_TOKENS]) for text in texts], over


class HashingEmbedder:
    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self.encoded: list[str] = []

    async def current_load(self) -> ModelLoad:
        return self._switch.load

    async def info(self) -> ModelInfo:
        outputs: tuple[Output, ...] = ("dense", "sparse", "multi_vector")
        return ModelInfo(
            *("hashing", "embedder", "hashed-words", MAX_TOKENS, outputs, DIMENSIONS, FINGERPRINT),
            replicas=1,
            family="hash",
            kind="mean",
            options=("instruction",),
        )

    async def encode(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] = ("dense",),
        input_type: InputType = "document",
        options: EmbedderOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Embeddings:
        await self._switch.meet(caller, options)
        if options is not None and options.examples:
            raise InvalidRequest("examples: hashing takes none; its options are: instruction", field="examples")
        if options is not None and options.instruction:
            texts = [f"{options.instruction} {text}" for text in texts]
        self.encoded.extend(texts)
        kept, truncated = cut(texts, truncate)
        return Embeddings(
            FINGERPRINT,
            tokens=[len(words(text)) for text in kept],
            truncated=truncated,
            dense=np.stack([dense_of(text) for text in kept]) if "dense" in outputs else None,
            sparse=[sparse_of(text) for text in kept] if "sparse" in outputs else None,
            multi_vector=[np.stack([dense_of(word) for word in words(text)]) for text in kept] if "multi_vector" in outputs else None,
        )


class OverlapReranker:
    """Score: the share of the query's words that the passage has; of each cutoff layer that share times the layer."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    async def current_load(self) -> ModelLoad:
        return self._switch.load

    async def info(self) -> ModelInfo:
        return ModelInfo(
            *("overlap", "reranker", "word-overlap", MAX_TOKENS),
            replicas=1,
            family="words",
            kind="layerwise",
            options=("instruction", "cutoff_layers"),
            layers=LAYERS,
        )

    async def rerank(
        self,
        query: str,
        passages: Sequence[str],
        *,
        options: RerankerOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Scores:
        await self._switch.meet(caller, options)
        asked = options or RerankerOptions()
        for name in ("prompt", "compress_layers", "compress_ratio", "weights"):
            if getattr(asked, name) is not None:
                raise InvalidRequest(f"{name}: overlap does not take it; its options are: instruction, cutoff_layers", field=name)
        layers = sorted(set(asked.cutoff_layers or ()))
        if wrong := [layer for layer in layers if not LAYERS[0] <= layer <= LAYERS[1]]:
            raise InvalidRequest(f"cutoff_layers must be from {LAYERS[0]} to {LAYERS[1]}, not {wrong[0]}", field="cutoff_layers")
        kept, truncated = cut(passages, truncate)
        wanted = set(words(query))
        share = np.array([len(wanted & set(words(passage))) / len(wanted) for passage in kept], np.float32)
        parts = {f"layer_{layer}": share * layer for layer in layers} if len(layers) > 1 else {}
        raw = share * layers[-1] if layers else 10 * share - 5
        tokens = [len(words(query)) + len(words(passage)) for passage in kept]
        return Scores(raw, share, tokens, truncated, parts)


class DictRetriever:
    def __init__(self) -> None:
        self._collections: dict[str, dict[str, tuple[Chunk, np.ndarray]]] = {}
        self._aliases: dict[str, str] = {}
        self._open: set[int] = set()
        self._sequence = 0

    def _collection(self, name: str) -> dict[str, tuple[Chunk, np.ndarray]]:
        name = self._aliases.get(name, name)
        if name not in self._collections and name != "default":
            raise NotFound(f"there is no collection {name!r}", field="collection")
        return self._collections.get(name, {})

    async def retrieve(
        self,
        collection: str,
        queries: Sequence[Query],
        *,
        fingerprint: str | None,
        legs: Sequence[Leg],
        fusion: Fusion,
        candidates: int,
        limit: int,
        filter: Filter | None = None,
    ) -> list[list[Hit]]:
        stored = {id: row for id, row in self._collection(collection).items() if filter is None or matches(filter, row[0].metadata)}

        def leg_of(leg: Leg, query: Query) -> list[tuple[str, float]]:
            scores = {id: _score(leg, query, chunk, vector) for id, (chunk, vector) in stored.items()}
            return sorted(((id, score) for id, score in scores.items() if score > 0), key=lambda found: (-found[1], found[0]))[:candidates]

        def hits_of(query: Query) -> list[Hit]:
            fused = fuse({leg: leg_of(leg, query) for leg in legs}, fusion)[:limit]
            return [
                Hit(f.key, stored[f.key][0].text, f.score, stored[f.key][0].metadata, {**f.scores, "fused": f.score}, f.ranks)
                for f in fused
            ]

        return [hits_of(query) for query in queries]

    async def begin_write(self, collection: str, fingerprint: str, content_hashes: Mapping[str, str]) -> WriteTicket:
        self._sequence += 1
        self._open.add(self._sequence)
        stored = self._collections.setdefault(collection, {})
        unchanged = frozenset(id for id, hash in content_hashes.items() if id in stored and stored[id][0].content_hash == hash)
        return WriteTicket(self._sequence, unchanged)

    async def finish_write(self, collection: str, ticket: WriteTicket, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        if ticket.sequence not in self._open:
            raise StaleWrite("begin again")
        assert embeddings.dense is not None
        for chunk, vector in zip(chunks, embeddings.dense, strict=True):
            self._collections[collection][chunk.document_id] = (chunk, vector)
        await self.abandon_write(collection, ticket)

    async def abandon_write(self, collection: str, ticket: WriteTicket) -> None:
        self._open.discard(ticket.sequence)

    async def delete(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int:
        stored = self._collection(collection)
        gone = [id for id, (chunk, _) in stored.items() if (ids is not None and id in ids) or (filter and matches(filter, chunk.metadata))]
        for id in gone:
            del stored[id]
        return len(gone)

    async def get(self, collection: str, ids: Sequence[str]) -> list[Chunk]:
        stored = self._collection(collection)
        return [stored[id][0] for id in ids if id in stored]

    async def scroll(self, collection: str, *, limit: int, after: str | None = None) -> tuple[list[Chunk], str | None]:
        stored = self._collection(collection)
        page = [id for id in sorted(stored) if after is None or id > after][: limit + 1]
        return [stored[id][0] for id in page[:limit]], page[limit - 1] if len(page) > limit else None

    async def describe(self, collection: str) -> CollectionInfo:
        stored = self._collection(collection)
        name = self._aliases.get(collection, collection)
        aliases = [alias for alias, target in self._aliases.items() if target == name]
        return CollectionInfo(name, len(stored), FINGERPRINT if stored else None, "ready", ("dense", "full_text"), aliases)

    async def create(self, collection: str, like: Embeddings) -> None:
        self._collections.setdefault(collection, {})

    async def drop(self, collection: str) -> int:
        count = len(self._collection(collection))
        self._collections.pop(collection, None)
        return count

    async def collections(self) -> list[CollectionInfo]:
        return [await self.describe(name) for name in sorted(self._collections)]

    async def aliases(self) -> Mapping[str, str]:
        return dict(self._aliases)

    async def set_alias(self, alias: str, collection: str) -> str | None:
        self._collection(collection)
        before, self._aliases[alias] = self._aliases.get(alias), collection
        return before

    async def remove_alias(self, alias: str) -> str:
        if alias not in self._aliases:
            raise NotFound(f"there is no alias {alias!r}", field="alias")
        return self._aliases.pop(alias)


def _score(leg: Leg, query: Query, chunk: Chunk, vector: np.ndarray) -> float:
    if leg == "full_text":
        return float(len(set(words(query.text)) & set(words(chunk.text))))
    assert leg == "dense"
    assert query.dense is not None
    return float(query.dense @ vector)


class StagedService(Service):
    """Whose replicas are in the states that a test says, and else running."""

    statuses: list[ModelStatus] | None = None

    async def model_statuses(self) -> list[ModelStatus]:
        return await super().model_statuses() if self.statuses is None else self.statuses


class Stage:
    """The service and the switches of its models."""

    def __init__(self) -> None:
        self.embedding = Switch()
        self.reranking = Switch()
        self.readiness: Readiness | BgeServeError = Readiness(ready=True)
        embedder, reranker = HashingEmbedder(self.embedding), OverlapReranker(self.reranking)
        searching = SearchService(embedder, DictRetriever(), {"overlap": reranker}, SearchSettings(rerank_within_s=5))
        self.service = StagedService({"hashing": embedder}, {"overlap": reranker}, searching, self._readiness)

    async def _readiness(self) -> Readiness:
        if isinstance(self.readiness, BgeServeError):
            raise self.readiness
        return self.readiness
