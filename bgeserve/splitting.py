"""Cuts a request into calls of bounded size, so that its work can be spread over replicas and a death loses little of it.

Knows bytes, because whoever splits has no tokenizer; a call should hold about two batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from bgeserve.errors import TextTooLong
from bgeserve.types import Embeddings, Scores, WriteResult

T = TypeVar("T")

BYTES_PER_TOKEN = 4
"""A cautious mean over scripts: English text has about 4.5, Chinese 3, source code 3."""
BATCHES_PER_CALL = 2


def max_call_bytes(max_batch_tokens: int) -> int:
    return BATCHES_PER_CALL * BYTES_PER_TOKEN * max_batch_tokens


def split_by_bytes(texts: Sequence[str], max_bytes: int) -> list[slice]:
    """Slices of consecutive texts that hold at most `max_bytes` each; a text above that is alone. No texts: no slices."""
    slices: list[slice] = []
    start = size = 0
    for i, text in enumerate(texts):
        # len() undercounts what is not ASCII, by as much as such scripts have fewer bytes a token: it is the better guess at tokens.
        if i > start and size + len(text) > max_bytes:
            slices.append(slice(start, i))
            start, size = i, 0
        size += len(text)
    if start < len(texts):
        slices.append(slice(start, len(texts)))
    return slices


@contextmanager
def places_from(start: int) -> Generator[None]:
    """Whoever gets a part counts the texts of the part; whoever asked counts those of the whole."""
    try:
        yield
    except TextTooLong as error:
        raise error if error.index is None else error.at(error.field or "", error.index + start) from None


async def gather_bounded(calls: Sequence[Callable[[], Awaitable[T]]], max_in_flight: int) -> list[T]:
    """Run the calls, at most `max_in_flight` at a time; results in order. The first failure cancels the rest and is raised."""
    semaphore = asyncio.Semaphore(max_in_flight)

    async def bounded(call: Callable[[], Awaitable[T]]) -> T:
        async with semaphore:
            return await call()

    if len(calls) == 1:
        return [await calls[0]()]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bounded(call)) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def concat_embeddings(parts: Sequence[Embeddings]) -> Embeddings:
    """The embeddings of consecutive calls as if of one. Raises ValueError when two models (a rollout in progress) made them."""
    if len(parts) == 1:
        return parts[0]
    fingerprints = {part.fingerprint for part in parts}
    if len(fingerprints) != 1:
        raise ValueError(f"embeddings of different models cannot be one answer: {sorted(fingerprints)}")
    dense = [part.dense for part in parts if part.dense is not None]
    return Embeddings(
        fingerprint=parts[0].fingerprint,
        tokens=[n for part in parts for n in part.tokens],
        truncated=[cut for part in parts for cut in part.truncated],
        dense=np.concatenate(dense) if dense else None,
        sparse=None if parts[0].sparse is None else [vector for part in parts for vector in part.sparse or ()],
        multi_vector=None if parts[0].multi_vector is None else [vectors for part in parts for vectors in part.multi_vector or ()],
        timings_ms=longest_of_each([part.timings_ms for part in parts]),
    )


def select_embeddings(embeddings: Embeddings, rows: Sequence[int]) -> Embeddings:
    """Those of some of the texts."""
    return Embeddings(
        embeddings.fingerprint,
        tokens=[embeddings.tokens[row] for row in rows],
        truncated=[embeddings.truncated[row] for row in rows],
        dense=None if embeddings.dense is None else embeddings.dense[np.asarray(rows, np.intp)],
        sparse=None if embeddings.sparse is None else [embeddings.sparse[row] for row in rows],
        multi_vector=None if embeddings.multi_vector is None else [embeddings.multi_vector[row] for row in rows],
    )


def add_written(one: WriteResult, other: WriteResult) -> WriteResult:
    return WriteResult(
        one.upserted + other.upserted,
        one.unchanged + other.unchanged,
        one.tokens + other.tokens,
        (*one.truncated, *other.truncated),
    )


def concat_scores(parts: Sequence[Scores]) -> Scores:
    """The scores of consecutive calls about one query as if of one."""
    if len(parts) == 1:
        return parts[0]
    return Scores(
        raw=np.concatenate([part.raw for part in parts]),
        normalized=np.concatenate([part.normalized for part in parts]),
        tokens=[n for part in parts for n in part.tokens],
        truncated=[cut for part in parts for cut in part.truncated],
        parts={name: np.concatenate([part.parts[name] for part in parts]) for name in parts[0].parts},
        timings_ms=longest_of_each([part.timings_ms for part in parts]),
        version=parts[0].version,
    )


def longest_of_each(timings_ms: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of calls that ran side by side, per stage what the slowest took."""
    return {
        stage: max(timing.get(stage, 0.0) for timing in timings_ms) for stage in {stage: None for timing in timings_ms for stage in timing}
    }
