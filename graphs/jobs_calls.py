"""One call of a data job: sent again while the service has no room or restarts, halved while something in it is refused.

Knows documents and the errors of a write. Does not know how a call travels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from bgeserve.errors import ComputeError, InvalidRequest, Overloaded, StaleWrite, Unavailable
from bgeserve.types import Document, WriteResult
from bgeserve.wire import add

RETRY_S = 300.0
"""How long one call waits for a service that is full, restarts, or has lost its store's owner."""
PAUSE_S = 1.0

Send = Callable[[Sequence[Document]], Awaitable[WriteResult]]


@dataclass(frozen=True, slots=True)
class Outcome:
    written: WriteResult
    refused: Sequence[tuple[Document, str]] = ()
    """Documents that the service will never take, each with its reason."""


async def put(send: Send, documents: Sequence[Document], retry_s: float = RETRY_S) -> Outcome:
    """Halves a call that is refused for what is in it, down to the document that is the reason: the others are stored.

    Raises what no document would escape: InvalidRequest about the collection, FingerprintMismatch, StorageFull, NotFound; and after
    `retry_s` Overloaded, StaleWrite, Unavailable.
    """
    try:
        return Outcome(await _patiently(send, documents, retry_s))
    except (InvalidRequest, ComputeError) as error:
        if error.field == "collection":
            raise
        if len(documents) == 1:
            return Outcome(WriteResult(0, 0, 0), [(documents[0], error.message)])
    middle = len(documents) // 2
    first, second = await put(send, documents[:middle], retry_s), await put(send, documents[middle:], retry_s)
    return Outcome(add(first.written, second.written), [*first.refused, *second.refused])


async def _patiently(send: Send, documents: Sequence[Document], retry_s: float) -> WriteResult:
    give_up_at = monotonic() + retry_s
    while True:
        try:
            return await send(documents)
        except (Overloaded, StaleWrite, Unavailable) as error:
            pause_s = error.retry_after_s or PAUSE_S
            if monotonic() + pause_s > give_up_at:
                raise
        await asyncio.sleep(pause_s)
