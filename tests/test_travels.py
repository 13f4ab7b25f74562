"""Two versions of a type meet: each takes what it knows, and defaults stand for what the other did not send."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, field
from typing import Any, get_type_hints

import pytest

from bgeserve import filters, fusion, protocols, types
from bgeserve.caller import Caller
from bgeserve.travels import travels
from bgeserve.types import Hit


@travels
class Old:
    id: str
    score: float = 0.5


@travels
class New:
    id: str
    score: float = 0.5
    title: str = "untitled"
    scores: Mapping[str, float] = field(default_factory=dict)


def sent(value: object, read_as: type, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a reader has whose class of this name is another."""
    bytes_ = pickle.dumps(value)
    monkeypatch.setitem(globals(), type(value).__name__, read_as)
    return pickle.loads(bytes_)


def test_what_an_older_version_did_not_send_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    read = sent(Old("a", 0.7), New, monkeypatch)
    assert read == New("a", 0.7, "untitled", {})
    assert read.scores is not sent(Old("b"), New, monkeypatch).scores


def test_what_a_newer_version_sends_beside_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent(New("a", 0.7, "T", {"dense": 1.0}), Old, monkeypatch) == Old("a", 0.7)


def test_a_value_is_frozen_slotted_and_itself_again() -> None:
    value = New("a", scores={"dense": 1.0})
    assert pickle.loads(pickle.dumps(value)) == value
    with pytest.raises(FrozenInstanceError):
        value.id = "b"  # type: ignore[misc]
    assert not hasattr(value, "__dict__")


def test_every_type_that_crosses_a_handle_travels() -> None:
    named = [kind for module in (types, filters, protocols) for kind in vars(module).values() if isinstance(kind, type)]
    crossing = {kind for kind in named if hasattr(kind, "__dataclass_fields__")} | {fusion.Fusion, Caller}
    assert len(crossing) > 20
    assert {kind.__setstate__.__module__ for kind in crossing} == {travels.__module__}  # type: ignore[attr-defined]
    assert get_type_hints(Hit)["score"] is float
