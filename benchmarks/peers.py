"""The libraries that are compared with, as their own documents call them: padded, in float32, with all cores for one batch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import CORES
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.embedder import EmbedderInfo


def flagembedding(folder: Path, info: EmbedderInfo, batch_size: int) -> Callable[[list[str]], object]:
    """One `encode`, which sorts its texts by length, cuts them into batches, and computes the first batch twice: once to see that it fits.

    Of a model with M3's heads, the dense vectors alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding import BGEM3FlagModel, FlagModel
    limits = {"query_max_length": info.max_tokens, "passage_max_length": info.max_tokens}
    pooling = Checkpoint.read(folder).pooling or info.pooling
    kind: Any = BGEM3FlagModel if "sparse" in info.outputs else FlagModel
    model = kind(str(folder), pooling_method=pooling, use_fp16=False, devices="cpu", **limits)
    return lambda texts: _on_all_cores(model.encode, texts, batch_size=batch_size)


def sentence_transformers(folder: Path, info: EmbedderInfo, batch_size: int) -> Callable[[list[str]], object]:
    """One `encode`, which sorts its texts by length and cuts them into batches."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = info.max_tokens
    return lambda texts: _on_all_cores(model.encode, texts, batch_size=batch_size, normalize_embeddings=True)


def flagembedding_llm_reranker(folder: Path, batch_size: int, max_tokens: int) -> Callable[[Sequence[tuple[str, str]]], object]:
    """One `compute_score`: sorted, cut into batches, padded to a multiple of 8, every logit of every position, the first batch twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding import FlagLLMReranker
    model: Any = FlagLLMReranker(str(folder), use_fp16=False, devices="cpu", batch_size=batch_size, max_length=max_tokens)
    return lambda pairs: _on_all_cores(model.compute_score, list(pairs))


def _on_all_cores(call: Callable[..., object], *arguments: Any, **keywords: Any) -> object:
    torch.set_num_threads(CORES)
    with redirect_stderr(io.StringIO()):  # progress bars
        return call(*arguments, **keywords)
