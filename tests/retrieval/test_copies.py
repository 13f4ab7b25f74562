"""A copy of a collection that is made while it is written to and searched: a store of its own, with everything that was acknowledged."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from bgeserve.errors import Conflict, InvalidRequest, NotFound, StorageFull
from bgeserve.protocols import Retriever
from bgeserve.retrieval import StoreRetriever
from bgeserve.store_settings import MilvusLiteSettings, QdrantEdgeSettings
from bgeserve.stores import qdrant_edge
from bgeserve.stores.folder_copy import COPIES, copy_store
from tests.retrieval.owner import names, put, search, settings
from tests.stores.conftest import needs
from tests.stores.samples import chunk

WRITERS = 16
COPIES_MADE = 5


async def test_a_copy_is_a_store_of_its_own(retriever: Retriever) -> None:
    await put(retriever, chunk("a", "amber"), chunk("b", "basalt"), collection="docs@1")
    await put(retriever, chunk("other"))
    await retriever.set_alias("docs", "docs@1")
    path = await retriever.copy("docs", "monday")
    await put(retriever, chunk("later"), collection="docs")
    copy = StoreRetriever(QdrantEdgeSettings(path=Path(path)))
    assert [info.name for info in await copy.collections() if info.count] == ["docs@1"]
    assert [c.document_id for c in await copy.get("docs@1", ["a", "b", "later"])] == ["a", "b"]
    assert (await search(copy, "amber", "docs@1"))[0].id == "a"
    # It is written to without the original, and the other way round.
    await put(copy, chunk("own"), collection="docs@1")
    await copy.close()
    assert (await retriever.describe("docs")).count == 3


async def test_what_was_acknowledged_before_a_copy_is_in_it_whatever_is_written_meanwhile(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged: list[str] = []
    counts: list[tuple[int, int]] = []
    done = False
    loop = asyncio.get_running_loop()

    def stored() -> int:
        return asyncio.run_coroutine_threadsafe(retriever.describe("docs"), loop).result().count

    def watched(*arguments: Any) -> Path:
        """As long as a large collection's takes, in which a writer would not be idle."""
        before = stored()
        made = copy_store(*arguments)
        time.sleep(0.2)
        counts.append((before, stored()))
        return made

    monkeypatch.setattr(qdrant_edge, "copy_store", watched)

    async def write(writer: int) -> None:
        n = 0
        while not done:
            ids = [f"{writer}-{n}-{i}" for i in range(20)]
            await put(retriever, *(chunk(id, f"text of {id}") for id in ids), collection="docs")
            acknowledged.extend(ids)
            n += 1

    async def read() -> int:
        answers = 0
        while not done:
            assert len(await search(retriever, "text", "docs", limit=5)) == 5
            answers += 1
        return answers

    await put(retriever, *(chunk(f"first{i}", "text") for i in range(5)), collection="docs")
    writing = [asyncio.create_task(write(writer)) for writer in range(WRITERS)]
    reading = asyncio.create_task(read())
    copies: list[tuple[str, set[str]]] = []
    for n in range(COPIES_MADE):
        await asyncio.sleep(0.2)
        before = set(acknowledged)
        copies.append((await retriever.copy("docs", f"copy{n}"), before))
    done = True
    await asyncio.gather(*writing)
    assert await reading > COPIES_MADE
    assert [before for before, _ in counts] == [after for _, after in counts]
    for path, before in copies:
        copy = StoreRetriever(QdrantEdgeSettings(path=Path(path)))
        chunks, following = await copy.scroll("docs", limit=100_000)
        found = {c.document_id: c.text for c in chunks}
        assert following is None
        assert before <= found.keys() <= {*acknowledged, *(f"first{i}" for i in range(5))}
        assert all(text in (f"text of {id}", "text") for id, text in found.items())
        assert (await copy.describe("docs")).count == len(found)
        assert len(await search(copy, "text", "docs", limit=5)) == 5
        await copy.close()
    sizes = [len(before) for _, before in copies]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


async def test_a_caller_who_leaves_does_not_let_writes_into_the_copy(retriever: Retriever) -> None:
    await put(retriever, *(chunk(f"d{i}", f"text {i}") for i in range(200)), collection="docs")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await retriever.copy("docs", "left")
    await put(retriever, *(chunk(f"e{i}", f"text {i}") for i in range(200)), collection="docs")
    with pytest.raises(Conflict, match="'left'") as refused:
        await retriever.copy("docs", "left")
    copy = StoreRetriever(QdrantEdgeSettings(path=Path(refused.value.message.split(" in ")[1].split(":")[0])))
    assert (await copy.describe("docs")).count == 200
    await copy.close()


async def test_copies_are_no_collections_of_the_store_that_they_are_in(tmp_path: Path) -> None:
    first = StoreRetriever(settings(tmp_path))
    await put(first, chunk("a"), collection="docs")
    await first.copy("docs", "monday")
    await first.close()
    second = StoreRetriever(settings(tmp_path))
    assert await names(second) == ["default", "docs"]
    await second.close()


async def test_what_cannot_be_copied_is_named_and_leaves_nothing(retriever: Retriever, tmp_path: Path) -> None:
    for name, said in (("none", "'none'"), ("default", "holds nothing yet")):
        with pytest.raises(NotFound, match=said):
            await retriever.copy(name, "monday")
    await put(retriever, chunk("a"), collection="docs")
    for name in ("../x", "a/b", ".x", ""):
        with pytest.raises(InvalidRequest, match="a copy's name"):
            await retriever.copy("docs", name)
    assert not (tmp_path / "store" / COPIES).exists()


async def test_a_full_disk_is_told_before_anything_is_copied(tmp_path: Path) -> None:
    first = StoreRetriever(settings(tmp_path))
    await put(first, chunk("a"), collection="docs")
    await first.close()
    full = StoreRetriever(settings(tmp_path).model_copy(update={"min_free_bytes": 2**60}))
    with pytest.raises(StorageFull, match="min_free_bytes"):
        await full.copy("docs", "monday")
    assert len(await search(full, "text", "docs")) == 1
    await full.close()


async def test_milvus_lite_says_what_to_do_instead(tmp_path: Path) -> None:
    needs("milvus_lite", "milvus")
    lite = StoreRetriever(MilvusLiteSettings(path=tmp_path / "lite", create=True))
    await put(lite, chunk("a"), collection="docs")
    with pytest.raises(InvalidRequest, match="bge-serve export"):
        await lite.copy("docs", "monday")
    await lite.close()
