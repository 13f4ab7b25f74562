"""Every family on CUDA against the same checkpoint on the CPU: in float32, and in half precision, where other attention kernels run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bgeserve.types import RerankerOptions
from tests.checkpoints import TEXTS
from tests.models.folders import DECODER_EMBEDDERS, ENCODER_EMBEDDERS, RERANKERS, Folders
from tests.models.loaded import Reranker, all_numbers, dense, embedder
from tests.models.texts import ragged

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

CUDA: dict[str, Any] = {"device": "cuda", "gpus": 1}
LONG_AND_SHORT = [*TEXTS, *ragged(12, 150)]
COSINE = {"float32": 0.99999, "bfloat16": 0.99, "float16": 0.999}
LOGIT = {"float32": 1e-3, "bfloat16": 1.0, "float16": 0.2}
"""Largest difference of a score; these tiny models' logits have a standard deviation of 1 to 3."""


@pytest.mark.parametrize("dtype", COSINE)
@pytest.mark.parametrize("name", [*ENCODER_EMBEDDERS, *DECODER_EMBEDDERS])
def test_vectors_are_the_cpus(folders: Folders, name: str, dtype: str) -> None:
    here, there = dense(embedder(folders[name]), LONG_AND_SHORT), dense(embedder(folders[name], dtype=dtype, **CUDA), LONG_AND_SHORT)
    assert (here * there).sum(1).min() >= COSINE[dtype]


@pytest.mark.parametrize("dtype", LOGIT)
@pytest.mark.parametrize("name", RERANKERS)
def test_scores_are_the_cpus(folders: Folders, name: str, dtype: str) -> None:
    here, there = (Reranker(folders[name], **settings) for settings in ({}, {"dtype": dtype, **CUDA}))
    options = RerankerOptions(cutoff_layers=(3, 6)) if "cutoff_layers" in here.scorer.info.options else None
    scores = [all_numbers(model.forward(model.items(TEXTS[0], LONG_AND_SHORT, options))) for model in (here, there)]
    assert np.abs(np.subtract(*scores)).max() <= LOGIT[dtype]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_text_gets_in_a_batch_what_it_gets_alone(folders: Folders, dtype: str) -> None:
    for name in ("bge-m3", "bge-multilingual-gemma2", "bge-en-icl"):
        model = embedder(folders[name], dtype=dtype, **CUDA)
        alone = np.concatenate([dense(model, [text]) for text in TEXTS])
        assert (dense(model, TEXTS) * alone).sum(1).min() >= 0.999
