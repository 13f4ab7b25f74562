"""What `info` tells of a model, from what the deployment says of itself and the catalogue's row, in the words of BAAI's model lists.

A fine-tuned checkpoint has no row: what only a row would know is then empty.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from bgeserve.catalog import EmbedderRow, RerankerRow, find_embedder, find_reranker
from bgeserve.types import ModelInfo

RerankerType = Literal["normal", "LLM-based", "layerwise"]


class RetrieverFacts(TypedDict):
    name: str
    dimension: int | None
    sequence_length: int
    introduction: str
    family: str
    protocol: Literal["retriever"]


class RerankerFacts(TypedDict):
    name: str
    type: RerankerType
    layerwise: tuple[int, int] | None
    """First and last layer that it can be cut at."""
    base_model: str
    language: str
    feature: str
    family: str
    protocol: Literal["reranker"]


def facts_of(info: ModelInfo) -> RetrieverFacts | RerankerFacts:
    return _retriever(info) if info.role == "embedder" else _reranker(info)


def _retriever(info: ModelInfo) -> RetrieverFacts:
    row = find_embedder(info.like or info.model)
    outputs = ", ".join(info.outputs)
    return {
        "name": info.name,
        "dimension": info.dimensions,
        "sequence_length": info.max_tokens,
        "introduction": f"{info.model} embeds texts of up to {info.max_tokens} tokens ({outputs}){_from_row(row)}",
        "family": info.family or (row.family if row else ""),
        "protocol": "retriever",
    }


def _reranker(info: ModelInfo) -> RerankerFacts:
    row = find_reranker(info.like or info.model)
    kind = _type(info)
    return {
        "name": info.name,
        "type": kind,
        "layerwise": info.layers,
        "base_model": row.base_model if row else "",
        "language": row.languages if row else "",
        "feature": f"{info.model}: {_FEATURES[kind]}; query and passage have up to {info.max_tokens} tokens{_from_row(row)}",
        "family": info.family or (row.family if row else ""),
        "protocol": "reranker",
    }


def _type(info: ModelInfo) -> RerankerType:
    if info.layers is not None:
        return "layerwise"
    return "LLM-based" if info.kind == "llm" else "normal"


def _from_row(row: EmbedderRow | RerankerRow | None) -> str:
    return "" if row is None else f"; {row.parameters:,g} million parameters, for {row.languages}, licence {row.licence}"


_FEATURES: dict[RerankerType, str] = {
    "normal": "scores a pair with one encoder",
    "LLM-based": "scores a pair by an LLM's answer to a question, which a request may choose",
    "layerwise": "scores a pair by an LLM's answer, from any of its later layers: an earlier one is faster",
}
