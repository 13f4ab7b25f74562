"""The building blocks of every request schema, and the one place where a failed check becomes an InvalidRequest.

A message names the field, what it must be (with the limit), and what was sent. Knows no dialect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from bgeserve.errors import InvalidRequest
from bgeserve.filters import Filter, parse_filter
from bgeserve.quoting import MAX_QUOTED_CHARACTERS, brief, brief_where_texts_stand
from bgeserve.settings import IngressSettings

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """A request, or an object in one: unknown fields are refused by name, and nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    # pydantic reports unknown fields too, but one error each: a body of a million of them would be answered very slowly.
    @model_validator(mode="before")
    @classmethod
    def _no_unknown_fields(cls, sent: Any) -> Any:
        if not isinstance(sent, dict):
            refuse(f"must be an object, not {brief_where_texts_stand(sent)}")
        unknown = cast("dict[str, Any]", sent).keys() - cls.model_fields.keys()
        if unknown:
            refuse(f"is not a field here; the fields are: {', '.join(cls.model_fields) or 'none'}", at=f".{_name(min(unknown))}")
        return sent


def _name(sent: str) -> str:
    return sent if len(sent) <= MAX_QUOTED_CHARACTERS else "..."


class Nothing(Body):
    """A request without parameters."""


def parse(schema: type[M], sent: object, limits: IngressSettings, *, from_query_string: bool = False) -> M:
    """Raises InvalidRequest."""
    try:
        return schema.model_validate(sent, context=limits, strict=not from_query_string)
    except ValidationError as error:
        raise _as_invalid_request(error) from None


def limits_of(info: ValidationInfo) -> IngressSettings:
    return cast("IngressSettings", info.context)


def refuse(problem: str, at: str = "") -> NoReturn:
    """From inside a validator: `at` continues the path of the value that it validates, such as "[3]"."""
    raise PydanticCustomError("refused", "{problem}", {"problem": problem, "at": at})


def _as_invalid_request(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]) + str(context.get("at", ""))
    path = path.removeprefix(".")
    if first["type"] == "refused":
        problem = first["msg"]
    elif first["type"] == "missing":
        problem = f"is required; sent were: {', '.join(sorted(first['input'])) or 'no fields'}"
    elif first["type"] in ("too_short", "too_long"):
        problem = f"{first['msg'].partition(' ')[2]}"  # "List should have at least 1 item after validation, not 0"
    else:
        problem = f"{first['msg'].partition(' ')[2]}, not {brief(first['input'])}"  # "Input should be ...", "String should ..."
    return InvalidRequest(f"{path or 'the body'} {problem}", field=path or None)


# -- texts -----------------------------------------------------------------------------------------------------------------------------


def check_text(sent: object, at: str = "") -> str:
    if not isinstance(sent, str):
        refuse(f"must be a string, not {brief(sent)}", at)
    if not sent or sent.isspace():
        refuse(f"must have at least one character that is not white space, not {brief(sent)}", at)
    return sent


def check_items(sent: object, limits: IngressSettings, what: str) -> Sequence[object]:
    """The items of a list that is neither empty nor longer than a request may be."""
    if not isinstance(sent, list):
        refuse(f"must be a list of {what}, not {brief_where_texts_stand(sent)}")
    items = cast("list[object]", sent)
    if not 1 <= len(items) <= limits.max_texts:
        refuse(f"must hold 1 to {limits.max_texts} {what} (max_texts), not {len(items)}")
    return items


def check_texts(sent: object, info: ValidationInfo) -> list[str]:
    return [check_text(item, f"[{i}]") for i, item in enumerate(check_items(sent, limits_of(info), "texts"))]


def check_text_or_texts(sent: object, info: ValidationInfo) -> str | list[str]:
    if isinstance(sent, str):
        return check_text(sent)
    if not isinstance(sent, list):
        refuse(f"must be a string or a list of strings, not {brief(sent)}")
    return check_texts(cast("object", sent), info)


def _check_one_text(sent: object) -> str:
    return check_text(sent)


TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
TEXTS_SCHEMA: dict[str, Any] = {"type": "array", "items": TEXT_SCHEMA, "minItems": 1}

Text = Annotated[str, PlainValidator(_check_one_text), WithJsonSchema(TEXT_SCHEMA)]
TextOrTexts = Annotated[str | list[str], PlainValidator(check_text_or_texts), WithJsonSchema({"anyOf": [TEXT_SCHEMA, TEXTS_SCHEMA]})]


# -- names, filters, numbers -----------------------------------------------------------------------------------------------------------

FILTER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "field with eq, in or bounds (gt, gte, lt, lte) that are numbers or ISO 8601 dates; or one of and, or, not over filters",
    "examples": [
        {"field": "module", "in": ["gzip", "bz2"]},
        {"and": [{"field": "lines", "gte": 10}, {"not": {"field": "module", "eq": "os"}}]},
    ],
}
JsonFilter = Annotated[Filter, PlainValidator(parse_filter), WithJsonSchema(FILTER_SCHEMA)]


def _up_to_max_top_k(sent: int, info: ValidationInfo) -> int:
    most = limits_of(info).max_top_k
    if sent > most:
        refuse(f"must be at most {most} (max_top_k), not {sent}")
    return sent


Finite = Annotated[float, Field(allow_inf_nan=False)]
UpToMaxTopK = Annotated[int, Field(ge=1), AfterValidator(_up_to_max_top_k)]
Offset = Annotated[int, Field(ge=0), AfterValidator(_up_to_max_top_k)]


# -- mapping ---------------------------------------------------------------------------------------------------------------------------


def as_list(one_or_many: str | Sequence[str]) -> list[str]:
    return [one_or_many] if isinstance(one_or_many, str) else list(one_or_many)


def total(tokens: Sequence[int] | Mapping[str, int]) -> int:
    """Plain int: counts may come as numpy's."""
    return int(sum(tokens.values() if isinstance(tokens, Mapping) else tokens))


class TokenUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


def token_usage(tokens: Sequence[int]) -> TokenUsage:
    return {"prompt_tokens": total(tokens), "total_tokens": total(tokens)}


def cut_indices(truncated: Sequence[bool]) -> list[int]:
    return [i for i, was_cut in enumerate(truncated) if was_cut]
