"""Aliases in the owner of the collections: one step from one collection to another, whatever is under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bgeserve.errors import Conflict, FingerprintMismatch, NotFound
from bgeserve.filters import Equals
from bgeserve.fusion import Fusion
from bgeserve.protocols import Retriever
from bgeserve.retrieval import MAX_PIECE, StoreRetriever
from tests.retrieval.owner import begin, names, put, search, settings
from tests.stores.samples import FINGERPRINT, chunk, embed, query


@pytest.fixture
async def versions(retriever: Retriever) -> Retriever:
    """Two collections of the same ids, and an alias of the first."""
    for version in ("docs@1", "docs@2"):
        await put(retriever, *(chunk(f"d{i}", f"amber {version} {i}") for i in range(30)), collection=version)
    assert await retriever.set_alias("docs", "docs@1") is None
    return retriever


async def texts(retriever: Retriever, collection: str, *ids: str) -> list[str]:
    return [c.text for c in await retriever.get(collection, ids)]


async def test_whatever_takes_a_collection_takes_an_alias(versions: Retriever) -> None:
    await put(versions, chunk("new", "quartz"), collection="docs")
    assert await texts(versions, "docs", "new") == await texts(versions, "docs@1", "new") == ["quartz"]
    assert await versions.get("docs@2", ["new"]) == []
    assert [hit.id for hit in await search(versions, "quartz", "docs", legs=["full_text"])] == ["new"]
    info = await versions.describe("docs")
    assert (info.name, info.count, list(info.aliases)) == ("docs@1", 31, ["docs"])
    assert len((await versions.scroll("docs", limit=50))[0]) == 31
    assert await versions.delete("docs", ["new"]) == 1
    assert await versions.delete("docs", None, Equals("none", 1)) == 0
    assert await names(versions) == ["default", "docs@1", "docs@2"]
    assert await versions.aliases() == {"docs": "docs@1"}


async def test_after_a_swap_everything_goes_to_the_other_collection_and_back_again(versions: Retriever) -> None:
    assert await versions.set_alias("docs", "docs@2") == "docs@1"
    assert {hit.text.split()[1] for hit in await search(versions, "amber", "docs")} == {"docs@2"}
    await put(versions, chunk("new"), collection="docs")
    assert await versions.get("docs@1", ["new"]) == []
    assert await versions.set_alias("docs", "docs@1") == "docs@2"
    assert {hit.text.split()[1] for hit in await search(versions, "amber", "docs")} == {"docs@1"}


async def test_a_swap_survives_the_owner(tmp_path: Path) -> None:
    first = StoreRetriever(settings(tmp_path))
    await put(first, chunk("a"), collection="docs@1")
    await first.set_alias("docs", "docs@1")
    await first.close()
    second = StoreRetriever(settings(tmp_path))
    assert await texts(second, "docs", "a") == ["some text"]
    assert await second.remove_alias("docs") == "docs@1"
    with pytest.raises(NotFound, match="'docs'"):
        await second.describe("docs")
    assert await texts(second, "docs@1", "a") == ["some text"]
    await second.close()


async def test_a_write_is_finished_where_it_began(versions: Retriever) -> None:
    older, newer = [chunk("d0", "older")], [chunk("d0", "newer")]
    before = await begin(versions, older, "docs")
    await versions.set_alias("docs", "docs@2")
    after = await begin(versions, newer, "docs")
    await versions.finish_write("docs", after, newer, embed(newer))
    await versions.finish_write("docs", before, older, embed(older))
    assert await texts(versions, "docs@1", "d0") == ["older"]
    assert await texts(versions, "docs@2", "d0") == ["newer"]
    assert [info.state for info in await versions.collections()] == ["ready"] * 3


async def test_a_delete_under_way_stays_where_it_began(versions: Retriever) -> None:
    many = [chunk(f"m{i}", metadata={"old": True}) for i in range(3 * MAX_PIECE)]
    for version in ("docs@1", "docs@2"):
        await put(versions, *many, collection=version)
    deleting = asyncio.create_task(versions.delete("docs", None, Equals("old", True)))
    await asyncio.sleep(0)
    await versions.set_alias("docs", "docs@2")
    assert await deleting == len(many)
    assert ((await versions.describe("docs@1")).count, (await versions.describe("docs@2")).count) == (30, 30 + len(many))


async def test_every_answer_is_wholly_of_one_collection(versions: Retriever) -> None:
    """The queries of one call too, between which the alias is pointed elsewhere."""
    done = False

    async def swap() -> int:
        swaps = 0
        while not done:
            await versions.set_alias("docs", f"docs@{2 - swaps % 2}")
            swaps += 1
        return swaps

    swapping = asyncio.create_task(swap())
    seen: list[frozenset[str]] = []
    how = {"fingerprint": FINGERPRINT, "legs": ["dense", "full_text"], "candidates": 10, "limit": 10}

    async def client() -> None:
        for _ in range(10):
            answers = await versions.retrieve("docs", [query("amber")] * 5, fusion=Fusion(), **how)  # type: ignore[arg-type]
            assert [len(hits) for hits in answers] == [10] * 5
            seen.append(frozenset(hit.text.split()[1] for hits in answers for hit in hits))

    await asyncio.gather(*(client() for _ in range(16)))
    done = True
    assert await swapping > 2
    assert set(seen) == {frozenset({"docs@1"}), frozenset({"docs@2"})}


async def test_a_collection_with_an_alias_is_not_dropped_by_either_name(versions: Retriever) -> None:
    for name in ("docs", "docs@1"):
        with pytest.raises(Conflict, match=r"'docs@1'.*'docs'"):
            await versions.drop(name)
    await versions.set_alias("docs", "docs@2")
    assert await versions.drop("docs@1") == 30


async def test_a_name_is_an_alias_or_a_collection(versions: Retriever) -> None:
    with pytest.raises(Conflict, match="'docs@2' is a collection"):
        await versions.set_alias("docs@2", "docs@1")
    with pytest.raises(Conflict, match="'docs' is an alias, of collection 'docs@1'"):
        await versions.create("docs", embed([chunk("a")]))
    ticket = await begin(versions, [chunk("a")], "new")
    with pytest.raises(Conflict, match="'new' is a collection that is being written"):
        await versions.set_alias("new", "docs@1")
    await versions.abandon_write("new", ticket)
    await versions.set_alias("new", "docs@1")


async def test_the_default_collection_can_be_an_alias_before_its_first_write(versions: Retriever) -> None:
    await versions.set_alias("default", "docs@2")
    assert (await versions.describe("default")).name == "docs@2"
    assert await names(versions) == ["docs@1", "docs@2"]


async def test_a_collection_is_made_empty_once_for_one_model(versions: Retriever) -> None:
    for _ in range(2):
        await versions.create("docs@3", embed([chunk("any")], "other@1"))
        info = await versions.describe("docs@3")
        assert (info.count, info.fingerprint, info.state) == (0, "other@1", "ready")
    with pytest.raises(Conflict, match=r"'docs@3' is there, for vectors of other@1.*tiny@1"):
        await versions.create("docs@3", embed([chunk("any")]))
    with pytest.raises(FingerprintMismatch):
        await put(versions, chunk("a"), collection="docs@3")
