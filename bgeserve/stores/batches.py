"""Calls to an engine of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from bgeserve.types import Embeddings

T = TypeVar("T")

ENGINE_BATCH = 64
"""Items per call, each of which holds the interpreter's lock when the engine is embedded; on Milvus Lite faster than more."""
MAX_NUMBERS = 2**20
"""Of token vectors per call, unless one item has more: as JSON 20 MB, where a Qdrant server takes 32."""


def token_numbers(embeddings: Embeddings, row: int) -> int:
    return 0 if embeddings.multi_vector is None else embeddings.multi_vector[row].size


def batches(items: Iterable[T], numbers: Callable[[T], int] = lambda item: 0) -> Generator[list[T]]:
    """`numbers`: how many an item's token vectors have."""
    some: list[T] = []
    size = 0
    for item in items:
        more = numbers(item)
        if some and (len(some) == ENGINE_BATCH or size + more > MAX_NUMBERS):
            yield some
            some, size = [], 0
        some.append(item)
        size += more
    if some:
        yield some
