"""From hidden states to vectors: pooling, lexical weights, token vectors. All in float32, over texts that lie end to end.

Knows rows and boundaries. Does not know transformers or texts. The maths is FlagEmbedding's (inference/embedder/encoder_only/base.py and
finetune/embedder/encoder_only/m3/modeling.py; BGE-M3: arXiv 2402.03216).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from bgeserve.catalog import Pooling
from bgeserve.models.packing import PackedBatch
from bgeserve.types import SparseVector

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Hidden states of n texts, one after the other."""

    hidden: Tensor
    """[tokens, hidden size], in the transformer's dtype."""
    ids: Int64Array
    """[tokens]."""
    lengths: Int64Array
    """[n], each at least 1; their sum is `tokens`."""

    @staticmethod
    def select(hidden: Tensor, batch: PackedBatch, wanted: NDArray[np.bool_]) -> TokenRows:
        """The rows of some of a batch's sequences (`wanted`: [n], in packed order)."""
        if wanted.all():
            return TokenRows(hidden, batch.ids, batch.lengths)
        tokens = np.flatnonzero(np.repeat(wanted, batch.lengths))
        return TokenRows(hidden[torch.from_numpy(tokens).to(hidden.device)], batch.ids[tokens], batch.lengths[wanted])

    @property
    def ends(self) -> Int64Array:
        return np.cumsum(self.lengths)

    @property
    def starts(self) -> Int64Array:
        return self.ends - self.lengths

    def at(self, tokens: Int64Array) -> Tensor:
        """float32 [len(tokens), hidden size]."""
        return self.hidden[torch.from_numpy(tokens).to(self.hidden.device)].float()


def pool(rows: TokenRows, pooling: Pooling) -> Tensor:
    """One L2-normalised vector per text: float32 [n, hidden size]."""
    match pooling:
        case "cls":
            pooled = rows.at(rows.starts)
        case "last_token":
            pooled = rows.at(rows.ends - 1)
        case "mean":
            lengths = torch.from_numpy(rows.lengths).to(rows.hidden.device)
            pooled = torch.segment_reduce(rows.hidden.float(), "mean", lengths=lengths)
    return normalize(pooled, dim=-1)


def lexical_weights(rows: TokenRows, linear: nn.Linear, ignored_ids: Sequence[int]) -> list[SparseVector]:
    """Per text the largest relu(linear(h)) of each token id, where it is above 0; never anything as wide as the vocabulary."""
    weights = torch.relu(linear(rows.hidden.float())).squeeze(-1).cpu().numpy()
    text = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    kept = (weights > 0) & ~np.isin(rows.ids, ignored_ids)
    ids, text, weights = rows.ids[kept], text[kept], weights[kept]
    order = np.lexsort((ids, text))
    ids, text, weights = ids[order], text[order], weights[order]
    first = np.flatnonzero(np.diff(ids, prepend=-1) | np.diff(text, prepend=-1))
    largest = np.maximum.reduceat(weights, first) if len(first) else weights
    bounds = np.searchsorted(text[first], np.arange(len(rows.lengths) + 1))
    return [SparseVector(indices=ids[first[a:b]].astype(np.uint32), values=largest[a:b].astype(np.float32)) for a, b in pairwise(bounds)]


def multi_vector(rows: TokenRows, linear: nn.Linear) -> list[Tensor]:
    """Per text linear(h) of every token but the first, L2-normalised: float32 [tokens - 1, dimensions]."""
    inner = np.ones(len(rows.ids), bool)
    inner[rows.starts] = False
    vectors = normalize(linear(rows.at(np.flatnonzero(inner))), dim=-1)
    return list(vectors.split((rows.lengths - 1).tolist()))


def token_vectors(rows: TokenRows) -> list[Tensor]:
    """Per text its hidden states, L2-normalised: float32 [tokens, hidden size]; for encoders that have no multi-vector head."""
    return list(normalize(rows.hidden.float(), dim=-1).split(rows.lengths.tolist()))


def max_sim(query: Tensor, passage: Tensor) -> Tensor:
    """Mean over the query's vectors of the best cosine with any of the passage's: a scalar in [-1, 1]. BGE-M3's late interaction."""
    return (query @ passage.T).amax(dim=1).mean()
