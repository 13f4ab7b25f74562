"""A model that answers calls: tokenise -> queue -> packed forward -> one answer per call, in one process.

Knows which thread does what: the event loop only waits, one thread tokenises, the executor's workers compute. Does not know clusters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Generic, TypeVar

import numpy as np

from bgeserve.executor import Executor
from bgeserve.models.embedder import Row
from bgeserve.models.embedding import load_embedding_model
from bgeserve.models.reranker import load_reranker
from bgeserve.models.runtime import worker_init
from bgeserve.models.scoring import PairScore, Tokenized
from bgeserve.observe import Observer
from bgeserve.settings import EmbedderSettings, ModelSettings, RerankerSettings
from bgeserve.types import EmbedderOptions, Embeddings, InputType, Lane, ModelInfo, Output, RerankerOptions, Scores

WARM_UP_TEXT = "warm-up " * 30
WARM_UP_BATCHES_PER_WORKER = 2


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

    def __init__(self, name: str, settings: EmbedderSettings, observer: Observer | None = None) -> None:
        self._name = name
        self._like = settings.like
        self._model = load_embedding_model(settings)
        self._runner: _Runner[EmbedItem, Row] = _Runner(settings, self._forward, observer)
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
        lane: Lane = "interactive",
        timeout_s: float | None = None,
    ) -> Embeddings:
        self._model.check_outputs(outputs)
        items, rows = await self._runner.run(partial(self._tokenize, texts, outputs, input_type, options, truncate), lane, timeout_s)
        dense = [row.dense for row in rows if row.dense is not None]
        return Embeddings(
            fingerprint=self._model.info.fingerprint,
            tokens=[item.cost for item in items],
            truncated=[item.truncated for item in items],
            dense=np.array(dense, np.float32).reshape(len(dense), self._model.info.dimensions) if "dense" in outputs else None,
            sparse=[row.sparse for row in rows if row.sparse is not None] if "sparse" in outputs else None,
            multi_vector=[row.multi_vector for row in rows if row.multi_vector is not None] if "multi_vector" in outputs else None,
        )

    def check_health(self) -> None:
        """Raises ComputeError when the process should be replaced."""
        self._runner.check_health()

    def close(self) -> None:
        self._runner.close()

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
        self._model, self._rules = load_reranker(settings)
        self._runner: _Runner[Any, PairScore] = _Runner(settings, self._model.forward, observer)
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
        lane: Lane = "interactive",
        timeout_s: float | None = None,
    ) -> Scores:
        tokenize = partial(self._model.tokenize, query, passages, self._rules.resolve(options), truncate)
        items, found = await self._runner.run(tokenize, lane, timeout_s)
        names = found[0].parts if found else ()
        return Scores(
            raw=np.array([pair.score for pair in found], np.float32),
            normalized=np.array([self._model.normalize(pair.score) for pair in found], np.float32),
            tokens=[item.cost for item in items],
            truncated=[item.truncated for item in items],
            parts={name: np.array([pair.parts[name] for pair in found], np.float32) for name in names},
        )

    def check_health(self) -> None:
        """Raises ComputeError when the process should be replaced."""
        self._runner.check_health()

    def close(self) -> None:
        self._runner.close()


T = TypeVar("T", bound=Tokenized)
R = TypeVar("R")


class _Runner(Generic[T, R]):
    """The threads of one model: one that tokenises, so that the workers and the event loop never do, and the executor's."""

    def __init__(self, settings: ModelSettings, compute: Callable[[list[T]], Sequence[R]], observer: Observer | None) -> None:
        self._full_warm_up_tokens = WARM_UP_BATCHES_PER_WORKER * settings.resolved_workers * settings.resolved_max_batch_tokens
        self._tokenizer_thread = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._executor: Executor[T, R] = Executor(
            compute,
            max_batch_tokens=settings.resolved_max_batch_tokens,
            bulk_share=settings.bulk_share,
            max_queue_s=settings.max_queue_s,
            workers=settings.resolved_workers,
            side_by_side=settings.resolved_workers if settings.resolved_device == "cpu" else 1,
            worker_init=partial(worker_init, settings),
            observer=observer,
        )

    def warm_up(self, items: Sequence[T]) -> None:
        """Compute full batches of copies, so that the first caller finds everything warm and the speed is known from the start."""
        copies = [*items] * (self._full_warm_up_tokens // sum(item.cost for item in items) + 1)
        self._executor.submit(copies, [item.cost for item in copies], lane="interactive", deadline=inf).result()

    async def run(self, tokenize: Callable[[], Sequence[T]], lane: Lane, timeout_s: float | None) -> tuple[Sequence[T], list[R]]:
        deadline = inf if timeout_s is None else monotonic() + timeout_s
        items = await asyncio.get_running_loop().run_in_executor(self._tokenizer_thread, tokenize)
        future = self._executor.submit(items, [item.cost for item in items], lane=lane, deadline=deadline)
        return items, await asyncio.wrap_future(future)

    def check_health(self) -> None:
        self._executor.check_health()

    def close(self) -> None:
        self._tokenizer_thread.shutdown(cancel_futures=True)
        self._executor.close()
