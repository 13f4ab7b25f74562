"""Models as tests load and ask them: in float32 unless they say otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgeserve.models.embedder import PackedEmbedder, load_embedder
from bgeserve.models.reranker import load_reranker
from bgeserve.models.scoring import OptionRules, PairScore, Scorer
from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.types import EmbedderOptions, InputType, RerankerOptions


def embedder(model: Path | str, **settings: Any) -> PackedEmbedder:
    return load_embedder(EmbedderSettings(model=str(model), **{"dtype": "float32", **settings}))


def dense(
    model: PackedEmbedder, texts: Sequence[str], input_type: InputType = "document", options: EmbedderOptions | None = None
) -> NDArray[np.float32]:
    """[n, dimensions]."""
    rows = model.forward(model.tokenize(texts, input_type, options=options), [["dense"]] * len(texts))
    return np.array([row.dense for row in rows])


class Reranker:
    """A scorer with its option rules."""

    def __init__(self, model: Path | str, **settings: Any) -> None:
        loaded = load_reranker(RerankerSettings(model=str(model), **{"dtype": "float32", **settings}))
        self.scorer: Scorer[Any] = loaded[0]
        self.rules: OptionRules = loaded[1]

    def items(self, query: str, passages: Sequence[str], options: RerankerOptions | None = None) -> list[Any]:
        return self.scorer.tokenize(query, passages, self.rules.resolve(options))

    def items_of(self, pairs: Sequence[tuple[str, str]], options: RerankerOptions | None = None) -> list[Any]:
        """One call for each pair."""
        return [item for query, passage in pairs for item in self.items(query, [passage], options)]

    def forward(self, items: Sequence[Any]) -> list[PairScore]:
        return self.scorer.forward(items)

    def scores(self, items: Sequence[Any]) -> list[float]:
        return [scored.score for scored in self.forward(items)]


def all_numbers(scored: Sequence[PairScore]) -> list[float]:
    """Scores and their parts in one flat list."""
    return [number for one in scored for number in (one.score, *one.parts.values())]
