"""Counters, gauges and durations through one injected sink: a deployment injects Ray's metrics, a test a list, a script nothing.

Knows names and numbers, not where they go.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal, Protocol

ACCESS_LOGGER = "bgeserve.access"
"""The name under which each request has its line (`api/access_log.py`), for whoever decides where that goes."""

Kind = Literal["count", "gauge", "histogram"]


class Sink(Protocol):
    def __call__(self, kind: Kind, name: str, value: float, tags: dict[str, str]) -> None: ...


class Observer:
    """Hands measurements to a sink. Names end in their unit: `_total`, `_s`, `_tokens`, `_ratio`."""

    def __init__(self, sink: Sink | None = None, **tags: str) -> None:
        self._sink = sink
        self._tags = tags

    def count(self, name: str, value: float = 1, **tags: str) -> None:
        if value:  # Ray's counters refuse to count nothing
            self._send("count", name, value, tags)

    def gauge(self, name: str, value: float, **tags: str) -> None:
        self._send("gauge", name, value, tags)

    def record(self, name: str, value: float, **tags: str) -> None:
        self._send("histogram", name, value, tags)

    @contextmanager
    def duration(self, name: str, **tags: str) -> Generator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self.record(name, perf_counter() - started, **tags)

    def _send(self, kind: Kind, name: str, value: float, tags: dict[str, str]) -> None:
        if self._sink is not None:
            self._sink(kind, name, value, {**self._tags, **tags})
