"""BERT and XLM-R embedders, with M3's three outputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgeserve.types import OUTPUTS, EmbedderOptions
from tests.checkpoints import TEXTS
from tests.models.folders import M3_OF_8192, MINILM
from tests.models.loaded import dense, embedder
from tests.models.parity import mutants as m
from tests.models.parity.case import VECTOR_TOLERANCE, Arrays, Case, Computing
from tests.models.texts import AWKWARD, ragged

ALL_TEXTS = [*TEXTS, *AWKWARD, *ragged(24, 150)]
LONG_TEXTS = ["word and another " * 6000, "short", *TEXTS[:4], "中文。" * 300]
"""Of 8,192 tokens, and others in the same batch."""
# Lengths on both sides of 128, 256 and 512: the three limits that MiniLM's files state.
MINILM_TEXTS = [*TEXTS, *AWKWARD[:-1], *("word " * n for n in (125, 126, 127, 253, 254, 255, 511, 600))]
QUERY_INSTRUCTION = "Represent this sentence for searching relevant passages: "
OWN_INSTRUCTION = "find: "


def flag_m3(folder: Path, texts: Sequence[str], max_length: int, batch_size: int) -> Arrays:
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu")
    found: Any = model.encode(
        list(texts), batch_size=batch_size, max_length=max_length, return_dense=True, return_sparse=True, return_colbert_vecs=True
    )
    weights = [{int(token): float(weight) for token, weight in one.items()} for one in found["lexical_weights"]]
    return {
        "dense": found["dense_vecs"],
        "sparse": _as_wide_as_the_vocabulary(weights, len(model.tokenizer)),
        "multi_vector": np.concatenate(found["colbert_vecs"]),
    }


def our_m3(folder: Path, texts: Sequence[str], max_length: int) -> Computing:
    model = embedder(folder, max_tokens=max_length)
    rows = model.forward(model.tokenize(texts), [OUTPUTS] * len(texts))
    weights = [dict(zip(row.sparse.indices.tolist(), row.sparse.values.tolist(), strict=True)) for row in rows if row.sparse is not None]
    yield "dense", np.array([row.dense for row in rows])
    yield "sparse", _as_wide_as_the_vocabulary(weights, model.tokenizer.vocabulary_size)
    yield "multi_vector", np.concatenate([row.multi_vector for row in rows if row.multi_vector is not None])


def _as_wide_as_the_vocabulary(weights: Sequence[dict[int, float]], size: int) -> NDArray[np.float64]:
    """A weight of nearly 0 may be there in one of the two only: here it is 0 in the other."""
    wide = np.zeros((len(weights), size))
    for row, one in zip(wide, weights, strict=True):
        row[list(one)] = list(one.values())
    return wide


def flag_model(folder: Path, pooling: str, query: str, passage: str | None = None, request: str | None = None) -> Arrays:
    from FlagEmbedding import FlagModel

    model = FlagModel(
        str(folder), pooling_method=pooling, use_fp16=False, devices="cpu",
        query_instruction_for_retrieval=query, passage_instruction_for_retrieval=passage,
    )  # fmt: skip
    found: dict[str, Any] = {
        "documents": model.encode_corpus(ALL_TEXTS, batch_size=8),
        "queries": model.encode_queries(ALL_TEXTS, batch_size=8),
    }
    if request is not None:
        model.query_instruction_for_retrieval = request
        found["queries, instruction of the request"] = model.encode_queries(ALL_TEXTS, batch_size=8)
    return found


def our_model(folder: Path, request: str | None = None) -> Computing:
    model = embedder(folder)
    yield "documents", dense(model, ALL_TEXTS)
    yield "queries", dense(model, ALL_TEXTS, "query")
    if request is not None:
        yield "queries, instruction of the request", dense(model, ALL_TEXTS, "query", EmbedderOptions(instruction=request))


def sentence_transformer(folder: Path) -> Arrays:
    from sentence_transformers import SentenceTransformer

    return {"documents": SentenceTransformer(str(folder), device="cpu").encode(MINILM_TEXTS, normalize_embeddings=True)}


def our_minilm(folder: Path) -> Computing:
    yield "documents", dense(embedder(folder), MINILM_TEXTS)


ATTENTION_MUTANTS = (m.shift_positions, m.mix_neighbours, m.ignore_scaling)

CASES = (
    Case(
        "bge-m3", partial(flag_m3, texts=tuple(ALL_TEXTS), max_length=1024, batch_size=8),
        partial(our_m3, texts=tuple(ALL_TEXTS), max_length=1024), VECTOR_TOLERANCE,
        (
            *ATTENTION_MUTANTS, m.count_pad_tokens, m.pool_last_token, m.keep_special_weights, m.smallest_weight,
            m.hidden_states_for_vectors, m.drop_end_vector,
        ),
    ),
    Case(
        M3_OF_8192, partial(flag_m3, texts=tuple(LONG_TEXTS), max_length=8192, batch_size=1),
        partial(our_m3, texts=tuple(LONG_TEXTS), max_length=8192), VECTOR_TOLERANCE, (m.cut_one_early,),
    ),
    Case(
        "bge-small-en-v1.5", partial(flag_model, pooling="cls", query=QUERY_INSTRUCTION, request=OWN_INSTRUCTION),
        partial(our_model, request=OWN_INSTRUCTION), VECTOR_TOLERANCE,
        (*ATTENTION_MUTANTS, m.pool_last_token, m.treat_queries_as_documents, m.drop_instruction, m.ignore_request, m.cut_one_early),
    ),
    Case(
        "e5-small-v2", partial(flag_model, pooling="mean", query="query: ", passage="passage: "), our_model, VECTOR_TOLERANCE,
        (m.pool_cls, m.treat_queries_as_documents),
    ),
    Case(
        MINILM, sentence_transformer, our_minilm, VECTOR_TOLERANCE, (m.pool_cls, m.cut_one_early), about="(trained weights)",
        where=f"sentence-transformers {version('sentence-transformers')} here",
    ),
)  # fmt: skip
