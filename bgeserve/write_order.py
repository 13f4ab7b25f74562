"""Which of several writes to one document wins: the one that was accepted last, however long each takes to be embedded.

Knows ids and sequence numbers, not documents, stores or clocks. Synchronous: its caller makes each decision and the change of the store
that follows from it one step.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from bgeserve.errors import InvalidRequest, StaleWrite

EXPIRY_S = 600.0
"""After which an accepted write that nobody finished is forgotten."""


class WriteOrder:
    """The accepted writes of one collection that are still open."""

    def __init__(self) -> None:
        # A random start, so that a number which an owner gave before its restart is unknown to the next one.
        self._next = secrets.randbits(62)
        self._open: dict[int, _OpenWrite] = {}

    def begin(self, ids: Iterable[str], now_s: float) -> int:
        """Accept a write of these ids; its sequence number is above all earlier ones."""
        self._forget_expired(now_s)
        sequence, self._next = self._next, self._next + 1
        self._open[sequence] = _OpenWrite(frozenset(ids), now_s)
        return sequence

    def applicable(self, sequence: int, ids: Iterable[str]) -> set[str]:
        """Those of a write's ids to which no newer write was applied.

        Raises StaleWrite, and InvalidRequest for ids that it did not begin with.
        """
        write = self._open.get(sequence)
        if write is None:
            raise StaleWrite(f"write {sequence} has ended, took over {EXPIRY_S:g} s, or is of an owner that has restarted: begin it again")
        wanted = set(ids)
        if unknown := wanted - write.ids:
            raise InvalidRequest(f"write {sequence} did not begin with document {min(unknown)!r}", field="id")
        return wanted - write.superseded

    def applied(self, sequence: int, ids: Iterable[str]) -> None:
        """A write took effect on these ids (stored, deleted, or found unchanged): older open writes must leave them alone.

        Said when it happens, not when a write is accepted: a newer write that fails must not have cost an older one.
        """
        done = set(ids)
        for older, write in self._open.items():
            if older < sequence:
                write.superseded |= write.ids & done

    def applied_to_all(self) -> None:
        """Everything was deleted: open writes must leave all their ids alone."""
        for write in self._open.values():
            write.superseded |= write.ids

    def end(self, sequence: int) -> None:
        self._open.pop(sequence, None)

    def has_open_writes(self, now_s: float) -> bool:
        self._forget_expired(now_s)
        return bool(self._open)

    def _forget_expired(self, now_s: float) -> None:
        self._open = {sequence: write for sequence, write in self._open.items() if write.began_s > now_s - EXPIRY_S}


@dataclass(slots=True)
class _OpenWrite:
    ids: frozenset[str]
    began_s: float
    superseded: set[str] = field(default_factory=set[str])
