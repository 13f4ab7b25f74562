"""Jina's `/v1/rerank`. Schema and mapping together. https://jina.ai/reranker

Ours on top: each result carries its raw score (the order among passages whose probabilities all round to 1), its tokens, `truncated`, and
what its score is made of; and what a request may ask of its model (`options`).
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, cast

import numpy as np
from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema
from typing_extensions import TypedDict

from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.options import RerankerOptionsBody, reranker_options
from bgeserve.api.schema import TEXT_SCHEMA, Text, check_items, check_text, cut_indices, limits_of, refuse, total
from bgeserve.quoting import brief
from bgeserve.types import Scores

_PASSAGES_SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "anyOf": [TEXT_SCHEMA, {"type": "object", "properties": {"text": TEXT_SCHEMA}, "required": ["text"], "additionalProperties": False}]
    },
}


def _check_passages(sent: object, info: ValidationInfo) -> list[str]:
    return [_passage(item, f"[{i}]") for i, item in enumerate(check_items(sent, limits_of(info), "documents"))]


def _passage(sent: object, at: str) -> str:
    if isinstance(sent, dict):
        fields = cast("dict[str, object]", sent)
        if fields.keys() != {"text"}:
            refuse(f'must be a string or an object {{"text": ...}}, not {brief(fields)}', at)
        return check_text(fields["text"], f"{at}.text")
    return check_text(sent, at)


class RerankBody(RerankerOptionsBody):
    query: Text
    documents: Annotated[list[str], PlainValidator(_check_passages), WithJsonSchema(_PASSAGES_SCHEMA)]
    model: str | None = None
    """None: the only reranker."""
    top_n: Annotated[int, Field(ge=1)] | None = None
    """None: all of them."""
    return_documents: bool = True
    truncate: bool = True
    """False: a pair over the model's limit is refused instead of cut."""


class RerankedText(TypedDict):
    text: str


class RerankItem(TypedDict):
    index: int
    relevance_score: float
    """In [0, 1]."""
    raw_score: float
    tokens: int
    truncated: bool
    parts: NotRequired[dict[str, float]]
    """Raw scores that `raw_score` is one of (`layer_28`, of several cutoff layers) or is made of (`dense`, `sparse`, ...)."""
    document: NotRequired[RerankedText]


class RerankUsage(TypedDict):
    total_tokens: int


class RerankResponse(TypedDict):
    model: str
    usage: RerankUsage
    results: list[RerankItem]
    """Best first."""
    truncated: list[int]
    """Indices of the documents that were cut at the model's limit, of all that were sent."""


async def rerank(call: Call, body: RerankBody) -> Answer:
    model = call.model(body.model, "reranker")
    scores = await call.backend.rerank(
        model,
        body.query,
        body.documents,
        options=reranker_options(body),
        truncate=body.truncate,
        caller=call.caller(),
    )
    size = sum(map(len, body.documents)) if body.return_documents else 0
    size += (120 + 40 * len(scores.parts)) * len(body.documents)
    return Answer(lambda: _response(scores, model, body), size, timings_ms=scores.timings_ms, model=model, tokens=total(scores.tokens))


def _response(scores: Scores, model: str, body: RerankBody) -> RerankResponse:
    best_first = np.argsort(-scores.raw, kind="stable")[: body.top_n]
    return {
        "model": model,
        "usage": {"total_tokens": total(scores.tokens)},
        "results": [_item(scores, int(i), body) for i in best_first],
        "truncated": cut_indices(scores.truncated),
    }


def _item(scores: Scores, i: int, body: RerankBody) -> RerankItem:
    item: RerankItem = {
        "index": i,
        "relevance_score": float(scores.normalized[i]),
        "raw_score": float(scores.raw[i]),
        "tokens": int(scores.tokens[i]),
        "truncated": bool(scores.truncated[i]),
    }
    if scores.parts:
        item["parts"] = {name: float(raw[i]) for name, raw in scores.parts.items()}
    if body.return_documents:
        item["document"] = {"text": body.documents[i]}
    return item


OPERATIONS = (
    Operation(
        "POST",
        "/v1/rerank",
        "Score passages for a query, in Jina's shape",
        RerankBody,
        RerankResponse,
        rerank,
        {"passages": "documents"},
        right="model",
    ),
)
