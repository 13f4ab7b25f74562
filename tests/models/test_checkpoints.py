"""The tiny checkpoints must be able to show a mistake: their results have to differ from text to text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import TEXTS
from tests.models.folders import CROSS_ENCODERS, DECODER_EMBEDDERS, ENCODER_EMBEDDERS, Folders
from tests.models.loaded import Reranker, dense, embedder
from tests.models.parity import layered


@pytest.mark.parametrize("name", [*ENCODER_EMBEDDERS, *DECODER_EMBEDDERS])
def test_vectors_of_different_texts_are_apart(name: str, folders: Folders) -> None:
    vectors = dense(embedder(folders[name]), TEXTS)
    cosines = vectors @ vectors.T - 2 * np.eye(len(TEXTS))
    assert cosines.max() < 0.9


@pytest.mark.parametrize("name", [*CROSS_ENCODERS, "bge-reranker-v2-gemma"])
def test_logits_spread(name: str, folders: Folders) -> None:
    model = Reranker(folders[name])
    logits = [model.scores(model.items(query, TEXTS)) for query in TEXTS[:3]]
    assert np.std(logits) >= 1


@pytest.mark.parametrize("name", ["layerwise", "lightweight"])
def test_logits_spread_at_every_layer(name: str) -> None:
    for asked, case in layered.cases_of(name).items():
        assert np.std(np.atleast_2d(case["scores"]), axis=1).min() >= 1, asked


def test_most_texts_have_lexical_weights(bge_m3: Path) -> None:
    model = embedder(bge_m3)
    rows = model.forward(model.tokenize(TEXTS), [["sparse"]] * len(TEXTS))
    sizes = [len(row.sparse.indices) for row in rows if row.sparse is not None]
    assert np.median(sizes) >= 5
    assert max(sizes) > 20
