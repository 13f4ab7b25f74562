"""Mistakes in comparing vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from bgeserve.models import heads, vector_scoring
from bgeserve.models.scoring import PairScore
from bgeserve.types import OUTPUTS, SparseVector


def ignore_weights(patch: pytest.MonkeyPatch) -> None:
    right = vector_scoring._hybrid
    patch.setattr(vector_scoring, "_hybrid", lambda query, passage, weights: right(query, passage, dict.fromkeys(OUTPUTS, 1.0)))


def forget_to_divide_by_the_weights(patch: pytest.MonkeyPatch) -> None:
    right = vector_scoring._hybrid

    def hybrid(query: Any, passage: Any, weights: Any) -> PairScore:
        scored = right(query, passage, weights)
        return PairScore(scored.score * sum(weights.values()), scored.parts)

    patch.setattr(vector_scoring, "_hybrid", hybrid)


def sum_over_query_vectors(patch: pytest.MonkeyPatch) -> None:
    def max_sim(query: Tensor, passage: Tensor) -> Tensor:
        return (query @ passage.T).amax(dim=1).sum()

    patch.setattr(heads, "max_sim", max_sim)


def best_query_vector_of_each_passage_vector(patch: pytest.MonkeyPatch) -> None:
    right = heads.max_sim
    patch.setattr(heads, "max_sim", lambda query, passage: right(passage, query))


def lexical_weights_of_the_passage_alone(patch: pytest.MonkeyPatch) -> None:
    def lexical_score(query: SparseVector, passage: SparseVector) -> float:
        return float(passage.values[np.isin(passage.indices, query.indices)].sum())

    patch.setattr(vector_scoring, "lexical_score", lexical_score)
