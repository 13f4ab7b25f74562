"""Several collections of one owner, each with the fingerprint of what made its vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgeserve.errors import FingerprintMismatch, NotFound
from bgeserve.filters import Equals
from bgeserve.protocols import Retriever
from bgeserve.retrieval import StoreRetriever
from bgeserve.types import LEGS
from tests.retrieval.owner import begin, names, put, search, settings, texts
from tests.stores.samples import FINGERPRINT, chunk, embed


async def test_another_models_vectors_are_refused_everywhere(retriever: Retriever) -> None:
    await put(retriever, chunk("a"))
    ticket = await begin(retriever, [chunk("b")])
    refused = [
        search(retriever, "text", fingerprint="other@1"),
        retriever.begin_write("default", "other@1", {"b": "hash"}),
        retriever.finish_write("default", ticket, [chunk("b")], embed([chunk("b")], "other@1")),
    ]
    for call in refused:
        with pytest.raises(FingerprintMismatch, match=r"tiny@1.*other@1"):
            await call


async def test_of_two_first_writes_the_one_that_is_stored_first_decides(retriever: Retriever) -> None:
    ours = await begin(retriever, [chunk("a")])
    theirs = await retriever.begin_write("default", "other@1", {"a": "hash"})
    await retriever.finish_write("default", ours, [chunk("a")], embed([chunk("a")]))
    with pytest.raises(FingerprintMismatch):
        await retriever.finish_write("default", theirs, [chunk("a")], embed([chunk("a")], "other@1"))
    assert (await retriever.describe("default")).fingerprint == FINGERPRINT


async def test_the_default_collection_is_there_and_empty(retriever: Retriever) -> None:
    info = await retriever.describe("default")
    assert (info.count, info.fingerprint, info.state, list(info.legs)) == (0, None, "ready", [])
    assert await search(retriever, "amber") == []
    assert await retriever.get("default", ["a"]) == []
    assert await retriever.scroll("default", limit=5) == ([], None)
    assert await retriever.delete("default", ["a"]) == 0
    assert await retriever.delete("default", None, Equals("a", 1)) == 0
    assert await names(retriever) == ["default"]


async def test_another_comes_with_its_first_write(retriever: Retriever) -> None:
    for call in (
        retriever.describe("docs"),
        search(retriever, "x", "docs"),
        retriever.get("docs", ["a"]),
        retriever.scroll("docs", limit=5),
        retriever.delete("docs", ["a"]),
    ):
        with pytest.raises(NotFound, match="'docs'"):
            await call
    await put(retriever, chunk("a"), collection="docs")
    info = await retriever.describe("docs")
    assert (info.count, info.fingerprint, list(info.legs)) == (1, FINGERPRINT, list(LEGS))
    assert await names(retriever) == ["default", "docs"]


async def test_one_is_dropped_with_everything_in_it(tmp_path: Path) -> None:
    retriever = StoreRetriever(settings(tmp_path))
    await put(retriever, chunk("a"), chunk("b"), collection="docs")
    await put(retriever, chunk("kept"))
    assert await retriever.drop("docs") == 2
    for call in (retriever.describe("docs"), retriever.drop("docs")):
        with pytest.raises(NotFound, match="'docs'"):
            await call
    assert await names(retriever) == ["default"]
    await retriever.close()
    retriever = StoreRetriever(settings(tmp_path))
    assert await names(retriever) == ["default"]
    assert await texts(retriever, "kept") == ["some text"]
    await retriever.close()


async def test_one_whose_only_write_was_abandoned_is_not_there_to_be_dropped(retriever: Retriever) -> None:
    await retriever.abandon_write("docs", await begin(retriever, [chunk("a")], "docs"))
    with pytest.raises(NotFound, match="'docs'"):
        await retriever.drop("docs")


async def test_after_a_drop_it_may_hold_another_models_vectors(retriever: Retriever) -> None:
    await put(retriever, chunk("a"), collection="docs")
    await retriever.drop("docs")
    ticket = await retriever.begin_write("docs", "other@1", {"b": "hash"})
    await retriever.finish_write("docs", ticket, [chunk("b")], embed([chunk("b")], "other@1"))
    assert (await retriever.describe("docs")).fingerprint == "other@1"


async def test_the_default_one_is_empty_after_a_drop(retriever: Retriever) -> None:
    assert await retriever.drop("default") == 0
    await put(retriever, chunk("a", "amber"))
    assert await retriever.drop("default") == 1
    assert (await retriever.describe("default")).count == 0
    assert await search(retriever, "amber") == []


@pytest.mark.parametrize("exists", [True, False])
async def test_a_write_that_was_accepted_before_a_drop_brings_nothing_back(retriever: Retriever, exists: bool) -> None:
    """Not even an empty collection: whoever dropped it has no reason to look again."""
    if exists:
        await put(retriever, chunk("a"), collection="docs")
    older, newer = [chunk("a", "older"), chunk("b")], [chunk("b", "newer")]
    first = await begin(retriever, older, "docs")
    assert await retriever.drop("docs") == exists
    second = await begin(retriever, newer, "docs")
    await retriever.finish_write("docs", first, older, embed(older))
    assert await names(retriever) == ["default"]
    await retriever.finish_write("docs", second, newer, embed(newer))
    assert await retriever.get("docs", ["a", "b"]) == newer


async def test_one_that_outgrows_what_was_measured_is_warned_of_once_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bgeserve.store_settings.MEASURED_DOCUMENTS", 2)
    retriever = StoreRetriever(settings(tmp_path))
    await put(retriever, chunk("a"), chunk("b"), collection="docs")
    assert (await retriever.describe("docs")).warning is None
    await put(retriever, chunk("c"), collection="docs")
    for _ in range(2):
        told = (await retriever.describe("docs")).warning
        assert told is not None
        assert told.startswith("3 documents are more than the 2")
        assert "bge-serve export docs FILE" in told
    assert [record.getMessage() for record in caplog.records] == [f"collection 'docs': {told}"]
    await retriever.close()


async def test_pages(retriever: Retriever) -> None:
    await put(retriever, *(chunk(f"d{i}") for i in range(25)))
    met: list[str] = []
    page, after = await retriever.scroll("default", limit=10)
    met += [c.document_id for c in page]
    while after is not None:
        page, after = await retriever.scroll("default", limit=10, after=after)
        met += [c.document_id for c in page]
    assert sorted(met) == sorted(f"d{i}" for i in range(25))
