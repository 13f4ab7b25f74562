"""Late interaction in numpy: how well a text's token vectors cover a query's. Knows no store and no model.

MaxSim: Khattab and Zaharia, "ColBERT" (SIGIR 2020); the mean over the query's vectors is BGE-M3's (arXiv 2402.03216; FlagEmbedding's
`colbert_score`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from bgeserve.types import Float16Array, Float32Array, TokenVectors

_BLOCK_VECTORS = 1024
_SIGN_AND_MAGNITUDE = np.uint32(0x8FFFFFFF).view(np.int32)
_EXPONENT_SHIFT = np.float32(2.0**112)
"""Between the biases of the two formats' exponents: 127 - 15."""


def max_sim(query: Float32Array, passages: Sequence[Float16Array]) -> Float32Array:
    """Per passage the mean over the query's vectors of the greatest inner product with any of the passage's: float32 [len(passages)].

    query: [vectors, dimensions], rounded to float16 here as the passages were; each passage: [vectors, dimensions], at least one vector,
    finite. Products and sums are in float32.
    """
    columns = as_float16(query).T
    scores = [np.zeros(0, np.float32)]
    for some in _blocks(passages):
        starts = np.cumsum([0, *map(len, some[:-1])])
        products = _widened(np.concatenate(some)) @ columns
        scores.append(np.maximum.reduceat(products, starts, axis=0).mean(axis=1))
    return np.concatenate(scores)


def _blocks(passages: Sequence[Float16Array]) -> Generator[Sequence[Float16Array]]:
    """Whole passages, some vectors at a time: a product for each would wait as often for the threads that share it, one for all would take
    memory."""
    start = vectors = 0
    for end, passage in enumerate(passages):
        if vectors and vectors + len(passage) > _BLOCK_VECTORS:
            yield passages[start:end]
            start, vectors = end, 0
        vectors += len(passage)
    if vectors:
        yield passages[start:]


def as_float16(vectors: TokenVectors) -> Float32Array:
    """float32 of the values that float16 keeps."""
    return vectors.astype(np.float16).astype(np.float32)


def _widened(vectors: Float16Array) -> Float32Array:
    """As float32, of finite values: a third of the time of numpy's own `astype`, which is most of a passage's."""
    bits = vectors.view(np.int16).astype(np.int32)
    # The sign extends over bits 16 to 31: after the shift it is in bit 31, the exponent and fraction where float32 has its own lower ones.
    bits <<= 13
    bits &= _SIGN_AND_MAGNITUDE
    widened = bits.view(np.float32)
    widened *= _EXPONENT_SHIFT
    return widened
