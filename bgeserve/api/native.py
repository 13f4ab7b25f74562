"""Our own dialect: `/v1/encode` (every kind of vector from one text) and `/v1/search`. Schema and mapping together."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from typing_extensions import TypedDict

from bgeserve.api.encoding import EncodingFormat, Matrix, Vector, json_bytes, matrix, vector
from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.options import Examples, QueryInstruction, embedder_options
from bgeserve.api.schema import (
    Body,
    Finite,
    JsonFilter,
    Offset,
    TextOrTexts,
    TokenUsage,
    UpToMaxTopK,
    as_list,
    cut_indices,
    refuse,
    token_usage,
    total,
)
from bgeserve.protocols import SearchRequest
from bgeserve.quoting import brief
from bgeserve.strict import CollectionName
from bgeserve.types import Embeddings, Hit, InputType, Mode, Output, SearchAnswer

MAX_HITS = 50_000
"""Queries times top_k of one request: each hit carries its text."""


# -- encode ----------------------------------------------------------------------------------------------------------------------------


class EncodeBody(Body):
    input: TextOrTexts
    model: str | None = None
    """None: the only embedder."""
    outputs: list[Output] = Field(default=["dense"], min_length=1, max_length=3)
    input_type: InputType = "document"
    """Models with a query instruction put it before queries."""
    instruction: QueryInstruction = None
    """Put before each query instead of the model's own; an empty string: none."""
    examples: Examples = None
    """Put before each query of a model that learns from examples (bge-en-icl), instead of those in the service's settings."""
    truncate: bool = True
    """False: a text over the model's limit is refused instead of cut."""
    encoding_format: EncodingFormat = "float"


class SparseResponse(TypedDict):
    indices: Vector
    values: Vector


class EncodeItem(TypedDict):
    index: int
    tokens: int
    truncated: bool
    dense: NotRequired[Vector]
    sparse: NotRequired[SparseResponse]
    multi_vector: NotRequired[Matrix]


class EncodeResponse(TypedDict):
    model: str
    data: list[EncodeItem]
    fingerprint: str
    truncated: list[int]
    """Indices of the inputs that were cut at the model's limit."""
    usage: TokenUsage


async def encode(call: Call, body: EncodeBody) -> Answer:
    model = call.model(body.model, "embedder")
    embeddings = await call.backend.encode(
        model,
        as_list(body.input),
        outputs=tuple(dict.fromkeys(body.outputs)),
        input_type=body.input_type,
        options=embedder_options(body.instruction, body.examples),
        truncate=body.truncate,
        caller=call.caller(),
    )

    def render() -> EncodeResponse:
        return {
            "model": model,
            "data": [_encode_item(embeddings, i, body.encoding_format) for i in range(len(embeddings))],
            "fingerprint": embeddings.fingerprint,
            "truncated": cut_indices(embeddings.truncated),
            "usage": token_usage(embeddings.tokens),
        }

    return Answer(render, json_bytes(embeddings), timings_ms=embeddings.timings_ms, model=model, tokens=total(embeddings.tokens))


def _encode_item(embeddings: Embeddings, i: int, encoding: EncodingFormat) -> EncodeItem:
    item: EncodeItem = {"index": i, "tokens": int(embeddings.tokens[i]), "truncated": bool(embeddings.truncated[i])}
    if embeddings.dense is not None:
        item["dense"] = vector(embeddings.dense[i], encoding)
    if embeddings.sparse is not None:
        weights = embeddings.sparse[i]
        item["sparse"] = {"indices": vector(weights.indices, encoding), "values": vector(weights.values, encoding)}
    if embeddings.multi_vector is not None:
        item["multi_vector"] = matrix(embeddings.multi_vector[i], encoding)
    return item


# -- search ----------------------------------------------------------------------------------------------------------------------------


def _check_rerank(sent: object) -> object:
    if sent is not None and not isinstance(sent, (bool, str)):
        refuse(f"must be true, false or the name of a reranker, not {brief(sent)}")
    return sent


def _check_hits(sent: int, info: ValidationInfo) -> int:
    queries = len(as_list(info.data.get("query", "")))
    if queries * sent > MAX_HITS:
        refuse(f"must be at most {MAX_HITS // queries} for {queries} queries ({MAX_HITS} hits a request), not {sent}")
    return sent


