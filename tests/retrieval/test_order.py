"""Two writes to "a": what counts is which was accepted later, not which was embedded first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bgeserve.errors import InvalidRequest, StaleWrite
from bgeserve.filters import Equals
from bgeserve.protocols import Retriever
from bgeserve.retrieval import MAX_PIECE, StoreRetriever
from tests.retrieval.owner import begin, put, settings, texts
from tests.stores.samples import chunk, embed


@pytest.mark.parametrize("older_first", [True, False])
async def test_the_write_that_was_accepted_later_wins(retriever: Retriever, older_first: bool) -> None:
    older, newer = [chunk("a", "older"), chunk("b", "only in older")], [chunk("a", "newer")]
    writes = [(await begin(retriever, older), older), (await begin(retriever, newer), newer)]
    for ticket, chunks in writes if older_first else reversed(writes):
        await retriever.finish_write("default", ticket, chunks, embed(chunks))
    assert await texts(retriever, "a", "b") == ["newer", "only in older"]


async def test_a_later_write_that_fails_does_not_cost_the_earlier_one(retriever: Retriever) -> None:
    older, newer = [chunk("a", "older")], [chunk("a", "newer")]
    first, second, third = [await begin(retriever, chunks) for chunks in (older, newer, newer)]
    with pytest.raises(InvalidRequest):
        await retriever.finish_write("default", second, newer, replace(embed(newer), dense=np.zeros((1, 8), np.float32)))
    await retriever.abandon_write("default", third)
    await retriever.finish_write("default", first, older, embed(older))
    assert await texts(retriever, "a") == ["older"]


async def test_a_write_does_not_bring_back_what_was_deleted_since(retriever: Retriever) -> None:
    await put(retriever, chunk("a", "first"))
    older = [chunk("a", "older"), chunk("b", "older"), chunk("c", "older")]
    ticket = await begin(retriever, older)
    assert await retriever.delete("default", ["a", "b"]) == 1
    await retriever.finish_write("default", ticket, older, embed(older))
    assert await texts(retriever, "a", "b", "c") == ["older"]


async def test_a_delete_before_the_collection_has_begun_counts_too(retriever: Retriever) -> None:
    ticket = await begin(retriever, [chunk("a"), chunk("b")])
    assert await retriever.delete("default", ["a"]) == 0
    await retriever.finish_write("default", ticket, [chunk("a"), chunk("b")], embed([chunk("a"), chunk("b")]))
    assert [c.document_id for c in await retriever.get("default", ["a", "b"])] == ["b"]


async def test_a_write_that_found_the_document_unchanged_counts(retriever: Retriever) -> None:
    await put(retriever, chunk("a", "same"))
    older = [chunk("a", "older")]
    ticket = await begin(retriever, older)
    unchanged = await begin(retriever, [chunk("a", "same"), chunk("b")])
    assert unchanged.unchanged == {"a"}
    await retriever.finish_write("default", ticket, older, embed(older))
    assert await texts(retriever, "a") == ["same"]


async def test_a_newer_write_survives_an_older_delete_by_filter(retriever: Retriever) -> None:
    many = [chunk(f"d{i}", metadata={"old": True}) for i in range(3 * MAX_PIECE)]
    await put(retriever, *many)
    deleting = asyncio.create_task(retriever.delete("default", None, Equals("old", True)))
    await asyncio.sleep(0)
    again = [chunk(f"d{i}", "again", {"old": True}) for i in range(3 * MAX_PIECE)]
    ticket = await begin(retriever, again)
    await retriever.finish_write("default", ticket, again, embed(again))
    assert await deleting <= len(many)
    assert (await retriever.describe("default")).count == len(many)


async def test_a_cancelled_write_leaves_the_order_intact(retriever: Retriever) -> None:
    many = [chunk(f"d{i}", "older") for i in range(5 * MAX_PIECE)]
    first = await begin(retriever, many)
    newer = [chunk(f"d{i}", "newer") for i in range(5 * MAX_PIECE)]
    second = asyncio.create_task(put(retriever, *newer))
    while (await retriever.describe("default")).count == 0:
        assert not second.done()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    applied = {c.document_id for c in await retriever.get("default", [c.document_id for c in many])}
    assert applied
    await retriever.finish_write("default", first, many, embed(many))
    for c in await retriever.get("default", [c.document_id for c in many]):
        assert (c.text == "newer") >= (c.document_id in applied)
    assert (await retriever.describe("default")).state == "ready"


async def test_a_ticket_holds_for_one_write(retriever: Retriever) -> None:
    ticket = await put(retriever, chunk("a"))
    with pytest.raises(StaleWrite):
        await retriever.finish_write("default", ticket, [chunk("a", "again")], embed([chunk("a", "again")]))


async def test_a_ticket_of_the_last_owner_is_stale(tmp_path: Path) -> None:
    first = StoreRetriever(settings(tmp_path))
    ticket = await begin(first, [chunk("a")])
    await first.close()
    second = StoreRetriever(settings(tmp_path))
    await begin(second, [chunk("a")])
    with pytest.raises(StaleWrite):
        await second.finish_write("default", ticket, [chunk("a")], embed([chunk("a")]))
    await second.close()


async def test_documents_that_a_write_did_not_begin_with_are_refused(retriever: Retriever) -> None:
    ticket = await begin(retriever, [chunk("a")])
    with pytest.raises(InvalidRequest, match="'b'"):
        await retriever.finish_write("default", ticket, [chunk("a"), chunk("b")], embed([chunk("a"), chunk("b")]))
    assert (await retriever.describe("default")).count == 0
