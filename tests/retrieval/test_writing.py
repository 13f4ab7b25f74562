"""What an acknowledged write means, and what one costs that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bgeserve.errors import InvalidRequest, StorageFull, Unavailable
from bgeserve.filters import Equals
from bgeserve.observe import Observer
from bgeserve.protocols import Retriever
from bgeserve.retrieval import MAX_PIECE, StoreRetriever
from tests.retrieval.owner import begin, put, search, settings, texts
from tests.stores.samples import chunk, embed, pieces_of


async def test_a_search_sees_an_acknowledged_write(retriever: Retriever) -> None:
    for i in range(20):
        await put(retriever, chunk("a", f"version{i} amber"))
        hits = await search(retriever, f"version{i}", legs=["full_text"])
        assert [hit.text for hit in hits] == [f"version{i} amber"]
    await retriever.delete("default", ["a"])
    assert await search(retriever, "amber") == []


async def test_unchanged_documents_are_named(retriever: Retriever) -> None:
    await put(retriever, chunk("a", "one"), chunk("b", "two"), *pieces_of("long", ["x", "y"]))
    ticket = await begin(retriever, [chunk("a", "one"), chunk("b", "changed"), chunk("c"), pieces_of("long", ["x", "y"])[0]])
    assert ticket.unchanged == {"a", "long"}


async def test_a_bad_item_in_the_middle_of_a_long_write_changes_nothing(retriever: Retriever) -> None:
    chunks = [chunk(f"d{i}") for i in range(5 * MAX_PIECE)]
    chunks[3 * MAX_PIECE] = chunk("d5000", metadata={"bad": float("nan")})
    ticket = await begin(retriever, chunks)
    with pytest.raises(InvalidRequest, match="'d5000'"):
        await retriever.finish_write("default", ticket, chunks, embed(chunks))
    info = await retriever.describe("default")
    assert (info.count, info.fingerprint, info.state) == (0, None, "ready")


async def test_a_document_of_many_chunks_is_written_whole(retriever: Retriever) -> None:
    long = pieces_of("long", [f"piece {n}" for n in range(3 * MAX_PIECE)])
    await put(retriever, *(chunk(f"d{i}") for i in range(50)), *long, chunk("last"))
    assert await retriever.get("default", ["long"]) == long
    assert (await retriever.describe("default")).count == 52


async def test_many_writers_at_once(retriever: Retriever) -> None:
    async def writer(k: int) -> None:
        for i in range(5):
            await put(retriever, *(chunk(f"w{k}-{i}-{j}", f"text {k} {i} {j}") for j in range(3)))
            await retriever.delete("default", [f"w{k}-{i}-0"])

    await asyncio.gather(*(writer(k) for k in range(12)))
    assert (await retriever.describe("default")).count == 12 * 5 * 2


async def test_searches_are_answered_while_a_long_write_runs(retriever: Retriever) -> None:
    await put(retriever, chunk("first", "amber"))
    chunks = [chunk(f"d{i}", f"text {i}") for i in range(20 * MAX_PIECE)]
    writing = asyncio.create_task(put(retriever, *chunks))
    counts: set[int] = set()
    while not writing.done():
        assert len(await search(retriever, "amber", limit=1)) == 1
        counts.add((await retriever.describe("default")).count)
    await writing
    assert len(counts) > 5


async def test_a_search_waits_for_a_piece_and_not_for_all_writers(retriever: Retriever) -> None:
    async def writer(k: int) -> None:
        await put(retriever, *(chunk(f"w{k}-{i}", f"text {i}") for i in range(4 * MAX_PIECE)))

    writing = asyncio.gather(*(writer(k) for k in range(16)))
    written_meanwhile: list[int] = []
    while not writing.done():
        before = (await retriever.describe("default")).count
        await search(retriever, "amber")
        written_meanwhile.append((await retriever.describe("default")).count - before)
    await writing
    assert max(written_meanwhile) <= 6 * MAX_PIECE


async def test_state_says_whether_writes_are_open(retriever: Retriever) -> None:
    await put(retriever, chunk("a"))
    ticket = await begin(retriever, [chunk("b")])
    assert (await retriever.describe("default")).state == "indexing"
    await retriever.abandon_write("default", ticket)
    await retriever.abandon_write("default", ticket)
    assert (await retriever.describe("default")).state == "ready"


async def test_a_full_disk_is_told_before_anything_is_embedded(tmp_path: Path) -> None:
    retriever = StoreRetriever(settings(tmp_path))
    await put(retriever, chunk("a"))
    await retriever.close()
    retriever = StoreRetriever(settings(tmp_path).model_copy(update={"min_free_bytes": 2**60}))
    with pytest.raises(StorageFull):
        await begin(retriever, [chunk("b")])
    with pytest.raises(StorageFull):
        await retriever.delete("default", ["a"])
    assert len(await search(retriever, "text")) == 1
    await retriever.close()


async def test_unchanged_is_said_after_the_sync_of_whoever_wrote_it(tmp_path: Path) -> None:
    flushes: list[str] = []
    observer = Observer(lambda kind, name, value, tags: flushes.append(name) if name == "store_flush_s" else None)
    retriever = StoreRetriever(settings(tmp_path, commit_interval_ms=300), observer=observer)
    await put(retriever, chunk("first"))
    ticket = await begin(retriever, [chunk("a")])
    writing = asyncio.create_task(retriever.finish_write("default", ticket, [chunk("a")], embed([chunk("a")])))
    while not await retriever.get("default", ["a"]):
        pass
    before = len(flushes)
    assert (await begin(retriever, [chunk("a")])).unchanged == {"a"}
    assert len(flushes) == before + 1
    await writing
    await retriever.close()


@pytest.mark.parametrize("name", ["", "../x", "a b"])
async def test_a_name_that_is_none_is_refused_before_anything_is_embedded(retriever: Retriever, name: str) -> None:
    with pytest.raises(InvalidRequest, match="collection"):
        await begin(retriever, [chunk("a")], name)


@pytest.mark.parametrize("id", ["", "\ud800"])
async def test_an_id_that_is_none_is_refused(retriever: Retriever, id: str) -> None:
    await put(retriever, chunk("a"))
    for call in (begin(retriever, [chunk(id)]), retriever.delete("default", ["a", id]), retriever.get("default", [id])):
        with pytest.raises(InvalidRequest) as refused:
            await call
        assert refused.value.field == "id"
    assert await texts(retriever, "a") == ["some text"]


@pytest.mark.parametrize("arguments", [(None, None), (["a"], Equals("x", 1))])
async def test_a_delete_is_by_ids_or_by_filter(retriever: Retriever, arguments: Any) -> None:
    with pytest.raises(InvalidRequest, match="either ids or a filter"):
        await retriever.delete("default", *arguments)


async def test_delete_by_filter(retriever: Retriever) -> None:
    await put(retriever, *(chunk(f"d{i}", metadata={"even": i % 2 == 0}) for i in range(150)))
    assert await retriever.delete("default", None, Equals("even", True)) == 75
    assert await retriever.delete("default", None, Equals("even", True)) == 0
    assert (await retriever.describe("default")).count == 75


async def test_a_closed_retriever_is_unavailable(tmp_path: Path) -> None:
    retriever = StoreRetriever(settings(tmp_path))
    await put(retriever, chunk("a"))
    await retriever.close()
    await retriever.close()
    with pytest.raises(Unavailable):
        await retriever.describe("default")
    with pytest.raises(Unavailable):
        await begin(retriever, [chunk("b")])


async def test_closing_keeps_what_was_written(tmp_path: Path) -> None:
    retriever = StoreRetriever(settings(tmp_path))
    await put(retriever, chunk("a", "amber"))
    await retriever.close()
    retriever = StoreRetriever(settings(tmp_path).model_copy(update={"create": False}))
    assert [hit.id for hit in await search(retriever, "amber")] == ["a"]
    await retriever.close()