class SearchBody(Body):
    query: TextOrTexts
    collection: CollectionName = "default"
    mode: Mode = "hybrid"
    top_k: Annotated[UpToMaxTopK, AfterValidator(_check_hits)] = 10
    offset: Offset = 0
    """Hits to leave out at the front: the second page of ten has offset 10."""
    candidates: UpToMaxTopK | None = None
    """Found per leg before fusion. None: as the service's settings say."""
    rerank: Annotated[bool | str | None, BeforeValidator(_check_rerank)] = None
    """A reranker's name, true for the settings' reranker, false for none. None: as the service's settings say."""
    rerank_top: UpToMaxTopK | None = None
    """How many of the fused hits are reranked. None: as the service's settings say."""
    min_score: Finite | None = None
    """Hits whose `score` is below are left out."""
    filter: JsonFilter | None = None
    instruction: str | None = None
    """Put before each query for the embedder, instead of the model's own; an empty string: none."""
    truncate: bool = True


class HitResponse(TypedDict):
    id: str
    title: str
    text: str
    score: float
    """What the list is ordered by."""
    metadata: dict[str, Any]
    scores: dict[str, float]
    """Each leg's own score, then "fused" and, after reranking, "rerank"."""
    ranks: dict[str, int]
    chunk: int
    start: int
    end: int


class SearchUsage(TypedDict):
    total_tokens: int
    stages: dict[str, int]


class SearchResponse(TypedDict):
    results: list[HitResponse] | list[list[HitResponse]]
    """Best first; for a list of queries one such list per query, in the queries' order."""
    timings_ms: dict[str, float]
    truncated: dict[str, bool]
    """Per stage: whether any of its texts was cut at the model's limit."""
    degraded: list[str]
    """Stages that were left out, since what they need was down: the results are those of the stage before. Empty when all is well."""
    usage: SearchUsage


async def search(call: Call, body: SearchBody) -> Answer:
    answer = await call.backend.search(
        SearchRequest(
            queries=as_list(body.query),
            collection=body.collection,
            mode=body.mode,
            top_k=body.top_k,
            offset=body.offset,
            candidates=body.candidates,
            rerank=body.rerank,
            rerank_top=body.rerank_top,
            min_score=body.min_score,
            filter=body.filter,
            instruction=body.instruction,
            truncate=body.truncate,
            caller=call.caller(),
        )
    )
    size = sum(len(hit.text) + 500 for hits in answer.results for hit in hits)
    return Answer(
        lambda: _search_response(answer, single=isinstance(body.query, str)),
        size,
        timings_ms=answer.timings_ms,
        tokens=total(answer.tokens),
        degraded=answer.degraded,
    )


def _search_response(answer: SearchAnswer, *, single: bool) -> SearchResponse:
    results = [[_hit(hit) for hit in hits] for hits in answer.results]
    return {
        "results": results[0] if single else results,
        "timings_ms": {stage: round(ms, 2) for stage, ms in answer.timings_ms.items()},
        "truncated": dict(answer.truncated),
        "degraded": list(answer.degraded),
        "usage": {"total_tokens": total(answer.tokens), "stages": dict(answer.tokens)},
    }


def _hit(hit: Hit) -> HitResponse:
    return {
        "id": hit.id,
        "title": hit.title,
        "text": hit.text,
        "score": hit.score,
        "metadata": dict(hit.metadata),
        "scores": dict(hit.scores),
        "ranks": dict(hit.ranks),
        "chunk": hit.chunk,
        "start": hit.start,
        "end": hit.end,
    }


OPERATIONS = (
    Operation(
        "POST",
        "/v1/encode",
        "Dense, sparse and multi-vector outputs of texts, in one pass",
        EncodeBody,
        EncodeResponse,
        encode,
        {"texts": "input"},
        right="model",
    ),
    Operation(
        "POST",
        "/v1/search",
        "Embed, retrieve and rerank",
        SearchBody,
        SearchResponse,
        search,
        {"texts": "query", "outputs": "mode"},
        right="read",
    ),
)
