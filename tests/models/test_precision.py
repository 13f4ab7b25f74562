"""Half precision: how near it stays to float32, that batches do not matter in it either, and that float16's overflow is named.

The tiny checkpoints are made to differ from text to text, so rounding shows far more in them than in trained ones (MiniLM's bfloat16
vectors: cosine of at least 0.9998, test_embedder.py). float16 rounds 8 times finer than bfloat16.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from bgeserve.errors import ComputeError
from bgeserve.types import RerankerOptions
from tests.checkpoints import TEXTS
from tests.models.folders import DECODER_EMBEDDERS, ENCODER_EMBEDDERS, RERANKERS, Folders
from tests.models.loaded import Reranker, dense, embedder
from tests.models.texts import ragged

HALVES = ("bfloat16", "float16")
LEAST_COSINE = {"bfloat16": 0.95, "float16": 0.998}
LEAST_MEDIAN_COSINE = {"bfloat16": 0.99, "float16": 0.9995}
LEAST_CORRELATION = {"bfloat16": 0.95, "float16": 0.999}
"""Of logits with float32's."""
BATCH_VECTOR_TOLERANCE = {"bfloat16": 0.02, "float16": 0.0025}
"""Between a text in a batch and alone: a rounding of another order of sums, where a CPU has one; none was seen."""
BATCH_LOGIT_TOLERANCE = {"bfloat16": 0.2, "float16": 0.025}

SOME_TEXTS = [*TEXTS, *ragged(10, 100)]
PAIRS = [(query, passage) for query in TEXTS[:2] for passage in SOME_TEXTS]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", [*ENCODER_EMBEDDERS, *DECODER_EMBEDDERS])
def test_vectors_are_nearly_float32s(name: str, dtype: str, folders: Folders) -> None:
    model = embedder(folders[name], dtype=dtype)
    vectors = dense(model, SOME_TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = (vectors * dense(embedder(folders[name]), SOME_TEXTS)).sum(axis=1)
    assert cosines.min() >= LEAST_COSINE[dtype]
    assert np.median(cosines) >= LEAST_MEDIAN_COSINE[dtype]
    alone = np.concatenate([dense(model, [text]) for text in SOME_TEXTS])
    np.testing.assert_allclose(vectors, alone, rtol=0, atol=BATCH_VECTOR_TOLERANCE[dtype])


def logits(model: Reranker) -> NDArray[np.float64]:
    return np.array(model.scores(model.items_of(PAIRS)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", RERANKERS)
def test_logits_are_nearly_float32s(name: str, dtype: str, folders: Folders) -> None:
    model = Reranker(folders[name], dtype=dtype)
    found = logits(model)
    exact = logits(Reranker(folders[name]))
    assert (found != exact).any()
    assert np.corrcoef(found, exact)[0, 1] >= LEAST_CORRELATION[dtype]
    alone = [score for item in model.items_of(PAIRS) for score in model.scores([item])]
    np.testing.assert_allclose(found, alone, rtol=0, atol=BATCH_LOGIT_TOLERANCE[dtype])


# --- overflow ---------------------------------------------------------------------------------------------------------------


def scaled(folder: Path, out: Path, name: str) -> Path:
    """A copy with one tensor made as large as float16 allows: what it makes of the hidden states goes beyond."""
    copy = Path(shutil.copytree(folder, out))
    (file,) = [one for one in copy.glob("*.safetensors") if name in load_file(one)]
    tensors = load_file(file)
    tensors[name] *= 60_000 / tensors[name].abs().max()
    save_file(tensors, file, {"format": "pt"})
    return copy


def forward_of_embedder(folder: Path, dtype: str) -> Any:
    return dense(embedder(folder, dtype=dtype), TEXTS)


def forward_of_reranker(folder: Path, dtype: str) -> Any:
    model = Reranker(folder, dtype=dtype)
    return model.scores(model.items(TEXTS[0], TEXTS))


@pytest.mark.parametrize(
    ("name", "weight", "forward"),
    [
        ("bge-m3", "encoder.layer.1.output.dense.weight", forward_of_embedder),
        ("bge-multilingual-gemma2", "norm.weight", forward_of_embedder),
        ("bge-reasoner-embed-qwen3-8b-0923", "layers.1.mlp.down_proj.weight", forward_of_embedder),
        ("bge-reranker-base", "roberta.encoder.layer.1.output.dense.weight", forward_of_reranker),
        ("bge-reranker-v2-gemma", "model.layers.1.mlp.down_proj.weight", forward_of_reranker),
        ("bge-reranker-v2-minicpm-layerwise", "model.layers.1.mlp.down_proj.weight", forward_of_reranker),
    ],
)
def test_float16_that_is_too_narrow_is_named(
    name: str, weight: str, forward: Callable[[Path, str], Any], folders: Folders, tmp_path: Path
) -> None:
    folder = scaled(folders[name], tmp_path / name, weight)
    with pytest.raises(ComputeError, match=r"float16 overflowed: .* serve this model in bfloat16 or float32"):
        forward(folder, "float16")
    for dtype in ("float32", "bfloat16"):
        assert np.isfinite(forward(folder, dtype)).all()


def test_a_pair_that_is_read_out_before_the_overflow_has_its_score(layerwise: Path, tmp_path: Path) -> None:
    folder = scaled(layerwise, tmp_path / "copy", "model.layers.4.mlp.down_proj.weight")
    with pytest.raises(ComputeError):
        Reranker(folder, dtype="float16")
    model = Reranker(folder, dtype="float16", cutoff_layers=(3,))
    assert np.isfinite(model.scores(model.items(TEXTS[0], TEXTS))).all()
    with pytest.raises(ComputeError, match="float16 overflowed"):
        model.forward(model.items(TEXTS[0], TEXTS, RerankerOptions(cutoff_layers=[6])))
