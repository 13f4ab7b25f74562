"""The HTTP API as its clients speak it: each call as a Request, with what reads its answer (`answers`).

Knows paths, JSON and the error tree; sends nothing. The sync and the async client share all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

from bgeserve import answers
from bgeserve.errors import InvalidRequest
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness
from bgeserve.types import (
    Document,
    Embeddings,
    Example,
    Float32Array,
    Hit,
    InputType,
    Lane,
    Mode,
    ModelInfo,
    ModelStatus,
    Output,
    Scores,
    SearchAnswer,
    WriteResult,
    titled,
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


class ModelOptions(ComputeOptions, total=False):
    model: str | None
    """Default: the service's only model of that role."""
    truncate: bool
    """Default true; false: a text over the model's limit is refused instead of cut."""


class RerankOptions(ModelOptions, total=False):
    """None, and what is left out: as the service's settings say. Not every model takes each: `ModelInfo.options` says which."""

    instruction: str | None
    """Put before the query instead of the model's own."""
    prompt: str | None
    """The question about query and passage that an LLM reranker answers."""
    cutoff_layers: int | Sequence[int] | None
    """A layer, or several: `Scores.parts` has the scores of each."""
    compress_layers: Sequence[int] | None
    compress_ratio: int | None
    weights: Mapping[Output, float] | None
    """Of each kind of vector in a hybrid score; those left out count 0."""


class EmbedOptions(ModelOptions, total=False):
    input_type: InputType
    """Default document; models with a query instruction put it before queries."""
    instruction: str | None
    """With input_type query: put before each instead of the model's own; an empty string: none."""
    examples: Sequence[Example] | None
    """With input_type query: shown to a model that learns from examples."""


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
    instruction: str
    """Put before each query for the embedder, instead of the model's own."""
    truncate: bool


# -- requests --------------------------------------------------------------------------------------------------------------------------


def encode(texts: str | Sequence[str], options: EncodeOptions) -> Request[Embeddings]:
    return _encode(texts, answers.embeddings, options)


def embed(texts: str | Sequence[str], options: EmbedOptions) -> Request[Float32Array]:
    return _encode(texts, answers.dense, options)


def rerank(query: str, passages: Sequence[str], options: RerankOptions) -> Request[Scores]:
    return _call("POST", "/v1/rerank", answers.scores, {"query": query, "documents": list(passages), "return_documents": False}, options)


def search(query: str, options: SearchOptions) -> Request[list[Hit]]:
    return _call("POST", "/v1/search", answers.hits_of_one, {"query": [query]}, options)


def search_many(queries: Sequence[str], options: SearchOptions) -> Request[SearchAnswer]:
    return _call("POST", "/v1/search", answers.search_answer, {"query": list(queries)}, options)


def put_documents(collection: str, documents: Sequence[Document], options: ComputeOptions) -> Request[WriteResult]:
    body = {"documents": [{"id": d.id, "title": d.title, "text": d.text, "metadata": dict(d.metadata)} for d in documents]}
    return _call("PUT", _documents(collection), answers.write_result, body, {"timeout_s": WRITE_TIMEOUT_S, **options})


def get_documents(collection: str, ids: Sequence[str], options: CallOptions) -> Request[list[Document]]:
    return Request("GET", _documents(collection), answers.page_documents, query={"id": list(ids)}, timeout_s=options.get("timeout_s"))


def page_of_documents(collection: str, limit: int, after: str | None, options: CallOptions) -> Request[tuple[list[Document], str | None]]:
    query: dict[str, str | int] = {"limit": limit} if after is None else {"limit": limit, "after": after}
    return Request("GET", _documents(collection), answers.page, query=query, timeout_s=options.get("timeout_s"))


def delete_documents(collection: str, ids: Sequence[str] | None, filter: Mapping[str, Any] | None, options: CallOptions) -> Request[int]:
    body = {name: value for name, value in (("ids", ids and list(ids)), ("filter", filter)) if value is not None}
    return _call("DELETE", _documents(collection), lambda answer: answer["deleted"], body, {"timeout_s": WRITE_TIMEOUT_S, **options})


def models() -> Request[list[ModelInfo]]:
    return Request("GET", "/v1/models", answers.models)


def statuses() -> Request[list[ModelStatus]]:
    return Request("GET", "/v1/status", answers.statuses)


def loads() -> Request[list[ModelLoad]]:
    return Request("GET", "/v1/load", answers.loads)


def ready() -> Request[Readiness]:
    return Request("GET", "/readyz", answers.readiness, accepted=(200, 503))


def split_documents(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Lists that are small enough for one write each; a document that is too large for that goes alone."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        length = len(titled(document.title, document.text).encode(errors="replace"))
        if batch and (len(batch) == MAX_PUT_DOCUMENTS or size + length > MAX_PUT_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += length
    if batch:
        yield batch


def _encode(texts: str | Sequence[str], parse: Callable[[Any], T], options: Mapping[str, Any]) -> Request[T]:
    body: dict[str, Any] = {"input": _list(texts), "encoding_format": "base64"}
    if (examples := options.get("examples")) is not None:
        options = {**options, "examples": [asdict(example) for example in examples]}
    return _call("POST", "/v1/encode", parse, body, options)


def _call(method: str, path: str, parse: Callable[[Any], T], body: Mapping[str, Any], options: Mapping[str, Any]) -> Request[T]:
    fields = {name: value for name, value in options.items() if name not in ComputeOptions.__annotations__}
    return Request(method, path, parse, {**body, **fields}, lane=options.get("lane"), timeout_s=options.get("timeout_s"))


def _documents(collection: str) -> str:
    return f"/v1/collections/{quote(collection, safe='')}/documents"


def _list(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
