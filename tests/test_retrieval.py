"""The owner of the collections: order of writes, durability, fingerprints, and searches beside writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgeserve.errors import FingerprintMismatch, InvalidRequest, NotFound, StaleWrite, StorageFull, Unavailable
from bgeserve.filters import Equals
from bgeserve.fusion import Fusion, fuse
from bgeserve.max_sim import max_sim
from bgeserve.observe import Observer
from bgeserve.protocols import Retriever, WriteTicket
from bgeserve.retrieval import MAX_PIECE, StoreRetriever
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import FINDING_LEGS, LEGS, Chunk, Hit
from tests.stores.samples import FINGERPRINT, chunk, dense, embed, pieces_of, query, tokens


def settings(path: Path, **others: Any) -> QdrantEdgeSettings:
    return QdrantEdgeSettings(path=path / "store", create=True, min_free_bytes=2**20, **others)


@pytest.fixture
async def retriever(tmp_path: Path) -> AsyncIterator[Retriever]:
    retriever = StoreRetriever(settings(tmp_path))
    yield retriever
    await retriever.close()


async def begin(retriever: Retriever, chunks: Sequence[Chunk], collection: str = "default") -> WriteTicket:
    return await retriever.begin_write(collection, FINGERPRINT, {c.document_id: c.content_hash for c in chunks})


async def put(retriever: Retriever, *chunks: Chunk, collection: str = "default") -> WriteTicket:
    ticket = await begin(retriever, chunks, collection)
    changed = [c for c in chunks if c.document_id not in ticket.unchanged]
    await retriever.finish_write(collection, ticket, changed, embed(changed))
    return ticket


async def names(retriever: Retriever) -> list[str]:
    return [info.name for info in await retriever.collections()]


async def texts(retriever: Retriever, *ids: str) -> list[str]:
    return [c.text for c in await retriever.get("default", ids)]


async def search(retriever: Retriever, text: str, collection: str = "default", **changes: Any) -> list[Hit]:
    how: dict[str, Any] = {"fingerprint": FINGERPRINT, "legs": ["dense", "full_text"], "fusion": Fusion(), "candidates": 100, "limit": 10}
    return (await retriever.retrieve(collection, [query(text)], **{**how, **changes}))[0]


async def test_a_document_is_found_once_by_the_best_of_its_chunks(retriever: Retriever) -> None:
    await put(retriever, *pieces_of("long", ["amber amber", "amber", "of amber", "quartz"]), chunk("other", "amber and quartz"))
    found = await search(retriever, "amber", legs=["full_text"])
    assert [hit.id for hit in found] == ["long", "other"]
    assert (found[0].chunk, found[0].text) == (0, "amber amber")
    assert [hit.id for hit in await search(retriever, "amber", legs=["full_text"], limit=1)] == ["long"]
    assert len(await search(retriever, "amber", legs=["full_text"], limit=2)) == 2  # three chunks are of one document


class TestOrder:
    """Two writes to "a": what counts is which was accepted later, not which was embedded first."""

    @pytest.mark.parametrize("older_first", [True, False])
    async def test_the_write_that_was_accepted_later_wins(self, retriever: Retriever, older_first: bool) -> None:
        older, newer = [chunk("a", "older"), chunk("b", "only in older")], [chunk("a", "newer")]
        writes = [(await begin(retriever, older), older), (await begin(retriever, newer), newer)]
        for ticket, chunks in writes if older_first else reversed(writes):
            await retriever.finish_write("default", ticket, chunks, embed(chunks))
        assert await texts(retriever, "a", "b") == ["newer", "only in older"]

    async def test_a_later_write_that_fails_does_not_cost_the_earlier_one(self, retriever: Retriever) -> None:
        older, newer = [chunk("a", "older")], [chunk("a", "newer")]
        first, second, third = [await begin(retriever, chunks) for chunks in (older, newer, newer)]
        with pytest.raises(InvalidRequest):
            await retriever.finish_write("default", second, newer, replace(embed(newer), dense=np.zeros((1, 8), np.float32)))
        await retriever.abandon_write("default", third)
        await retriever.finish_write("default", first, older, embed(older))
        assert await texts(retriever, "a") == ["older"]

    async def test_a_write_does_not_bring_back_what_was_deleted_since(self, retriever: Retriever) -> None:
        await put(retriever, chunk("a", "first"))
        older = [chunk("a", "older"), chunk("b", "older"), chunk("c", "older")]
        ticket = await begin(retriever, older)
        assert await retriever.delete("default", ["a", "b"]) == 1
        await retriever.finish_write("default", ticket, older, embed(older))
        assert await texts(retriever, "a", "b", "c") == ["older"]

    async def test_a_delete_before_the_collection_has_begun_counts_too(self, retriever: Retriever) -> None:
        ticket = await begin(retriever, [chunk("a"), chunk("b")])
        assert await retriever.delete("default", ["a"]) == 0
        await retriever.finish_write("default", ticket, [chunk("a"), chunk("b")], embed([chunk("a"), chunk("b")]))
        assert [c.document_id for c in await retriever.get("default", ["a", "b"])] == ["b"]

    async def test_a_write_that_found_the_document_unchanged_counts(self, retriever: Retriever) -> None:
        await put(retriever, chunk("a", "same"))
        older = [chunk("a", "older")]
        ticket = await begin(retriever, older)
        unchanged = await begin(retriever, [chunk("a", "same"), chunk("b")])
        assert unchanged.unchanged == {"a"}
        await retriever.finish_write("default", ticket, older, embed(older))
        assert await texts(retriever, "a") == ["same"]

    async def test_a_newer_write_survives_an_older_delete_by_filter(self, retriever: Retriever) -> None:
        many = [chunk(f"d{i}", metadata={"old": True}) for i in range(3 * MAX_PIECE)]
        await put(retriever, *many)
        deleting = asyncio.create_task(retriever.delete("default", None, Equals("old", True)))
        await asyncio.sleep(0)
        again = [chunk(f"d{i}", "again", {"old": True}) for i in range(3 * MAX_PIECE)]
        ticket = await begin(retriever, again)
        await retriever.finish_write("default", ticket, again, embed(again))
        assert await deleting <= len(many)
        assert (await retriever.describe("default")).count == len(many)

    async def test_a_cancelled_write_leaves_the_order_intact(self, retriever: Retriever) -> None:
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

    async def test_a_ticket_holds_for_one_write(self, retriever: Retriever) -> None:
        ticket = await put(retriever, chunk("a"))
        with pytest.raises(StaleWrite):
            await retriever.finish_write("default", ticket, [chunk("a", "again")], embed([chunk("a", "again")]))

    async def test_a_ticket_of_the_last_owner_is_stale(self, tmp_path: Path) -> None:
        first = StoreRetriever(settings(tmp_path))
        ticket = await begin(first, [chunk("a")])
        await first.close()
        second = StoreRetriever(settings(tmp_path))
        await begin(second, [chunk("a")])
        with pytest.raises(StaleWrite):
            await second.finish_write("default", ticket, [chunk("a")], embed([chunk("a")]))
        await second.close()

    async def test_documents_that_a_write_did_not_begin_with_are_refused(self, retriever: Retriever) -> None:
        ticket = await begin(retriever, [chunk("a")])
        with pytest.raises(InvalidRequest, match="'b'"):
            await retriever.finish_write("default", ticket, [chunk("a"), chunk("b")], embed([chunk("a"), chunk("b")]))
        assert (await retriever.describe("default")).count == 0


class TestWriting:
    async def test_a_search_sees_an_acknowledged_write(self, retriever: Retriever) -> None:
        for i in range(20):
            await put(retriever, chunk("a", f"version{i} amber"))
            hits = await search(retriever, f"version{i}", legs=["full_text"])
            assert [hit.text for hit in hits] == [f"version{i} amber"]
        await retriever.delete("default", ["a"])
        assert await search(retriever, "amber") == []

    async def test_unchanged_documents_are_named(self, retriever: Retriever) -> None:
        await put(retriever, chunk("a", "one"), chunk("b", "two"), *pieces_of("long", ["x", "y"]))
        ticket = await begin(retriever, [chunk("a", "one"), chunk("b", "changed"), chunk("c"), pieces_of("long", ["x", "y"])[0]])
        assert ticket.unchanged == {"a", "long"}

    async def test_a_bad_item_in_the_middle_of_a_long_write_changes_nothing(self, retriever: Retriever) -> None:
        chunks = [chunk(f"d{i}") for i in range(5 * MAX_PIECE)]
        chunks[3 * MAX_PIECE] = chunk("d5000", metadata={"bad": float("nan")})
        ticket = await begin(retriever, chunks)
        with pytest.raises(InvalidRequest, match="'d5000'"):
            await retriever.finish_write("default", ticket, chunks, embed(chunks))
        info = await retriever.describe("default")
        assert (info.count, info.fingerprint, info.state) == (0, None, "ready")

    async def test_a_document_of_many_chunks_is_written_whole(self, retriever: Retriever) -> None:
        long = pieces_of("long", [f"piece {n}" for n in range(3 * MAX_PIECE)])
        await put(retriever, *(chunk(f"d{i}") for i in range(50)), *long, chunk("last"))
        assert await retriever.get("default", ["long"]) == long
        assert (await retriever.describe("default")).count == 52

    async def test_many_writers_at_once(self, retriever: Retriever) -> None:
        async def writer(k: int) -> None:
            for i in range(5):
                await put(retriever, *(chunk(f"w{k}-{i}-{j}", f"text {k} {i} {j}") for j in range(3)))
                await retriever.delete("default", [f"w{k}-{i}-0"])

        await asyncio.gather(*(writer(k) for k in range(12)))
        assert (await retriever.describe("default")).count == 12 * 5 * 2

    async def test_searches_are_answered_while_a_long_write_runs(self, retriever: Retriever) -> None:
        await put(retriever, chunk("first", "amber"))
        chunks = [chunk(f"d{i}", f"text {i}") for i in range(20 * MAX_PIECE)]
        writing = asyncio.create_task(put(retriever, *chunks))
        counts: set[int] = set()
        while not writing.done():
            assert len(await search(retriever, "amber", limit=1)) == 1
            counts.add((await retriever.describe("default")).count)
        await writing
        assert len(counts) > 5

    async def test_a_search_waits_for_a_piece_and_not_for_all_writers(self, retriever: Retriever) -> None:
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

    async def test_state_says_whether_writes_are_open(self, retriever: Retriever) -> None:
        await put(retriever, chunk("a"))
        ticket = await begin(retriever, [chunk("b")])
        assert (await retriever.describe("default")).state == "indexing"
        await retriever.abandon_write("default", ticket)
        await retriever.abandon_write("default", ticket)
        assert (await retriever.describe("default")).state == "ready"

    async def test_a_full_disk_is_told_before_anything_is_embedded(self, tmp_path: Path) -> None:
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

    async def test_unchanged_is_said_after_the_sync_of_whoever_wrote_it(self, tmp_path: Path) -> None:
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
    async def test_a_name_that_is_none_is_refused_before_anything_is_embedded(self, retriever: Retriever, name: str) -> None:
        with pytest.raises(InvalidRequest, match="collection"):
            await begin(retriever, [chunk("a")], name)

    @pytest.mark.parametrize("id", ["", "\ud800"])
    async def test_an_id_that_is_none_is_refused(self, retriever: Retriever, id: str) -> None:
        await put(retriever, chunk("a"))
        for call in (begin(retriever, [chunk(id)]), retriever.delete("default", ["a", id]), retriever.get("default", [id])):
            with pytest.raises(InvalidRequest) as refused:
                await call
            assert refused.value.field == "id"
        assert await texts(retriever, "a") == ["some text"]

    @pytest.mark.parametrize("arguments", [(None, None), (["a"], Equals("x", 1))])
    async def test_a_delete_is_by_ids_or_by_filter(self, retriever: Retriever, arguments: Any) -> None:
        with pytest.raises(InvalidRequest, match="either ids or a filter"):
            await retriever.delete("default", *arguments)

    async def test_delete_by_filter(self, retriever: Retriever) -> None:
        await put(retriever, *(chunk(f"d{i}", metadata={"even": i % 2 == 0}) for i in range(150)))
        assert await retriever.delete("default", None, Equals("even", True)) == 75
        assert await retriever.delete("default", None, Equals("even", True)) == 0
        assert (await retriever.describe("default")).count == 75


class TestSearching:
    async def test_hits_explain_themselves(self, retriever: Retriever) -> None:
        rng = np.random.default_rng(1)
        chunks = [chunk(f"d{i}", " ".join(rng.choice(["amber", "basalt", "cedar", "delta"], 3)), {"i": i}) for i in range(60)]
        await put(retriever, *chunks)
        hits = await search(retriever, "amber", limit=60)
        alone = {leg: await search(retriever, "amber", legs=[leg], limit=60) for leg in ("dense", "full_text")}
        ranks = {leg: {hit.id: rank for rank, hit in enumerate(found, 1)} for leg, found in alone.items()}
        for hit in hits:
            assert hit.ranks == {leg: ranks[leg][hit.id] for leg in ranks if hit.id in ranks[leg]}
            assert hit.scores["fused"] == hit.score == pytest.approx(sum(1 / (60 + rank) for rank in hit.ranks.values()))
            assert hit.scores["dense"] == pytest.approx(float(dense(hit.text) @ dense("amber")), abs=1e-5)
            assert (hit.text, hit.metadata) == (chunks[int(hit.id[1:])].text, {"i": int(hit.id[1:])})
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert await search(retriever, "amber", limit=7) == hits[:7]

    @pytest.mark.parametrize("fusion", [Fusion(rrf_k=1), Fusion("weighted", {"dense": 0.2})])
    async def test_legs_are_fused_as_asked(self, retriever: Retriever, fusion: Fusion) -> None:
        await put(retriever, *(chunk(f"d{i}", f"amber {'basalt ' * (i % 5)}{i}") for i in range(40)))
        found = {leg: [(hit.id, hit.scores[leg]) for hit in await search(retriever, "amber", legs=[leg], limit=40)] for leg in FINDING_LEGS}
        hits = await search(retriever, "amber", legs=FINDING_LEGS, fusion=fusion, limit=40)
        assert {hit.id: pytest.approx(hit.score) for hit in hits} == {fused.key: fused.score for fused in fuse(found, fusion)}

    async def test_every_query_gets_its_own_answer(self, retriever: Retriever) -> None:
        await put(retriever, chunk("a", "amber"), chunk("b", "basalt"))
        answers = await retriever.retrieve(
            "default",
            [query("basalt"), query("amber"), query("cedar")],
            fingerprint=None,
            legs=["full_text"],
            fusion=Fusion(),
            candidates=5,
            limit=5,
        )
        assert [[hit.id for hit in hits] for hits in answers] == [["b"], ["a"], []]

    async def test_filter(self, retriever: Retriever) -> None:
        await put(retriever, *(chunk(f"d{i}", f"amber {i}", {"i": i}) for i in range(30)))
        assert [hit.id for hit in await search(retriever, "amber", filter=Equals("i", 17))] == ["d17"]

    async def test_vectors_need_a_fingerprint(self, retriever: Retriever) -> None:
        await put(retriever, chunk("a", "amber"))
        assert len(await search(retriever, "amber", fingerprint=None, legs=["full_text"])) == 1
        with pytest.raises(InvalidRequest, match="fingerprint"):
            await search(retriever, "amber", fingerprint=None)


class TestMultiVector:
    """The leg that ranks what the others found."""

    @pytest.fixture
    async def chunks(self, retriever: Retriever) -> list[Chunk]:
        rng = np.random.default_rng(2)
        chunks = [chunk(f"d{i}", " ".join(rng.choice(["amber", "basalt", "cedar", "delta", "ember"], 4)) + f" {i}") for i in range(80)]
        await put(retriever, *chunks)
        return chunks

    async def test_ranks_everything_that_any_other_leg_found(self, retriever: Retriever, chunks: list[Chunk]) -> None:
        asked, few = "amber cedar 17", {"candidates": 8, "limit": 80}
        hits = await search(retriever, asked, legs=["multi_vector", "dense", "full_text"], **few)
        others = [await search(retriever, asked, legs=[leg], **few) for leg in ("dense", "full_text")]
        assert {hit.id for hit in hits} == {hit.id for found in others for hit in found}
        assert len(hits) > 8
        scores = max_sim(tokens(asked), [tokens(hit.text).astype(np.float16) for hit in hits])
        assert [hit.scores["multi_vector"] for hit in hits] == pytest.approx(scores.tolist(), abs=1e-5)
        by_rank = sorted(hits, key=lambda hit: hit.ranks["multi_vector"])
        assert [hit.ranks["multi_vector"] for hit in by_rank] == list(range(1, len(hits) + 1))
        assert [hit.scores["multi_vector"] for hit in by_rank] == sorted((hit.scores["multi_vector"] for hit in hits), reverse=True)
        for hit in hits:
            assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in hit.ranks.values()))

    async def test_ranks_alone_where_the_others_weigh_nothing(self, retriever: Retriever, chunks: list[Chunk]) -> None:
        fusion = Fusion(weights={"dense": 0.0, "full_text": 0.0})
        hits = await search(retriever, "amber cedar 17", legs=["dense", "full_text", "multi_vector"], fusion=fusion, limit=80)
        assert [hit.ranks["multi_vector"] for hit in hits] == list(range(1, len(chunks) + 1))
        assert set(hits[0].scores) == {"dense", "full_text", "multi_vector", "fused"}

    async def test_alone_it_would_find_nothing_and_is_refused(self, retriever: Retriever) -> None:
        with pytest.raises(InvalidRequest, match="only multi_vector") as refused:
            await search(retriever, "amber", legs=["multi_vector"])
        assert refused.value.field == "legs"

    async def test_a_collection_without_token_vectors_is_refused(self, retriever: Retriever) -> None:
        c = chunk("a", "amber")
        await retriever.finish_write("default", await begin(retriever, [c]), [c], replace(embed([c]), multi_vector=None))
        assert (await retriever.describe("default")).legs == ["dense", "sparse", "full_text"]
        with pytest.raises(InvalidRequest, match="the collection has no multi_vector vectors"):
            await search(retriever, "amber", legs=["dense", "multi_vector"])
        assert len(await search(retriever, "amber", legs=["dense"])) == 1


class TestFingerprints:
    async def test_another_models_vectors_are_refused_everywhere(self, retriever: Retriever) -> None:
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

    async def test_of_two_first_writes_the_one_that_is_stored_first_decides(self, retriever: Retriever) -> None:
        ours = await begin(retriever, [chunk("a")])
        theirs = await retriever.begin_write("default", "other@1", {"a": "hash"})
        await retriever.finish_write("default", ours, [chunk("a")], embed([chunk("a")]))
        with pytest.raises(FingerprintMismatch):
            await retriever.finish_write("default", theirs, [chunk("a")], embed([chunk("a")], "other@1"))
        assert (await retriever.describe("default")).fingerprint == FINGERPRINT


class TestCollections:
    async def test_the_default_collection_is_there_and_empty(self, retriever: Retriever) -> None:
        info = await retriever.describe("default")
        assert (info.count, info.fingerprint, info.state, list(info.legs)) == (0, None, "ready", [])
        assert await search(retriever, "amber") == []
        assert await retriever.get("default", ["a"]) == []
        assert await retriever.scroll("default", limit=5) == ([], None)
        assert await retriever.delete("default", ["a"]) == 0
        assert await retriever.delete("default", None, Equals("a", 1)) == 0
        assert await names(retriever) == ["default"]

    async def test_another_comes_with_its_first_write(self, retriever: Retriever) -> None:
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

    async def test_one_is_dropped_with_everything_in_it(self, tmp_path: Path) -> None:
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

    async def test_one_whose_only_write_was_abandoned_is_not_there_to_be_dropped(self, retriever: Retriever) -> None:
        await retriever.abandon_write("docs", await begin(retriever, [chunk("a")], "docs"))
        with pytest.raises(NotFound, match="'docs'"):
            await retriever.drop("docs")

    async def test_after_a_drop_it_may_hold_another_models_vectors(self, retriever: Retriever) -> None:
        await put(retriever, chunk("a"), collection="docs")
        await retriever.drop("docs")
        ticket = await retriever.begin_write("docs", "other@1", {"b": "hash"})
        await retriever.finish_write("docs", ticket, [chunk("b")], embed([chunk("b")], "other@1"))
        assert (await retriever.describe("docs")).fingerprint == "other@1"

    async def test_the_default_one_is_empty_after_a_drop(self, retriever: Retriever) -> None:
        assert await retriever.drop("default") == 0
        await put(retriever, chunk("a", "amber"))
        assert await retriever.drop("default") == 1
        assert (await retriever.describe("default")).count == 0
        assert await search(retriever, "amber") == []

    @pytest.mark.parametrize("exists", [True, False])
    async def test_a_write_that_was_accepted_before_a_drop_brings_nothing_back(self, retriever: Retriever, exists: bool) -> None:
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
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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

    async def test_pages(self, retriever: Retriever) -> None:
        await put(retriever, *(chunk(f"d{i}") for i in range(25)))
        met: list[str] = []
        page, after = await retriever.scroll("default", limit=10)
        met += [c.document_id for c in page]
        while after is not None:
            page, after = await retriever.scroll("default", limit=10, after=after)
            met += [c.document_id for c in page]
        assert sorted(met) == sorted(f"d{i}" for i in range(25))


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
