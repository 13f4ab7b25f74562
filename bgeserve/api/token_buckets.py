"""How fast a key may spend tokens at this ingress: a bucket per key, which fills at the rate of its row.

The ingress has no tokenizer: a request is let in by a guess from its bytes, and charged what the models say it took. So a bucket may go
into debt, and the rate holds over time, not at each moment. Other ingress replicas have buckets of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from bgeserve.api.keys import Key
from bgeserve.errors import RateLimited, RequestError
from bgeserve.splitting import BYTES_PER_TOKEN

BURST_S = 10
"""What a bucket holds: the tokens of so many seconds, so that who was idle may ask for a page at once."""


@dataclass(slots=True)
class Spent:
    """What one request took. None: nobody knows, and the guess stands."""

    tokens: int | None = None


class TokenBuckets:
    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        """now: seconds on a clock that never goes back."""
        self._now = now
        self._buckets: dict[str, _Bucket] = {}

    @contextmanager
    def spending(self, key: Key, texts: Sequence[str]) -> Generator[Spent]:
        """Around what computes these texts, which says what they took. Raises RateLimited, before anything is computed."""
        spent = Spent()
        if key.tokens_per_s is None:
            yield spent
            return
        guess = sum(map(len, texts)) / BYTES_PER_TOKEN
        bucket = self._buckets.setdefault(key.id, _Bucket(BURST_S * key.tokens_per_s, self._now()))
        bucket.fill(key.tokens_per_s, self._now())
        bucket.take(guess, key)
        try:
            yield spent
        except RequestError:
            bucket.tokens += guess  # what was refused was not computed
            raise
        if spent.tokens is not None:
            bucket.tokens += guess - spent.tokens


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float

    def fill(self, tokens_per_s: float, now: float) -> None:
        self.tokens = min(BURST_S * tokens_per_s, self.tokens + tokens_per_s * (now - self.filled_at))
        self.filled_at = now

    def take(self, guess: float, key: Key) -> None:
        """A request above what the bucket holds is let in when it is full. Raises RateLimited with when it will be."""
        rate = key.tokens_per_s or 0
        needed = min(guess, BURST_S * rate)
        if self.tokens < needed:
            raise RateLimited(
                f"the key {key.id} may use {rate:g} tokens per second here (tokens_per_s); this request needs about {guess:.0f}, "
                f"and it has {self.tokens:.0f}",
                retry_after_s=(needed - self.tokens) / rate,
            )
        self.tokens -= guess
