"""The tiny checkpoints must be able to show a mistake: their results have to differ from text to text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bgeserve.models.embedder import load_embedder
from bgeserve.models.reranker import load_reranker
from bgeserve.settings import EmbedderSettings, RerankerSettings
from tests.checkpoints import TEXTS


@pytest.mark.parametrize("name", ["bert", "bert_mean", "bge_m3"])
def test_vectors_of_different_texts_are_apart(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    model = load_embedder(EmbedderSettings(model=str(folder), dtype="float32"))
    rows = model.forward(model.tokenize(TEXTS), [["dense"]] * len(TEXTS))
    vectors = np.array([row.dense for row in rows])
    cosines = vectors @ vectors.T - 2 * np.eye(len(TEXTS))
    assert cosines.max() < 0.9


@pytest.mark.parametrize("name", ["reranker", "bert_reranker"])
def test_logits_spread(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    model = load_reranker(RerankerSettings(model=str(folder), dtype="float32"))
    logits = [model.forward(model.tokenize(query, TEXTS)) for query in TEXTS[:3]]  # pyright: ignore[reportArgumentType]
    assert np.std(logits) >= 1


def test_most_texts_have_lexical_weights(bge_m3: Path) -> None:
    model = load_embedder(EmbedderSettings(model=str(bge_m3), dtype="float32"))
    rows = model.forward(model.tokenize(TEXTS), [["sparse"]] * len(TEXTS))
    sizes = [len(row.sparse.indices) for row in rows if row.sparse is not None]
    assert np.median(sizes) >= 5
