"""What must be in a collection, by what its writers were told: the state of each document that was acknowledged last, or one that was begun
since. Knows no HTTP and no store.

A document's state is the version of its text; version 0 is its absence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

ABSENT = 0
Loss = Literal["lost", "came back", "not what was written", "stored twice", "miscounted"]


@dataclass(frozen=True, slots=True)
class Fault:
    loss: Loss
    message: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A collection as its service tells it."""

    documents: Sequence[tuple[str, str]]
    """Id and text of every document, page by page."""
    count: int
    hits: Sequence[tuple[str, str]]
    """Id and the start of the text of what a search finds."""


class Truth:
    """Of documents that each have one writer, which has one write of them under way."""

    def __init__(self) -> None:
        self._possible: dict[str, set[int]] = {}

    def begin(self, ids: Iterable[str], version: int) -> None:
        for id in ids:
            self._possible.setdefault(id, {ABSENT}).add(version)

    def acknowledge(self, ids: Iterable[str], version: int) -> None:
        """Whatever was begun before it is decided."""
        for id in ids:
            self._possible[id] = {version}

    def check(self, stored: Stored) -> list[Fault]:
        """What is not as it may be; what was found is the truth from here on, so that each loss is told once."""
        texts = dict(stored.documents)
        faults = [*self._duplicates(stored), *self._miscounted(stored, len(texts)), *self._hits(stored, texts)]
        for id in self._possible.keys() | texts.keys():
            versions = self._possible.get(id, {ABSENT})
            found = _version(id, texts.get(id), versions)
            if found is None:
                faults.append(_fault(id, texts.get(id), versions))
                found = ABSENT if id not in texts else int(texts[id].split()[2])
            self._possible[id] = {found}
        return faults

    @staticmethod
    def _duplicates(stored: Stored) -> Iterable[Fault]:
        for id, times in Counter(id for id, _ in stored.documents).items():
            if times > 1:
                yield Fault("stored twice", f"{id} comes {times} times in the pages of its collection")

    @staticmethod
    def _miscounted(stored: Stored, documents: int) -> Iterable[Fault]:
        if stored.count != documents:
            yield Fault("miscounted", f"the collection says that it has {stored.count} documents; its pages have {documents}")

    @staticmethod
    def _hits(stored: Stored, texts: dict[str, str]) -> Iterable[Fault]:
        for id, chunk in stored.hits:
            if chunk not in texts.get(id, ""):
                yield Fault("came back", f"a search finds {chunk!r} in {id}, whose text is {texts.get(id)!r}")


def text_of(id: str, version: int) -> str:
    """Of one or of several chunks; the words of other documents and versions are never all in it."""
    return f"amber {id} {version} begins." + "".join(f" Basalt {version} of {id} in line {line}." for line in range(version % 12))


def _version(id: str, text: str | None, versions: Iterable[int]) -> int | None:
    """Which of these states it is in; None: in none."""
    return next((version for version in versions if text == (text_of(id, version) if version else None)), None)


def _fault(id: str, text: str | None, versions: Iterable[int]) -> Fault:
    allowed = ", ".join("absent" if version == ABSENT else f"version {version}" for version in sorted(versions))
    if text is None:
        return Fault("lost", f"{id} is absent; it must be {allowed}")
    return Fault("came back" if set(versions) == {ABSENT} else "not what was written", f"{id} is {text!r}; it must be {allowed}")
