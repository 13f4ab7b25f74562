"""Work that no replica has: told to the replicas along with the calls that they get, for those who decide how many there are.

Senders have no tokenizer and count bytes; what replicas say is in tokens.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from bgeserve.caller import Caller
from bgeserve.splitting import BYTES_PER_TOKEN

REMEMBERED_S = 5.0
"""A sender whose work waits sends calls all the time: one that has not been heard of for so long is gone, or has nothing left."""


class Waiting:
    """One request's texts of which a part has not been sent yet."""

    def __init__(self, size_bytes: int) -> None:
        self.left_bytes = size_bytes

    def sent(self, size_bytes: int) -> None:
        self.left_bytes -= size_bytes


class UnmetHere:
    """At one sender, for the replicas of one deployment."""

    def __init__(self) -> None:
        self._sender = uuid4().hex
        self._waiting: set[Waiting] = set()
        self._refused_bytes = 0

    @contextmanager
    def waiting(self, size_bytes: int) -> Generator[Waiting]:
        """Inside, so much waits, less what was `sent`."""
        waiting = Waiting(size_bytes)
        self._waiting.add(waiting)
        try:
            yield waiting
        finally:
            self._waiting.remove(waiting)

    def refused(self, size_bytes: int) -> None:
        self._refused_bytes += size_bytes

    def told_by(self, caller: Caller) -> Caller:
        """The caller with what waits here now, and what was refused since the last time this was asked."""
        refused_bytes, self._refused_bytes = self._refused_bytes, 0
        waiting_bytes = sum(waiting.left_bytes for waiting in self._waiting)
        return replace(caller, sender=self._sender, waiting_bytes=waiting_bytes, refused_bytes=refused_bytes)


class UnmetHeard:
    """At one replica, of all senders that it hears of. `now` in seconds."""

    def __init__(self) -> None:
        self.refused_tokens = 0.0
        self._waiting: dict[str, tuple[float, float]] = {}  # by sender: when heard, tokens

    def hear(self, caller: Caller, now: float) -> None:
        self.refused_tokens += caller.refused_bytes / BYTES_PER_TOKEN
        if caller.sender:
            self._waiting[caller.sender] = now, caller.waiting_bytes / BYTES_PER_TOKEN

    def waiting_tokens(self, now: float) -> float:
        self._waiting = {sender: (at, tokens) for sender, (at, tokens) in self._waiting.items() if now - at <= REMEMBERED_S}
        return sum(tokens for _, tokens in self._waiting.values())
