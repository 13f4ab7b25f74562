"""A model at work for a while: its worker threads, kept busy with full batches of ragged real texts, and how fast they were.

Knows models, threads and the rule that forms batches from backlog. Does not know what is compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from threading import Barrier, Lock
from time import perf_counter
from types import TracebackType
from typing import Any

import torch

from bgeserve.errors import InvalidRequest
from bgeserve.models.embedding import load_embedding_model
from bgeserve.models.reranker import load_reranker
from bgeserve.models.runtime import worker_init
from bgeserve.models.scoring import Tokenized
from bgeserve.settings import EmbedderSettings, ModelSettings, RerankerSettings
from bgeserve.sources import read_documents
from bgeserve.types import titled

SAMPLE_TEXTS = 4000
PASSAGES_PER_QUERY = 10
QUERY_WORDS = 10

Forward = Callable[[list[Any]], object]


class OutOfMemory(Exception):
    """A batch did not fit in the device's memory."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A loaded model, and the inputs that it is measured on, in the order of their arrival."""

    settings: ModelSettings
    forward: Forward
    items: Sequence[Tokenized]

    def items_from(self, part: float) -> list[Tokenized]:
        """All of them, beginning at that part (0 to 1): the same batches again would be of sizes that are compiled for already."""
        start = int(part * len(self.items)) % len(self.items)
        return [*self.items[start:], *self.items[:start]]


@dataclass(frozen=True, slots=True)
class Run:
    tokens_per_s: float
    """Of all workers together."""
    batch_s: float
    """Median over the batches, while the other workers compute theirs."""


def sample_texts(source: str) -> list[str]:
    """Some of a source's texts, shuffled, because neighbours in a corpus resemble each other; the same ones every time.

    Raises InvalidRequest: not a source, or an empty one.
    """
    texts = [titled(document.title, document.text) for document in read_documents(source)]
    if not texts:
        raise InvalidRequest(f"{source} has no texts", field="source")
    random.Random(0).shuffle(texts)
    return texts[:SAMPLE_TEXTS]


def load_workload(settings: EmbedderSettings | RerankerSettings, texts: Sequence[str]) -> Workload:
    """An embedder gives every output that it has; a reranker scores each text with a few words of another. Raises StartupError."""
    if isinstance(settings, EmbedderSettings):
        model = load_embedding_model(settings)
        outputs = model.info.outputs
        return Workload(settings, lambda items: model.forward(items, [outputs] * len(items)), model.tokenize(texts))
    scorer, rules = load_reranker(settings)
    options = rules.resolve(None)
    pairs: list[Tokenized] = []
    for i in range(0, len(texts), PASSAGES_PER_QUERY):
        query = " ".join(texts[i - 1].split()[:QUERY_WORDS])
        pairs += scorer.tokenize(query, texts[i : i + PASSAGES_PER_QUERY], options)
    return Workload(settings, scorer.forward, pairs)


def batches(items: Iterable[Tokenized], max_batch_tokens: int) -> Iterator[list[Tokenized]]:
    """Without end, as `batching.batch_queue` forms them from a backlog: in the order of arrival, and an item above the budget alone."""
    batch: list[Tokenized] = []
    tokens = 0
    for item in cycle(items):
        if batch and tokens + item.cost > max_batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(item)
        tokens += item.cost


class Workers:
    """The worker threads that a replica of these settings has: they share the weights, and each takes the next batch when it is done."""

    def __init__(self, settings: ModelSettings, forward: Forward) -> None:
        self._count = settings.resolved_workers
        self._forward = forward
        self._threads = ThreadPoolExecutor(self._count, "measured", initializer=worker_init, initargs=(settings,))
        self._next = Lock()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._threads.shutdown()

    def run(self, batches: Iterator[list[Tokenized]], seconds: float) -> Run:
        """Keep every worker busy for so long, or for one batch if that takes longer. Raises OutOfMemory."""
        start = Barrier(self._count)
        futures = [self._threads.submit(self._work, start, batches, seconds) for _ in range(self._count)]
        try:
            done = [future.result() for future in futures]
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
        else:
            rate = sum(sum(tokens for tokens, _ in one) / sum(took_s for _, took_s in one) for one in done)
            return Run(rate, median(took_s for one in done for _, took_s in one))
        # Only here is the error gone, and with it the tensors that its frames hold.
        del futures
        torch.cuda.empty_cache()
        raise OutOfMemory

    def _work(self, start: Barrier, batches: Iterator[list[Tokenized]], seconds: float) -> list[tuple[int, float]]:
        """Tokens and seconds of each batch. All begin together: a worker that had the machine to itself would seem faster."""
        start.wait()
        ends = perf_counter() + seconds
        done: list[tuple[int, float]] = []
        while not done or perf_counter() < ends:
            with self._next:
                batch = next(batches)
            began = perf_counter()
            self._forward(batch)
            done.append((sum(item.cost for item in batch), perf_counter() - began))
        return done


def _is_out_of_memory(error: Exception) -> bool:
    """A GPU's allocator has an error of its own; a CPU's says it in a RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
