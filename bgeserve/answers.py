"""What the HTTP API answered, back in the types of `bgeserve.types`. Knows JSON, no paths; a newer service may say more than it reads.

Raises KeyError, TypeError or ValueError for what is not this API's answer.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness
from bgeserve.types import (
    CollectionInfo,
    Document,
    Embeddings,
    Float32Array,
    Hit,
    ModelInfo,
    ModelStatus,
    Scores,
    SearchAnswer,
    SparseVector,
    WriteResult,
)

T = TypeVar("T")


def embeddings(answer: Any) -> Embeddings:
    items: list[Any] = answer["data"]
    first = items[0]
    return Embeddings(
        fingerprint=answer["fingerprint"],
        tokens=[item["tokens"] for item in items],
        truncated=[item["truncated"] for item in items],
        dense=dense(answer) if "dense" in first else None,
        sparse=[_sparse(item["sparse"]) for item in items] if "sparse" in first else None,
        multi_vector=[_matrix(item["multi_vector"]) for item in items] if "multi_vector" in first else None,
    )


def dense(answer: Any) -> Float32Array:
    return np.stack([_array(item["dense"], "<f4") for item in answer["data"]])


def _sparse(sent: Any) -> SparseVector:
    return SparseVector(_array(sent["indices"], "<u4"), _array(sent["values"], "<f4"))


def _matrix(sent: Any) -> Float32Array:
    return _array(sent["base64"], "<f4").reshape(sent["shape"])


def _array(sent: str, dtype: str) -> Any:
    return np.frombuffer(b64decode(sent), dtype)


def scores(answer: Any) -> Scores:
    in_order = sorted(answer["results"], key=lambda result: result["index"])
    return Scores(
        raw=np.array([result["raw_score"] for result in in_order], np.float32),
        normalized=np.array([result["relevance_score"] for result in in_order], np.float32),
        tokens=[result["tokens"] for result in in_order],
        truncated=[result["truncated"] for result in in_order],
        parts={name: np.array([result["parts"][name] for result in in_order], np.float32) for name in in_order[0].get("parts", ())},
    )


def hits_of_one(answer: Any) -> list[Hit]:
    return [_known(Hit, hit) for hit in answer["results"][0]]


def search_answer(answer: Any) -> SearchAnswer:
    results = [[_known(Hit, hit) for hit in hits] for hits in answer["results"]]
    # An older service does not know how to degrade.
    degraded = answer.get("degraded", ())
    return SearchAnswer(results, answer["timings_ms"], answer["usage"]["stages"], answer["truncated"], degraded)


def write_result(answer: Any) -> WriteResult:
    return WriteResult(answer["upserted"], answer["unchanged"], answer["usage"]["total_tokens"], answer["truncated"])


def page(answer: Any) -> tuple[list[Document], str | None]:
    return page_documents(answer), answer["next"]


def page_documents(answer: Any) -> list[Document]:
    return [_known(Document, document) for document in answer["documents"]]


def collection_info(answer: Any) -> CollectionInfo:
    return _known(CollectionInfo, answer)


def models(answer: Any) -> list[ModelInfo]:
    return [_model(model) for model in answer["data"]]


def _model(sent: Any) -> ModelInfo:
    layers = sent.get("layers")
    return _known(ModelInfo, {**sent, "name": sent["id"], "layers": None if layers is None else (layers[0], layers[1])})


def statuses(answer: Any) -> list[ModelStatus]:
    return [_known(ModelStatus, model) for model in answer["models"]]


def loads(answer: Any) -> list[ModelLoad]:
    return [_known(ModelLoad, model) for model in answer["models"]]


def readiness(answer: Any) -> Readiness:
    return Readiness(answer["ready"], answer["waiting_for"])


def _known(kind: Callable[..., T], sent: Mapping[str, Any]) -> T:
    """A newer service may send more fields than this client knows."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: value for name, value in sent.items() if name in names})
