"""The HTTP API as its clients speak it: each call as a Request, each answer back in the types of `bgeserve.types`.

Knows paths, JSON and the error tree; sends nothing. The sync and the async client share all of it.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

import numpy as np

from bgeserve.errors import InvalidRequest
from bgeserve.protocols import Readiness
from bgeserve.types import (
    CollectionInfo,
    Document,
    Embeddings,
    Float32Array,
    Hit,
    InputType,
    Lane,
    Mode,
    ModelInfo,
    Output,
    Scores,
    SearchAnswer,
    SparseVector,
    WriteResult,
)

T = TypeVar("T")

MAX_PUT_DOCUMENTS = 64
MAX_PUT_BYTES = 256 * 1024
"""Of text in one write: a slow model on a CPU has embedded that well within WRITE_TIMEOUT_S."""
WRITE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    method: str
    path: str
    parse: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str | int | Sequence[str]] = field(default_factory=dict[str, str])
    accepted: tuple[int, ...] = (200,)
    """Statuses whose body `parse` understands."""
    lane: Lane | None = None
    timeout_s: float | None = None
    """None: the client's own."""

    def content(self) -> bytes | None:
        """Raises InvalidRequest for what JSON in UTF-8 cannot say (NaN, a lone surrogate, an object of another type)."""
        if self.body is None:
            return None
        try:
            return json.dumps(self.body, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"the request cannot be said in JSON: {error}", field="body") from error


class CallOptions(TypedDict, total=False):
    timeout_s: float
    """For the whole call, retries included. Default: the client's own."""


class ComputeOptions(CallOptions, total=False):
    lane: Lane
    """interactive: a person waits. bulk: a job that must not hold up people. Default: bulk for writes, else interactive."""


class RerankOptions(ComputeOptions, total=False):
    model: str | None
    """Default: the service's only model of that role."""
    truncate: bool
    """Default true; false: a text over the model's limit is refused instead of cut."""


class EmbedOptions(RerankOptions, total=False):
    input_type: InputType
    """Default document; models with a query instruction put it before queries."""


class EncodeOptions(EmbedOptions, total=False):
    outputs: Sequence[Output]
    """Default dense."""


class SearchOptions(ComputeOptions, total=False):
    """What is left out is as the service's settings say."""

    collection: str
    mode: Mode
    top_k: int
    offset: int
    candidates: int
    rerank: bool | str
    rerank_top: int
    min_score: float
    filter: Mapping[str, Any]
    """As in `bgeserve.filters`: {"field": "module", "in": ["gzip", "bz2"]}."""
    truncate: bool


# -- requests --------------------------------------------------------------------------------------------------------------------------


def encode(texts: str | Sequence[str], options: EncodeOptions) -> Request[Embeddings]:
    return _call("POST", "/v1/encode", _embeddings, {"input": _list(texts), "encoding_format": "base64"}, options)


def embed(texts: str | Sequence[str], options: EmbedOptions) -> Request[Float32Array]:
    return _call("POST", "/v1/encode", _dense, {"input": _list(texts), "encoding_format": "base64"}, options)


def rerank(query: str, passages: Sequence[str], options: RerankOptions) -> Request[Scores]:
    return _call("POST", "/v1/rerank", _scores, {"query": query, "documents": list(passages), "return_documents": False}, options)


def search(query: str, options: SearchOptions) -> Request[list[Hit]]:
    return _call("POST", "/v1/search", _hits_of_one, {"query": [query]}, options)


def search_many(queries: Sequence[str], options: SearchOptions) -> Request[SearchAnswer]:
    return _call("POST", "/v1/search", _search_answer, {"query": list(queries)}, options)


def put_documents(collection: str, documents: Sequence[Document], options: ComputeOptions) -> Request[WriteResult]:
    body = {"documents": [{"id": d.id, "text": d.text, "metadata": dict(d.metadata)} for d in documents]}
    return _call("PUT", _documents(collection), _write_result, body, {"timeout_s": WRITE_TIMEOUT_S, **options})


def get_documents(collection: str, ids: Sequence[str], options: CallOptions) -> Request[list[Document]]:
    return Request("GET", _documents(collection), _page_documents, query={"id": list(ids)}, timeout_s=options.get("timeout_s"))


def page_of_documents(collection: str, limit: int, after: str | None, options: CallOptions) -> Request[tuple[list[Document], str | None]]:
    query: dict[str, str | int] = {"limit": limit} if after is None else {"limit": limit, "after": after}
    return Request("GET", _documents(collection), _page, query=query, timeout_s=options.get("timeout_s"))


