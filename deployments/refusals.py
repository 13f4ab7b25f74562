"""What full replicas said lately: whoever would be refused again for the same reason is told so without asking them.

Under overload most requests are refused, and each question would take a replica's time away from those that are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from bgeserve.errors import Overloaded
from bgeserve.types import Lane

REMEMBERED_SHARE = 0.2
"""Of the backlog that was stated: so much of it is done, and can be filled again, before somebody asks again."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    message: str
    until: float
    backlog_done_at: float


class Refusals:
    """Per lane and tenant, which a replica tells apart."""

    def __init__(self) -> None:
        self._latest: dict[tuple[Lane, str], _Refusal] = {}

    def remember(self, lane: Lane, tenant: str, refusal: Overloaded) -> None:
        now, backlog_s = monotonic(), refusal.retry_after_s or 0.0
        self._latest[lane, tenant] = _Refusal(refusal.message, now + REMEMBERED_SHARE * backlog_s, now + backlog_s)

    def check(self, lane: Lane, tenant: str) -> None:
        """Raises Overloaded, with what is left of the backlog."""
        latest = self._latest.get((lane, tenant))
        if latest is None:
            return
        now = monotonic()
        if now < latest.until:
            raise Overloaded(latest.message, retry_after_s=latest.backlog_done_at - now)
        del self._latest[lane, tenant]
