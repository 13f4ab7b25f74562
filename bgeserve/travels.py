"""Values that two versions of the service send each other while one replaces the other: fields are only ever added, with a default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def travels(kind: type[T]) -> type[T]:
    """A frozen dataclass that is pickled by its fields' names: what the reader does not know is left out, and what the writer did not know
    has its default. (A slotted dataclass is pickled by position else, and a field that was not sent is left without any value.)
    """
    made: Any = dataclass(frozen=True, slots=True)(kind)
    # The slots themselves, as a frozen object's own way to them is closed, and `object.__setattr__` is slower.
    slots: list[tuple[str, Any, Callable[[], Any] | None]] = [(each.name, vars(made)[each.name], _default(each)) for each in fields(made)]

    def get_state(self: T) -> dict[str, Any]:
        return {name: slot.__get__(self) for name, slot, _ in slots}

    def set_state(self: T, state: Mapping[str, Any]) -> None:
        for name, slot, default in slots:
            if name in state:
                slot.__set__(self, state[name])
            elif default is not None:
                slot.__set__(self, default())

    made.__getstate__, made.__setstate__ = get_state, set_state
    return made


def _default(each: Any) -> Callable[[], Any] | None:
    if each.default is not MISSING:
        return lambda: each.default
    return None if each.default_factory is MISSING else each.default_factory
