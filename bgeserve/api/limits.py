"""What a request may cost: bytes of body, seconds until its answer, and nothing more once its client is gone. Knows no JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from bgeserve.api.admission import Held
from bgeserve.errors import DeadlineExceeded, SlowBody, TooLarge


async def read_body(request: Request, max_bytes: int, timeout_s: float, held: Held) -> bytes:
    """The whole body, counted while it arrives: content-length may be absent, and may lie.

    Raises TooLarge, SlowBody, Overloaded (other requests in progress hold too much already), ClientDisconnect.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise _too_large(max_bytes, declared)
    held.grow(int(declared) if declared.isdecimal() else 0)
    chunks: list[bytes] = []
    arrived = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                arrived += len(chunk)
                if arrived > max_bytes:
                    raise _too_large(max_bytes, f"{arrived} or more")
                held.grow(arrived)
                chunks.append(chunk)
    except TimeoutError:
        problem = f"the body must arrive within {timeout_s:g} s (body_timeout_s); {arrived} bytes of it did"
        raise SlowBody(problem, field="body") from None
    return b"".join(chunks)


def _too_large(max_bytes: int, sent: str) -> TooLarge:
    return TooLarge(f"the body may have at most {max_bytes} bytes (max_body_bytes), not {sent[:20]}", field="body")


@asynccontextmanager
async def deadline(timeout_s: float) -> AsyncGenerator[None]:
    """Cancels what runs inside after `timeout_s` and raises DeadlineExceeded."""
    clock = asyncio.timeout(timeout_s)
    try:
        async with clock:
            yield
    except TimeoutError:
        if not clock.expired():
            raise
        raise DeadlineExceeded(f"no answer within {timeout_s * 1000:.0f} ms; the header x-timeout-ms asks for more time") from None


@asynccontextmanager
async def while_client_waits(receive: Receive) -> AsyncGenerator[None]:
    """Cancels what runs inside when the client hangs up, and raises ClientDisconnect. The body must have been read."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # Someone above (the deadline, the server going down) may have cancelled us as well: theirs goes on upwards.
        if not gone or task.uncancel() > 0:
            raise
        raise ClientDisconnect from None
    finally:
        watcher.cancel()
