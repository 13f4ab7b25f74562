"""How many bytes of requests may be in progress at one ingress: it has no tokenizer, so bytes are its unit.

Knows sizes, tenants and how long requests take. Does not know what they ask for.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from bgeserve.errors import Overloaded

RECENT = 0.05
"""Weight of the newest request in the mean of how long they take."""


class ByteBudget:
    """Past `max_bytes` a request is refused, unless its tenant holds less than an equal share: then up to twice as much is let in."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[str, int] = {}
        self._mean_s = 0.0

    @contextmanager
    def request(self, tenant: str) -> Generator[Held]:
        """One request in progress; what it holds is given back at its end."""
        held, started = Held(self, tenant), monotonic()
        try:
            yield held
        finally:
            self._add(tenant, -held.bytes)
            if held.bytes:
                self._mean_s += (monotonic() - started - self._mean_s) * (RECENT if self._mean_s else 1)

    def admit(self, tenant: str, new_bytes: int) -> None:
        """Raises Overloaded."""
        total = sum(self._held.values()) + new_bytes
        own = self._held.get(tenant, 0) + new_bytes
        share = self._max_bytes / len({*self._held, tenant})
        if total > self._max_bytes and (own > share or total > 2 * self._max_bytes):
            # Little's law: what is in progress now is done after as long as one request takes.
            raise Overloaded(
                f"requests in progress hold {total - new_bytes} bytes; the limit is {self._max_bytes} (max_inflight_bytes)",
                retry_after_s=self._mean_s or 1.0,
            )
        self._add(tenant, new_bytes)

    def _add(self, tenant: str, some_bytes: int) -> None:
        held = self._held.get(tenant, 0) + some_bytes
        if held:
            self._held[tenant] = held
        else:
            self._held.pop(tenant, None)


class Held:
    """What one request holds so far."""

    def __init__(self, budget: ByteBudget, tenant: str) -> None:
        self._budget = budget
        self._tenant = tenant
        self.bytes = 0

    def grow(self, to_bytes: int) -> None:
        """Raises Overloaded."""
        if to_bytes > self.bytes:
            self._budget.admit(self._tenant, to_bytes - self.bytes)
            self.bytes = to_bytes
