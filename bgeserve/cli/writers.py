"""Documents into a collection by several requests at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce

from bgeserve.async_client import AsyncClient
from bgeserve.splitting import add_written, gather_bounded
from bgeserve.types import Document, WriteResult

MAX_REQUESTS_IN_FLIGHT = 4
"""Enough that the service embeds one batch while it stores another; more would only wait in its queue."""


async def put(client: AsyncClient, documents: Iterator[Document], collection: str, on_progress: Callable[[int], object]) -> WriteResult:
    """The writers draw from one stream: each document is sent once, and no more requests are under way than there are writers.

    When one fails, none of the others writes any more when this has raised.
    """
    stored = [0] * MAX_REQUESTS_IN_FLIGHT

    async def writer(n: int) -> WriteResult:
        def count(stored_by_me: int) -> None:
            stored[n] = stored_by_me
            on_progress(sum(stored))

        return await client.put_documents(documents, collection=collection, on_progress=count)

    writers = [partial(writer, n) for n in range(MAX_REQUESTS_IN_FLIGHT)]
    return reduce(add_written, await gather_bounded(writers, MAX_REQUESTS_IN_FLIGHT))
