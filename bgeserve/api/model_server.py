"""`POST /inference`, `/info` and `/support_methods`: what each of BAAI's model servers answers, `{"state": "ok" | "error", "msg": ...}`.

`msg` is the answer, or what was wrong. The same three over a deployment handle, dict in and dict out: `ModelServer`. Schema and mapping
together; what `inference` means is in `inference.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar, cast

import numpy as np
import orjson
from typing_extensions import TypedDict

from bgeserve.api.encoding import vector
from bgeserve.api.error_format import ErrorFormat, Problem
from bgeserve.api.inference import InferenceBody, inference
from bgeserve.api.model_facts import RerankerFacts, RetrieverFacts, facts_of
from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.schema import Body, parse
from bgeserve.backend import Backend
from bgeserve.caller import ANYONE, Caller
from bgeserve.errors import RequestError, ServiceError, UnknownModel
from bgeserve.settings import IngressSettings

B = TypeVar("B", bound=Body)


class ErrorAnswer(TypedDict):
    state: Literal["error"]
    msg: str


def _error_answer(problem: Problem) -> ErrorAnswer:
    return {"state": "error", "msg": problem.message}


ERRORS = ErrorFormat(ErrorAnswer, _error_answer)


# -- the methods, as a handle calls them -----------------------------------------------------------------------------------------------


class ModelBody(Body):
    model: str


async def info(backend: Backend, body: ModelBody) -> RetrieverFacts | RerankerFacts:
    return facts_of(await backend.model_info(body.model))


async def support_methods(backend: Backend, body: ModelBody) -> SupportedMethods:
    """Asks no model: a client may ask it before the model is there."""
    protocols = {status.name: status.protocol for status in await backend.model_statuses()}
    if body.model not in protocols:
        raise UnknownModel(f"model {body.model!r} is not served here; the models are {sorted(protocols)}", field="model")
    descriptions = {
        "inference": _INFERENCE[protocols[body.model]],
        "info": "what the model is",
        "support_methods": "this list",
    }
    return {"name": body.model, "support_methods": list(descriptions), "descriptions": descriptions}


_INFERENCE = {
    "retriever": "vectors of `sentences`: dense_vecs, lexical_weights, colbert_vecs",
    "reranker": "scores of `sentence_pairs`",
}


class ModelServer:
    """The three methods for whoever holds the application's handle. What is refused is an answer too; arrays stay numpy's."""

    def __init__(self, backend: Backend, limits: IngressSettings) -> None:
        self._backend = backend
        self._limits = limits

    async def inference(self, sent: object, caller: Caller = ANYONE) -> dict[str, Any]:
        return await self._answer(InferenceBody, lambda body: inference(self._backend, body, caller), sent)

    async def info(self, sent: object) -> dict[str, Any]:
        return await self._answer(ModelBody, lambda body: info(self._backend, body), sent)

    async def support_methods(self, sent: object) -> dict[str, Any]:
        return await self._answer(ModelBody, lambda body: support_methods(self._backend, body), sent)

    async def _answer(self, schema: type[B], method: Callable[[B], Awaitable[object]], sent: object) -> dict[str, Any]:
        try:
            return {"state": "ok", "msg": await method(parse(schema, sent, self._limits))}
        except (RequestError, ServiceError) as error:
            return dict(_error_answer(Problem.of(error).brief()))


# -- the same over HTTP ----------------------------------------------------------------------------------------------------------------


class SupportedMethods(TypedDict):
    name: str
    support_methods: list[str]
    descriptions: dict[str, str]


class SupportMethodsAnswer(TypedDict):
    state: Literal["ok"]
    msg: SupportedMethods


class InfoAnswer(TypedDict):
    state: Literal["ok"]
    msg: RetrieverFacts | RerankerFacts


class RetrieverVecs(TypedDict):
    """null for what was not asked for."""

    dense_vecs: list[list[float]] | None
    lexical_weights: list[dict[str, float]] | None
    """Per sentence: token id to weight."""
    colbert_vecs: list[list[list[float]]] | None


class RerankerVecs(TypedDict):
    scores: list[float] | list[list[float]]
    """Of each pair; of several cutoff layers one such list each."""


class InferenceResult(TypedDict):
    vecs: RetrieverVecs | RerankerVecs


class InferenceAnswer(TypedDict):
    state: Literal["ok"]
    msg: InferenceResult


async def post_inference(call: Call, body: InferenceBody) -> Answer:
    made = await inference(call.backend, body, call.caller())
    vecs = made["vecs"]
    return Answer(lambda: _ok({"vecs": {name: _json(values) for name, values in vecs.items()}}), sum(map(_size, vecs.values())))


async def post_info(call: Call, body: ModelBody) -> Answer:
    facts = await info(call.backend, body)
    return Answer(lambda: _ok(facts))


async def post_support_methods(call: Call, body: ModelBody) -> Answer:
    if call.key is not None:
        call.key.check_model(body.model)
    methods = await support_methods(call.backend, body)
    return Answer(lambda: _ok(methods))


def _ok(msg: object) -> dict[str, object]:
    return {"state": "ok", "msg": msg}


def _json(vecs: Any) -> Any:
    """Each text's as JSON of its own, so that no single call holds the interpreter for long."""
    if isinstance(vecs, dict):
        return orjson.Fragment(orjson.dumps(vecs, option=orjson.OPT_SERIALIZE_NUMPY))
    if isinstance(vecs, np.ndarray) and vecs.ndim == 1:
        return vector(vecs, "float")
    return None if vecs is None else [_json(row) for row in vecs]


def _size(vecs: Any) -> int:
    """At about ten characters a number, and as many for a token's id."""
    if isinstance(vecs, dict):
        return 20 * len(cast("dict[str, object]", vecs))
    if isinstance(vecs, np.ndarray):
        return 10 * vecs.size
    return 0 if vecs is None else sum(map(_size, vecs))


OPERATIONS = (
    Operation(
        "POST",
        "/inference",
        "Vectors of sentences, or scores of pairs",
        InferenceBody,
        InferenceAnswer,
        post_inference,
        errors=ERRORS,
        right="model",
    ),
    Operation("POST", "/info", "What a model is", ModelBody, InfoAnswer, post_info, errors=ERRORS, right="model"),
    Operation(
        "POST",
        "/support_methods",
        "What a model answers",
        ModelBody,
        SupportMethodsAnswer,
        post_support_methods,
        errors=ERRORS,
        right="model",
    ),
)
