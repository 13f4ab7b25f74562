"""What a request may ask of a model beside its texts, as JSON: the fields of EmbedderOptions and RerankerOptions.

Knows their form. Which of them a model takes, and which layers it has, the model knows, and refuses the rest by the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from bgeserve.api.schema import Body, Finite, Text, refuse
from bgeserve.quoting import brief
from bgeserve.types import OUTPUTS, EmbedderOptions, Example, Output, RerankerOptions

MAX_EXAMPLES = 32
MAX_LAYERS = 256
"""In one list: more than any model has."""

T = TypeVar("T")


# -- of embedders ----------------------------------------------------------------------------------------------------------------------


def _for_queries(sent: T, info: ValidationInfo) -> T:
    """Documents are embedded as they are: an index must not depend on what a request says."""
    if sent is not None and info.data.get("input_type") == "document":
        refuse('is for queries: it needs input_type "query", not "document" (the default)')
    return sent


class ExampleBody(Body):
    query: Text
    response: Text
    instruction: str | None = None
    """None: the instruction of the queries."""


def _check_count(sent: object) -> object:
    """Before each is looked at: a body may hold a hundred thousand."""
    if isinstance(sent, list) and len(cast("list[object]", sent)) > MAX_EXAMPLES:
        refuse(f"must hold at most {MAX_EXAMPLES} examples, not {len(cast('list[object]', sent))}")
    return sent


QueryInstruction = Annotated[str | None, AfterValidator(_for_queries)]
Examples = Annotated[list[ExampleBody] | None, BeforeValidator(_check_count), AfterValidator(_for_queries)]
"""Both stand behind `input_type` in their body."""


def embedder_options(instruction: str | None, examples: Sequence[ExampleBody] | None) -> EmbedderOptions | None:
    if instruction is None and examples is None:
        return None
    shown = None if examples is None else [Example(example.query, example.response, example.instruction) for example in examples]
    return EmbedderOptions(instruction, shown)


# -- of rerankers ----------------------------------------------------------------------------------------------------------------------


def _check_cutoff_layers(sent: object) -> tuple[int, ...] | None:
    if sent is None:
        return None
    layers = cast("list[object]", sent) if isinstance(sent, list) else [sent]
    # bool is an int to isinstance().
    if not 1 <= len(layers) <= MAX_LAYERS or any(type(layer) is not int for layer in layers):
        refuse(f"must be the number of a layer, or a list of 1 to {MAX_LAYERS} of them, not {brief(sent)}")
    return tuple(cast("list[int]", layers))


_CUTOFF_LAYERS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "integer"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": MAX_LAYERS},
        {"type": "null"},
    ]
}
CutoffLayers = Annotated[tuple[int, ...] | None, PlainValidator(_check_cutoff_layers), WithJsonSchema(_CUTOFF_LAYERS_SCHEMA)]

Weight = Annotated[Finite, Field(ge=0)]


class WeightsBody(Body):
    """Those left out count 0."""

    dense: Weight = 0
    sparse: Weight = 0
    multi_vector: Weight = 0

    def of(self) -> dict[Output, float]:
        stated = self.model_fields_set
        return {output: getattr(self, output) for output in OUTPUTS if output in stated}


def _check_weights(sent: WeightsBody) -> WeightsBody:
    if not any(sent.of().values()):
        refuse(f"must have at least one of {', '.join(OUTPUTS)} above 0, not {brief(sent.of())}")
    return sent


class RerankerOptionsBody(Body):
    """None: as the service's settings say. GET /v1/models says which of them a model takes."""

    instruction: str | None = None
    """Put before the query instead of the model's own."""
    prompt: str | None = None
    """The question about query and passage that an LLM reranker answers."""
    cutoff_layers: CutoffLayers = None
    """A layer, or several: each scores every passage, the deepest decides the order, and nothing above it is computed."""
    compress_layers: Annotated[list[int], Field(max_length=MAX_LAYERS)] | None = None
    """Layers before which the passage's tokens are averaged in runs of `compress_ratio`."""
    compress_ratio: Annotated[int, Field(ge=1)] | None = None
    weights: Annotated[WeightsBody, AfterValidator(_check_weights)] | None = None
    """Of each kind of vector in a hybrid score."""


def reranker_options(sent: RerankerOptionsBody) -> RerankerOptions | None:
    options = RerankerOptions(
        instruction=sent.instruction,
        prompt=sent.prompt,
        cutoff_layers=sent.cutoff_layers,
        compress_layers=None if sent.compress_layers is None else tuple(sent.compress_layers),
        compress_ratio=sent.compress_ratio,
        weights=None if sent.weights is None else sent.weights.of(),
    )
    return None if options == RerankerOptions() else options
