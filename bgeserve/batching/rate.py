"""How fast the workers are, measured: what turns queued tokens into seconds."""

from __future__ import annotations

from math import exp


class Rate:
    """Tokens per second of one worker, forgetting by tokens, so that a few tiny batches say little about the speed under load."""

    def __init__(self, memory_tokens: int) -> None:
        self._memory_tokens = memory_tokens
        self._tokens = 0.0
        self._busy_s = 0.0

    def add(self, tokens: int, busy_s: float) -> None:
        kept = exp(-tokens / self._memory_tokens)
        self._tokens = self._tokens * kept + tokens
        self._busy_s = self._busy_s * kept + busy_s

    @property
    def tokens_per_s(self) -> float:
        """0 before anything was measured."""
        return self._tokens / self._busy_s if self._busy_s > 0 else 0.0

    def seconds_for(self, tokens: float, workers: float) -> float:
        """Of `workers` together; 0 before anything was measured."""
        return tokens / (workers * self.tokens_per_s) if self._busy_s > 0 else 0.0
