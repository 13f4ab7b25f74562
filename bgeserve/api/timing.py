"""Where a request's time went, as the header `server-timing` says it (https://www.w3.org/TR/server-timing/)."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter


class Timer:
    """Laps of one request, in milliseconds."""

    def __init__(self) -> None:
        self._started = self._last = perf_counter()
        self._laps_ms: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """What was done since the lap before."""
        now = perf_counter()
        self._laps_ms[name] = 1000 * (now - self._last)
        self._last = now

    def stages_ms(self, within_answer: Mapping[str, float]) -> dict[str, float]:
        """`read` (body and JSON), `answer` (the backend; what is known of its inside follows), `render` (JSON)."""
        return {**self._laps_ms, **within_answer}

    def header(self, stages_ms: Mapping[str, float]) -> str:
        """The stages, and `total`."""
        total_ms = 1000 * (perf_counter() - self._started)
        return ", ".join(f"{name};dur={ms:.2f}" for name, ms in {**stages_ms, "total": total_ms}.items())