def delete_documents(collection: str, ids: Sequence[str] | None, filter: Mapping[str, Any] | None, options: CallOptions) -> Request[int]:
    body = {name: value for name, value in (("ids", ids and list(ids)), ("filter", filter)) if value is not None}
    return _call("DELETE", _documents(collection), lambda answer: answer["deleted"], body, {"timeout_s": WRITE_TIMEOUT_S, **options})


def collection(name: str) -> Request[CollectionInfo]:
    return Request("GET", f"/v1/collections/{quote(name, safe='')}", _collection_info)


def models() -> Request[list[ModelInfo]]:
    return Request("GET", "/v1/models", _models)


def ready() -> Request[Readiness]:
    return Request("GET", "/readyz", lambda answer: Readiness(answer["ready"], answer["waiting_for"]), accepted=(200, 503))


def split_documents(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Lists that are small enough for one write each; a document that is too large for that goes alone."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        length = len(document.text.encode(errors="replace"))
        if batch and (len(batch) == MAX_PUT_DOCUMENTS or size + length > MAX_PUT_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += length
    if batch:
        yield batch


def add(one: WriteResult, other: WriteResult) -> WriteResult:
    return WriteResult(
        one.upserted + other.upserted,
        one.unchanged + other.unchanged,
        one.tokens + other.tokens,
        (*one.truncated, *other.truncated),
    )


def _call(method: str, path: str, parse: Callable[[Any], T], body: Mapping[str, Any], options: Mapping[str, Any]) -> Request[T]:
    fields = {name: value for name, value in options.items() if name not in ComputeOptions.__annotations__}
    return Request(method, path, parse, {**body, **fields}, lane=options.get("lane"), timeout_s=options.get("timeout_s"))


def _documents(collection: str) -> str:
    return f"/v1/collections/{quote(collection, safe='')}/documents"


def _list(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


# -- answers ---------------------------------------------------------------------------------------------------------------------------


def _embeddings(answer: Any) -> Embeddings:
    items: list[Any] = answer["data"]
    first = items[0]
    return Embeddings(
        fingerprint=answer["fingerprint"],
        tokens=[item["tokens"] for item in items],
        truncated=[item["truncated"] for item in items],
        dense=_dense(answer) if "dense" in first else None,
        sparse=[_sparse(item["sparse"]) for item in items] if "sparse" in first else None,
        multi_vector=[_matrix(item["multi_vector"]) for item in items] if "multi_vector" in first else None,
    )


def _dense(answer: Any) -> Float32Array:
    return np.stack([_array(item["dense"], "<f4") for item in answer["data"]])


def _sparse(sent: Any) -> SparseVector:
    return SparseVector(_array(sent["indices"], "<u4"), _array(sent["values"], "<f4"))


def _matrix(sent: Any) -> Float32Array:
    return _array(sent["base64"], "<f4").reshape(sent["shape"])


def _array(sent: str, dtype: str) -> Any:
    return np.frombuffer(b64decode(sent), dtype)


def _scores(answer: Any) -> Scores:
    in_order = sorted(answer["results"], key=lambda result: result["index"])
    return Scores(
        raw=np.array([result["raw_score"] for result in in_order], np.float32),
        normalized=np.array([result["relevance_score"] for result in in_order], np.float32),
        tokens=[result["tokens"] for result in in_order],
        truncated=[result["truncated"] for result in in_order],
    )


def _hits_of_one(answer: Any) -> list[Hit]:
    return [_known(Hit, hit) for hit in answer["results"][0]]


def _search_answer(answer: Any) -> SearchAnswer:
    results = [[_known(Hit, hit) for hit in hits] for hits in answer["results"]]
    return SearchAnswer(results, answer["timings_ms"], answer["usage"]["stages"], answer["truncated"])


def _write_result(answer: Any) -> WriteResult:
    return WriteResult(answer["upserted"], answer["unchanged"], answer["usage"]["total_tokens"], answer["truncated"])


def _page(answer: Any) -> tuple[list[Document], str | None]:
    return _page_documents(answer), answer["next"]


def _page_documents(answer: Any) -> list[Document]:
    return [_known(Document, document) for document in answer["documents"]]


def _collection_info(answer: Any) -> CollectionInfo:
    return _known(CollectionInfo, answer)


def _models(answer: Any) -> list[ModelInfo]:
    return [_known(ModelInfo, {**model, "name": model["id"]}) for model in answer["data"]]


def _known(kind: Callable[..., T], sent: Mapping[str, Any]) -> T:
    """A newer service may send more fields than this client knows."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: value for name, value in sent.items() if name in names})
