"""Sets one number in a YAML text and leaves every other character as it is: comments, blank lines, quotes, aligned columns.

Knows YAML. Does not know configs. A round trip through a YAML library would lay the whole file out anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import yaml

from bgeserve.errors import SettingsError

Path = Sequence[str | int]
"""Keys and indices, from the root down to a mapping."""


def with_number(text: str, path: Path, key: str, number: int) -> str:
    """The text with `key: number` in the mapping at `path`. Raises SettingsError where that would change anything else."""
    edited = _edit(text, _mapping(text, path), key, number)
    if _load(edited) != _expected(yaml.safe_load(text), path, key, number):
        raise SettingsError(f"{_name(path)} shares what it says with other places (an anchor): set {key}: {number} by hand")
    return edited


def _load(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _edit(text: str, mapping: yaml.MappingNode, key: str, number: int) -> str:
    entries = cast("list[tuple[yaml.ScalarNode, yaml.Node]]", mapping.value)
    for name, value in entries:
        if name.value == key:
            return text[: value.start_mark.index] + str(number) + text[value.end_mark.index :]
    if mapping.flow_style:
        end = entries[-1][1].end_mark.index
        return f"{text[:end]}, {key}: {number}{text[end:]}"
    # After the last entry that is one line: where a nested block ends, its comments and blank lines included, the parser does not say.
    name, value = next(((n, v) for n, v in reversed(entries) if n.start_mark.line == v.end_mark.line), entries[0])
    end_of_line = text.find("\n", value.end_mark.index)
    end = len(text) if end_of_line < 0 else end_of_line + 1
    newline = "\r\n" if text[:end].endswith("\r\n") else "\n"
    before = text[:end] if text[:end].endswith("\n") else text[:end] + newline
    return f"{before}{' ' * name.start_mark.column}{key}: {number}{newline}{text[end:]}"


def _mapping(text: str, path: Path) -> yaml.MappingNode:
    node = yaml.compose(text, yaml.SafeLoader)
    for part in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = cast("list[yaml.Node]", node.value)[part]
        elif isinstance(node, yaml.MappingNode):
            entries = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
            node = next((value for name, value in entries if name.value == part), None)
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError(f"{_name(path)} is not written out as a mapping of its own: edit it by hand")
    return node


def _expected(value: Any, path: Path, key: str, number: int) -> Any:
    """The parsed text with that one change; what an anchor stands for is changed in this place alone."""
    if not path:
        return {**value, key: number}
    part, *rest = path
    changed = _expected(value[part], rest, key, number)
    if isinstance(value, list):
        return [changed if i == part else one for i, one in enumerate(cast("list[Any]", value))]
    return {**value, part: changed}


def _name(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
