"""OpenAI's `/v1/embeddings` and `/v1/models`, for the clients that speak it. Schema and mapping together.

https://platform.openai.com/docs/api-reference/embeddings. `input_type` is ours (without it a text is embedded as a document), and so are
the fields of a model from `role` on.
"""

from __future__ import annotations

from time import time
from typing import Annotated, Literal, cast

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema
from typing_extensions import TypedDict

from bgeserve.api.encoding import EncodingFormat, Vector, json_bytes, vector
from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.schema import (
    TEXT_SCHEMA,
    TEXTS_SCHEMA,
    Body,
    Nothing,
    TokenUsage,
    as_list,
    check_text_or_texts,
    cut_indices,
    refuse,
    token_usage,
    total,
)
from bgeserve.errors import InvalidRequest
from bgeserve.quoting import brief
from bgeserve.types import Embeddings, InputType, ModelInfo, Output


def _refuse_token_ids(sent: object, info: ValidationInfo) -> str | list[str]:
    if isinstance(sent, list):
        first = cast("list[object]", sent)[:1]
        if first and isinstance(first[0], (int, list)):
            refuse(f"must be a string or a list of strings: not token ids such as {brief(sent)}, which only their tokenizer can read")
    return check_text_or_texts(sent, info)


class EmbeddingsBody(Body):
    input: Annotated[str | list[str], PlainValidator(_refuse_token_ids), WithJsonSchema({"anyOf": [TEXT_SCHEMA, TEXTS_SCHEMA]})]
    model: str | None = None
    """None: the only embedder."""
    encoding_format: EncodingFormat = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Only the model's own number."""
    user: str | None = None
    """Accepted and ignored."""
    input_type: InputType = "document"


class EmbeddingItem(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: Vector


class EmbeddingsResponse(TypedDict):
    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: TokenUsage
    truncated: list[int]
    """Indices of the inputs that were cut at the model's limit."""


async def embeddings(call: Call, body: EmbeddingsBody) -> Answer:
    model = call.model(body.model, "embedder")
    vectors = await call.backend.encode(
        model,
        as_list(body.input),
        outputs=("dense",),
        input_type=body.input_type,
        caller=call.caller(),
    )
    _check_dimensions(body.dimensions, vectors, model)
    return Answer(
        lambda: _response(vectors, model, body.encoding_format),
        json_bytes(vectors),
        timings_ms=vectors.timings_ms,
        model=model,
        tokens=total(vectors.tokens),
    )


def _check_dimensions(wanted: int | None, vectors: Embeddings, model: str) -> None:
    assert vectors.dense is not None
    dimensions = vectors.dense.shape[1]
    if wanted not in (None, dimensions):
        raise InvalidRequest(f"dimensions must be {dimensions}, the only number that {model} has, not {wanted}", field="dimensions")


def _response(vectors: Embeddings, model: str, encoding: EncodingFormat) -> EmbeddingsResponse:
    assert vectors.dense is not None
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": vector(row, encoding)} for i, row in enumerate(vectors.dense)],
        "model": model,
        "usage": token_usage(vectors.tokens),
        "truncated": cut_indices(vectors.truncated),
    }


_STARTED = int(time())


class ModelResponse(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    role: Literal["embedder", "reranker"]
    model: str
    max_tokens: int
    outputs: list[Output]
    dimensions: int | None
    fingerprint: str | None
    replicas: int
    family: str
    kind: str
    options: list[str]
    """Which options a request may state: fields of /v1/encode for an embedder, of /v1/rerank for a reranker."""
    layers: tuple[int, int] | None
    """First and last cutoff layer, of a reranker that can be cut."""


class ModelsResponse(TypedDict):
    object: Literal["list"]
    data: list[ModelResponse]


async def models(call: Call, body: Nothing) -> Answer:
    response: ModelsResponse = {"object": "list", "data": [_model(info) for info in await call.backend.models()]}
    return Answer(lambda: response)


async def retrieve_model(call: Call, body: Nothing) -> Answer:
    response = _model(await call.backend.model_info(call.path["name"]))
    return Answer(lambda: response)


def _model(info: ModelInfo) -> ModelResponse:
    return {
        "id": info.name,
        "object": "model",
        "created": _STARTED,
        "owned_by": "bge-serve",
        "role": info.role,
        "model": info.model,
        "max_tokens": info.max_tokens,
        "outputs": list(info.outputs),
        "dimensions": info.dimensions,
        "fingerprint": info.fingerprint,
        "replicas": info.replicas,
        "family": info.family,
        "kind": info.kind,
        "options": list(info.options),
        "layers": info.layers,
    }


OPERATIONS = (
    Operation(
        "POST",
        "/v1/embeddings",
        "Dense vectors in OpenAI's shape",
        EmbeddingsBody,
        EmbeddingsResponse,
        embeddings,
        {"texts": "input"},
        right="model",
    ),
    Operation("GET", "/v1/models", "The deployed models, in OpenAI's shape", Nothing, ModelsResponse, models, right="key"),
    Operation("GET", "/v1/models/{name}", "One deployed model", Nothing, ModelResponse, retrieve_model, right="model"),
)
