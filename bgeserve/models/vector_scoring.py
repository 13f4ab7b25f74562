"""Reranking by an embedder's vectors: its token vectors alone (late interaction), or BGE-M3's three scores and their weighted sum (hybrid).

No training for reranking is needed, so any encoder can do the first. The maths is FlagEmbedding's (inference/embedder/encoder_only/m3.py,
compute_score; BGE-M3: arXiv 2402.03216).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bgeserve.errors import SettingsError
from bgeserve.models import heads
from bgeserve.models.embedder import PackedEmbedder, Row, load_embedder_of
from bgeserve.models.scoring import PairScore, RerankerInfo
from bgeserve.models.tokenizing import TokenSequence
from bgeserve.settings import RerankerSettings
from bgeserve.types import OUTPUTS, Output, RerankerOptions, SparseVector

EQUAL_WEIGHTS: Mapping[Output, float] = dict.fromkeys(OUTPUTS, 1.0)


@dataclass(frozen=True, slots=True)
class TwoTexts:
    """One passage, and the query that it shares with the other passages of its call."""

    query: TokenSequence
    passage: TokenSequence
    weights: Mapping[Output, float]
    """Of a hybrid score."""

    @property
    def truncated(self) -> bool:
        return self.query.truncated or self.passage.truncated

    @property
    def cost(self) -> int:
        """Most tokens that it adds to a batch: a query is computed once for all its passages in the batch, so usually fewer."""
        return self.query.cost + self.passage.cost


class _VectorScorer:
    def __init__(self, embedder: PackedEmbedder, info: RerankerInfo) -> None:
        self.info = info
        self.tokenizer = embedder.tokenizer
        self._embedder = embedder

    def tokenize(self, query: str, passages: Sequence[str], options: RerankerOptions, truncate: bool = True) -> list[TwoTexts]:
        """The query stands without its instruction, whose tokens would vote in MaxSim."""
        (query_tokens,) = self.tokenizer.encode([query], truncate=truncate, field="query")
        passage_tokens = self.tokenizer.encode(passages, truncate=truncate, field="passages")
        weights = EQUAL_WEIGHTS if options.weights is None else options.weights
        return [TwoTexts(query_tokens, passage, weights) for passage in passage_tokens]

    def normalize(self, score: float) -> float:
        """From the cosine's [-1, 1] to [0, 1], linearly."""
        return min(1.0, max(0.0, (1 + score) / 2))


def _once_each(items: Sequence[TwoTexts]) -> dict[int, TokenSequence]:
    """The queries of a batch: each is encoded once, in the same pass as the passages."""
    return {id(item.query): item.query for item in items}


class LateInteraction(_VectorScorer):
    """A `scoring.Scorer`: the mean over the query's tokens of the best cosine with any of the passage's, in [-1, 1]."""

    @torch.inference_mode()
    def forward(self, items: Sequence[TwoTexts]) -> list[PairScore]:
        queries = _once_each(items)
        vectors = self._embedder.token_vectors([*queries.values(), *(item.passage for item in items)])
        query_vectors = dict(zip(queries, vectors, strict=False))
        passage_vectors = vectors[len(queries) :]
        scores = [heads.max_sim(query_vectors[id(item.query)], p) for item, p in zip(items, passage_vectors, strict=True)]
        return [PairScore(score) for score in torch.stack(scores).tolist()]


class Hybrid(_VectorScorer):
    """A `scoring.Scorer`: the weighted mean of M3's dense, sparse and multi-vector scores, which are its parts."""

    def forward(self, items: Sequence[TwoTexts]) -> list[PairScore]:
        queries = _once_each(items)
        sequences = [*queries.values(), *(item.passage for item in items)]
        rows = self._embedder.forward(sequences, [OUTPUTS] * len(sequences))
        query_rows = dict(zip(queries, rows, strict=False))
        return [_hybrid(query_rows[id(item.query)], row, item.weights) for item, row in zip(items, rows[len(queries) :], strict=True)]


def _hybrid(query: Row, passage: Row, weights: Mapping[Output, float]) -> PairScore:
    parts = pair_scores(query, passage)
    weighted = sum(weights.get(name, 0.0) * part for name, part in parts.items())
    return PairScore(weighted / sum(weights.values()), {**parts})


def pair_scores(query: Row, passage: Row) -> dict[Output, float]:
    """The score of each output that both have."""
    scores: dict[Output, float] = {}
    if query.dense is not None and passage.dense is not None:
        scores["dense"] = float(query.dense @ passage.dense)
    if query.sparse is not None and passage.sparse is not None:
        scores["sparse"] = lexical_score(query.sparse, passage.sparse)
    if query.multi_vector is not None and passage.multi_vector is not None:
        scores["multi_vector"] = float(heads.max_sim(torch.from_numpy(query.multi_vector), torch.from_numpy(passage.multi_vector)))
    return scores


def lexical_score(query: SparseVector, passage: SparseVector) -> float:
    """Sum over the ids in both of the product of their weights."""
    _, in_query, in_passage = np.intersect1d(query.indices, passage.indices, assume_unique=True, return_indices=True)
    return float(query.values[in_query] @ passage.values[in_passage])


def load_vector_scorer(settings: RerankerSettings) -> LateInteraction | Hybrid:
    embedder = load_embedder_of(settings, query_instruction="")
    own = embedder.info
    if settings.scoring == "late_interaction":
        return LateInteraction(embedder, RerankerInfo(settings.model, own.family, "late_interaction", own.max_tokens))
    if missing := sorted(set(OUTPUTS) - set(own.outputs)):
        raise SettingsError(f"{settings.model} has no {' and '.join(missing)} vectors, which scoring: hybrid compares", field="scoring")
    return Hybrid(embedder, RerankerInfo(settings.model, own.family, "hybrid", own.max_tokens, options=("weights",)))
