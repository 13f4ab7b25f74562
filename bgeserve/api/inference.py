"""`inference` of BAAI's model servers, onto the backend: `sentences` to vectors, `sentence_pairs` to scores, with FlagEmbedding's options.

Knows neither HTTP nor handles: `model_server` offers it over both. Answers hold numpy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, cast

import numpy as np
from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from bgeserve.api.options import CutoffLayers
from bgeserve.api.schema import TEXT_SCHEMA, Body, TextOrTexts, as_list, check_items, check_text, limits_of, refuse
from bgeserve.backend import Backend
from bgeserve.caller import Caller
from bgeserve.errors import InvalidRequest
from bgeserve.quoting import brief_where_texts_stand
from bgeserve.splitting import gather_bounded
from bgeserve.types import Embeddings, Float32Array, Output, RerankerOptions, Scores

MAX_QUERIES_IN_FLIGHT = 8
"""Different queries of one call that are reranked at a time."""

Pair = tuple[str, str]


# -- what is asked ---------------------------------------------------------------------------------------------------------------------


def _check_pairs(sent: object, info: ValidationInfo) -> list[Pair] | None:
    """One pair, or a list of pairs; over a handle they may be tuples."""
    if sent is None:
        return None
    if isinstance(sent, (list, tuple)) and len(cast("Sequence[object]", sent)) == 2 and all(isinstance(part, str) for part in sent):
        return [_pair(cast("object", sent), "")]
    return [_pair(pair, f"[{i}]") for i, pair in enumerate(check_items(sent, limits_of(info), "pairs"))]


def _pair(sent: object, at: str) -> Pair:
    if not isinstance(sent, (list, tuple)) or len(cast("Sequence[object]", sent)) != 2:
        refuse(f"must be a query and a passage, not {brief_where_texts_stand(sent)}", at)
    query, passage = cast("Sequence[object]", sent)
    return check_text(query, f"{at}[0]"), check_text(passage, f"{at}[1]")


_PAIR_SCHEMA: dict[str, Any] = {"type": "array", "items": TEXT_SCHEMA, "minItems": 2, "maxItems": 2}
_PAIRS_SCHEMA: dict[str, Any] = {"anyOf": [_PAIR_SCHEMA, {"type": "array", "items": _PAIR_SCHEMA, "minItems": 1}, {"type": "null"}]}
Pairs = Annotated[list[Pair] | None, PlainValidator(_check_pairs), WithJsonSchema(_PAIRS_SCHEMA)]


class InferenceOptions(Body):
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Accepted and ignored: batches form by tokens, from the texts of all callers."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """At least the model's own limit, which is the deployment's (`max_tokens`)."""
    return_dense: bool = True
    return_sparse: bool = False
    return_colbert_vecs: bool = False
    normalize: bool = False
    """Of a reranker: scores in [0, 1], by the sigmoid."""
    cutoff_layers: CutoffLayers = None
    """Of a layerwise reranker: a layer, or several."""

    def outputs(self) -> tuple[Output, ...]:
        wanted = {"dense": self.return_dense, "sparse": self.return_sparse, "multi_vector": self.return_colbert_vecs}
        return tuple(cast("Output", output) for output, is_wanted in wanted.items() if is_wanted)


_ONLY_WITH: Mapping[str, frozenset[str]] = {
    "sentences": frozenset({"return_dense", "return_sparse", "return_colbert_vecs"}),
    "sentence_pairs": frozenset({"normalize", "cutoff_layers"}),
}


def _check_options(sent: InferenceOptions, info: ValidationInfo) -> InferenceOptions:
    for field, options in _ONLY_WITH.items():
        if info.data.get(field) is None and (wrong := sent.model_fields_set & options):
            refuse(f"goes with {field}, which the request does not have", at=f".{min(wrong)}")
    if not sent.outputs():
        refuse("must ask for at least one of return_dense, return_sparse and return_colbert_vecs; all of them are false")
    return sent


class InferenceBody(Body):
    """Either sentences, for a retriever, or sentence_pairs, for a reranker."""

    model: str
    sentences: TextOrTexts | None = None
    sentence_pairs: Pairs = None
    """One [query, passage], or a list of them."""
    options: Annotated[InferenceOptions, AfterValidator(_check_options)] = InferenceOptions()


# -- what is answered ------------------------------------------------------------------------------------------------------------------


async def inference(backend: Backend, body: InferenceBody, caller: Caller) -> dict[str, Any]:
    """`{"vecs": ...}`. Raises InvalidRequest beside what the backend raises."""
    if (body.sentences is None) == (body.sentence_pairs is None):
        sent = "neither" if body.sentences is None else "both"
        raise InvalidRequest(f"the request must have either sentences or sentence_pairs; it has {sent}", field="sentences")
    await _check_max_length(backend, body)
    if body.sentences is None:
        return {"vecs": {"scores": await _scores(backend, body, caller)}}
    outputs = body.options.outputs()
    texts = as_list(body.sentences)
    return {"vecs": _vectors(await backend.encode(body.model, texts, outputs=outputs, caller=caller))}


async def _check_max_length(backend: Backend, body: InferenceBody) -> None:
    asked = body.options.max_length
    if asked is None:
        return
    limit = (await backend.model_info(body.model)).max_tokens
    if asked < limit:
        problem = f"must be at least {limit}, not {asked}: where texts are cut is {body.model}'s `max_tokens`, a setting of its deployment"
        raise InvalidRequest(f"options.max_length {problem}", field="options.max_length")


def _vectors(made: Embeddings) -> dict[str, Any]:
    sparse = None if made.sparse is None else [dict(zip(map(str, row.indices.tolist()), row.values, strict=True)) for row in made.sparse]
    return {"dense_vecs": made.dense, "lexical_weights": sparse, "colbert_vecs": made.multi_vector}


async def _scores(backend: Backend, body: InferenceBody, caller: Caller) -> Float32Array | list[Float32Array]:
    """Of each pair, in order; of several cutoff layers one such list each, in the order in which they were asked for."""
    pairs, layers = body.sentence_pairs or [], tuple(dict.fromkeys(body.options.cutoff_layers or ())) or None
    options = None if layers is None else RerankerOptions(cutoff_layers=layers)
    by_query: dict[str, list[int]] = {}
    for i, (query, _) in enumerate(pairs):
        by_query.setdefault(query, []).append(i)

    async def scored(query: str, places: Sequence[int]) -> Scores:
        passages = [pairs[i][1] for i in places]
        return await backend.rerank(body.model, query, passages, options=options, caller=caller)

    answers = await gather_bounded([partial(scored, query, places) for query, places in by_query.items()], MAX_QUERIES_IN_FLIGHT)
    order = np.argsort([i for places in by_query.values() for i in places])

    def in_order(name: str | None) -> Float32Array:
        return np.concatenate([_of_part(answer, name, body.options.normalize) for answer in answers])[order]

    if layers is None or len(layers) == 1:
        return in_order(None)
    return [in_order(f"layer_{layer}") for layer in layers]


def _of_part(scores: Scores, name: str | None, normalize: bool) -> Float32Array:
    if name is None:
        return scores.normalized if normalize else scores.raw
    raw = scores.parts[name]
    return (1 / (1 + np.exp(-raw.astype(np.float64)))).astype(np.float32) if normalize else raw
