"""A model that answers calls: tokenise -> queue -> packed forward -> one answer per call, in one process.

Knows models and what their results are made into. Does not know threads (`batching/runner.py`), nor clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np

from bgeserve.batching.runner import Runner
from bgeserve.caller import ANYONE, Caller
from bgeserve.chunking import Span, chunk_spans, segments
from bgeserve.errors import InvalidRequest
from bgeserve.model_load import ModelLoad
from bgeserve.models.embedder import Row
from bgeserve.models.embedding import EmbeddingModel, load_embedding_model
from bgeserve.models.reranker import load_reranker
from bgeserve.models.scoring import PairScore, Tokenized
from bgeserve.observe import Observer
from bgeserve.scaling import Load
from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.types import Chunking, EmbedderOptions, Embeddings, InputType, ModelInfo, Output, RerankerOptions, Scores

WARM_UP_TEXT = "warm-up " * 30
SEGMENT_CHARACTERS = 2**15


@dataclass(frozen=True, slots=True)
class EmbedItem:
    """One text, and which of its vectors are wanted: texts that want different ones share a forward."""

    sequence: Tokenized
    outputs: Sequence[Output]

    @property
    def cost(self) -> int:
        return self.sequence.cost

    @property
    def truncated(self) -> bool:
        return self.sequence.truncated


class EmbedderEngine:
    """Implements `protocols.Embedder`. Construction raises CheckpointError or SettingsError and ends warm."""

    def __init__(
        self,
        name: str,
        settings: EmbedderSettings,
        observer: Observer | None = None,
        load: Callable[[EmbedderSettings], EmbeddingModel] = load_embedding_model,
    ) -> None:
        self._name = name
        self._like = settings.like
        self._model = load(settings)
        self._runner: Runner[EmbedItem, Row] = Runner(settings, self._forward, observer)
        self._runner.warm_up(self._tokenize([WARM_UP_TEXT], self._model.info.outputs, "document", None, True))

    async def info(self) -> ModelInfo:
        info = self._model.info
        return ModelInfo(
            name=self._name,
            role="embedder",
            model=info.model,
            max_tokens=info.max_tokens,
            outputs=info.outputs,
            dimensions=info.dimensions,
            fingerprint=info.fingerprint,
            family=info.family,
            like=self._like,
            kind=info.pooling,
            options=info.options,
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
        self._model.check_outputs(outputs)
        tokenize = partial(self._tokenize, texts, outputs, input_type, options, truncate)
        items, rows, timings_ms = await self._runner.run(tokenize, caller)
        dense = [row.dense for row in rows if row.dense is not None]
        return Embeddings(
            fingerprint=self._model.info.fingerprint,
            tokens=[item.cost for item in items],
            truncated=[item.truncated for item in items],
            dense=np.array(dense, np.float32).reshape(len(dense), self._model.info.dimensions) if "dense" in outputs else None,
            sparse=[row.sparse for row in rows if row.sparse is not None] if "sparse" in outputs else None,
            multi_vector=[row.multi_vector for row in rows if row.multi_vector is not None] if "multi_vector" in outputs else None,
            timings_ms=timings_ms,
        )

    async def chunk(self, texts: Sequence[str], chunking: Chunking) -> list[list[Span]]:
        max_tokens = self._model.info.max_tokens
        if chunking.max_tokens > max_tokens:
            raise InvalidRequest(f"chunking.max_tokens is {chunking.max_tokens}; {self._model.info.model} takes {max_tokens} tokens")
        return [await self._chunk(text, chunking) for text in texts]

    def load(self) -> Load:
        return self._runner.load()

    async def current_load(self) -> ModelLoad:
        return replace(self._runner.current_load(), name=self._name)

    def check_health(self) -> None:
        """Raises ComputeError when the process should be replaced."""
        self._runner.check_health()

    def close(self) -> None:
        self._runner.close()

    async def _chunk(self, text: str, chunking: Chunking) -> list[Span]:
        tokens: list[Span] = []
        # Piece by piece, so that a query's tokens are not kept waiting by a book's.
        for start, end in segments(text, SEGMENT_CHARACTERS):
            spans = await self._runner.beside(partial(self._model.token_spans, text[start:end]))
            tokens += [(start + first, start + after) for first, after in spans]
        return await self._runner.beside(partial(chunk_spans, text, tokens, chunking.max_tokens, chunking.overlap_tokens))

    def _tokenize(
        self, texts: Sequence[str], outputs: Sequence[Output], input_type: InputType, options: EmbedderOptions | None, truncate: bool
    ) -> list[EmbedItem]:
        return [EmbedItem(sequence, outputs) for sequence in self._model.tokenize(texts, input_type, truncate, options)]

    def _forward(self, items: Sequence[EmbedItem]) -> list[Row]:
        return self._model.forward([item.sequence for item in items], [item.outputs for item in items])


class RerankerEngine:
    """Implements `protocols.Reranker`. Construction raises CheckpointError or SettingsError and ends warm."""

    def __init__(self, name: str, settings: RerankerSettings, observer: Observer | None = None) -> None:
        self._name = name
        self._like = settings.like
        self._version = blake2b(settings.model_dump_json().encode(), digest_size=8).hexdigest()
        self._model, self._rules = load_reranker(settings)
        self._runner: Runner[Any, PairScore] = Runner(settings, self._model.forward, observer)
        self._runner.warm_up(self._model.tokenize("warm-up", [WARM_UP_TEXT], self._rules.resolve(None)))

    async def info(self) -> ModelInfo:
        info = self._model.info
        return ModelInfo(
            name=self._name,
            role="reranker",
            model=info.model,
            max_tokens=info.max_tokens,
            family=info.family,
            like=self._like,
            kind=info.kind,
            options=info.options,
            layers=(info.cutoffs[0], info.cutoffs[-1]) if info.cutoffs else None,
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
        tokenize = partial(self._model.tokenize, query, passages, self._rules.resolve(options), truncate)
        items, found, timings_ms = await self._runner.run(tokenize, caller)
        names = found[0].parts if found else ()
        return Scores(
            raw=np.array([pair.score for pair in found], np.float32),
            normalized=np.array([self._model.normalize(pair.score) for pair in found], np.float32),
            tokens=[item.cost for item in items],
            truncated=[item.truncated for item in items],
            parts={name: np.array([pair.parts[name] for pair in found], np.float32) for name in names},
            timings_ms=timings_ms,
            version=self._version,
        )

    def load(self) -> Load:
        return self._runner.load()

    async def current_load(self) -> ModelLoad:
        return replace(self._runner.current_load(), name=self._name)

    def check_health(self) -> None:
        """Raises ComputeError when the process should be replaced."""
        self._runner.check_health()

    def close(self) -> None:
        self._runner.close()
