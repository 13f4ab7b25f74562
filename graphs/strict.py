"""What is wrong with a mapping that is meant for a pydantic model, each problem with its path. Ray's schemas ignore unknown keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, Discriminator, Tag, ValidationError
from pydantic.fields import FieldInfo

Model = type[BaseModel]


def problems(sent: object, model: Model, path: str = "") -> list[str]:
    """One line for each problem; unknown keys alone when there are any, since they explain most of what else would be reported."""
    if unknown := list(_unknown_keys(sent, model, path)):
        return unknown
    try:
        model.model_validate(sent)
    except ValidationError as error:
        return [_line(path, _sent_location(details["loc"], sent), details["msg"]) for details in error.errors()]
    return []


def unknown_key(path: str, key: object, known: Sequence[str]) -> str:
    close = get_close_matches(str(key), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
    return f"{_join(path, key)}: unknown key; {hint}"


def _unknown_keys(sent: object, annotation: Any, path: str) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if isinstance(sent, Mapping):
            yield from _unknown_keys_of_model(cast("Mapping[object, object]", sent), annotation, path)
        return
    arguments = get_args(annotation)
    if get_origin(annotation) in (list, tuple) and isinstance(sent, Sequence) and not isinstance(sent, str):
        for i, item in enumerate(cast("Sequence[object]", sent)):
            yield from _unknown_keys(item, arguments[0], f"{path}[{i}]")
    elif get_origin(annotation) is dict and arguments and isinstance(sent, Mapping):
        for key, value in cast("Mapping[object, object]", sent).items():
            yield from _unknown_keys(value, arguments[1], _join(path, key))
    elif len(alternatives := [argument for argument in arguments if _reaches_model(argument)]) == 1:
        yield from _unknown_keys(sent, alternatives[0], path)


def _unknown_keys_of_model(sent: Mapping[object, object], model: Model, path: str) -> Iterator[str]:
    fields = {field.alias or name: _chosen(field, sent.get(name)) for name, field in model.model_fields.items()}
    for key, value in sent.items():
        if key in fields:
            yield from _unknown_keys(value, fields[str(key)], _join(path, key))
        else:
            yield unknown_key(path, key, list(fields))


def _chosen(field: FieldInfo, sent: object) -> Any:
    """What the field is, or of several models the one that its discriminator picks for what was sent."""
    choose = next((each.discriminator for each in field.metadata if isinstance(each, Discriminator)), None)
    if not callable(choose):
        return field.annotation
    tag = Tag(str(choose(sent)))
    return next((get_args(choice)[0] for choice in get_args(field.annotation) if tag in get_args(choice)), None)


def _reaches_model(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_reaches_model(argument) for argument in get_args(annotation))


def _sent_location(location: Sequence[str | int], sent: object) -> Sequence[str | int]:
    """Without the tags by which pydantic tells the members of a union apart: they stand in its location, but nowhere in what was sent."""
    found: list[str | int] = []
    for i, part in enumerate(location):
        if isinstance(sent, Mapping) and part in sent:
            sent = cast("Mapping[object, object]", sent)[part]
        elif isinstance(sent, Sequence) and isinstance(part, int) and part < len(sent):
            sent = cast("Sequence[object]", sent)[part]
        elif i + 1 < len(location):
            continue
        found.append(part)
    return found


def _line(path: str, location: Sequence[str | int], message: str) -> str:
    for part in location:
        path = f"{path}[{part}]" if isinstance(part, int) else _join(path, part)
    return f"{path or 'the configuration'}: {message.removeprefix('Value error, ')}"


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
