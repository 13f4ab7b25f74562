"""Which embedder a collection needs: remembered, looked up again when it was wrong, and asked for no more than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bgeserve.errors import Conflict, FingerprintMismatch, StoreError
from bgeserve.index_embedders import require_embedders
from bgeserve.protocols import Retriever, SearchRequest
from bgeserve.service import SearchService, Service
from bgeserve.settings import SearchSettings
from bgeserve.types import CollectionInfo, Document, EmbeddedChunks, Embeddings, ModelInfo
from tests.retrieval.owner import names
from tests.stores.samples import chunk, embed

NEW = Document("new", "amber")


class Model:
    """An embedder of that fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.asked: list[str] = []

    async def info(self) -> ModelInfo:
        self.asked.append("info")
        return ModelInfo("m", "embedder", "m", 512, fingerprint=self.fingerprint)

    async def encode(self, texts: Sequence[str], **_: Any) -> Embeddings:
        self.asked.append("encode")
        return embed([chunk(text, text) for text in texts], self.fingerprint)


class Counted:
    """The owner, and how often it was asked what a collection is."""

    def __init__(self, owner: Retriever) -> None:
        self._owner = owner
        self.described = 0

    def __getattr__(self, name: str) -> Any:
        self.described += name == "describe"
        return getattr(self._owner, name)


class Served:
    def __init__(self, owner: Retriever) -> None:
        self.old, self.new, self.owner = Model("old@1"), Model("new@1"), Counted(owner)
        self.service = self.ingress()

    def ingress(self) -> Service:
        """One more, with a memory of its own."""
        searching = SearchService(self.old, self.owner, {}, SearchSettings(), [self.new])  # type: ignore[arg-type]
        return Service({"old": self.old, "new": self.new}, {}, searching, None)  # type: ignore[arg-type]

    async def fill(self) -> None:
        """docs@1 of the old model, docs@2 of the new one, and `docs` names the first."""
        await self.service.create_collection("docs@1")
        await self.service.create_collection("docs@2", "new")
        for version in ("docs@1", "docs@2"):
            await self.service.put_documents(version, [Document(f"d{i}", f"amber {version}") for i in range(3)])
        await self.service.set_alias("docs", "docs@1")

    async def found_in(self, service: Service | None = None) -> set[str]:
        (hits,) = (await (service or self.service).search(SearchRequest(["amber"], "docs"))).results
        return {hit.text.split()[1] for hit in hits}


@pytest.fixture
async def served(retriever: Retriever) -> Served:
    served = Served(retriever)
    await served.fill()
    return served


async def test_each_collection_is_embedded_by_its_own_model(served: Served) -> None:
    assert {info.name: info.fingerprint for info in await served.service.collections() if info.count} == {
        "docs@1": "old@1",
        "docs@2": "new@1",
    }
    assert await served.found_in() == {"docs@1"}
    await served.service.set_alias("docs", "docs@2")
    assert await served.found_in() == {"docs@2"}
    await served.service.put_documents("docs", [NEW])
    assert [document.id for document in await served.service.get_documents("docs@2", ["new"])] == ["new"]


async def test_in_the_steady_state_nobody_is_asked(served: Served) -> None:
    await served.found_in()
    described, asked = served.owner.described, len(served.new.asked)
    for _ in range(5):
        await served.found_in()
    assert (served.owner.described, len(served.new.asked)) == (described, asked)


async def test_an_ingress_that_has_not_heard_of_a_swap_looks_again(served: Served) -> None:
    other = served.ingress()
    for version in ("docs@1", "docs@2", "docs@1", "docs@2"):
        await served.service.set_alias("docs", version)
        assert await served.found_in(other) == {version}
        await other.put_documents("docs", [Document(f"new in {version}", f"amber {version}")])
        assert len(await other.get_documents(version, [f"new in {version}"])) == 1


async def test_a_swap_between_the_second_look_and_the_search_is_no_error(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await served.found_in()
    await served.service.set_alias("docs", "docs@2")

    async def swap_back_meanwhile(texts: Sequence[str], **options: Any) -> Embeddings:
        await served.service.set_alias("docs", "docs@1")
        return await Model.encode(served.new, texts, **options)

    monkeypatch.setattr(served.new, "encode", swap_back_meanwhile)
    assert await served.found_in() == {"docs@2"}
    assert await served.found_in() == {"docs@1"}


async def test_a_collection_that_others_dropped_is_made_anew_by_the_default_model(served: Served) -> None:
    other = served.ingress()
    await other.put_documents("docs@2", [NEW])
    await served.service.delete_collection("docs@2")
    assert (await other.put_documents("docs@2", [NEW])).upserted == 1
    assert (await other.describe_collection("docs@2")).fingerprint == "old@1"


async def test_a_collection_is_for_one_model(served: Served) -> None:
    await served.service.create_collection("docs@2", "new")
    with pytest.raises(Conflict, match=r"'docs@2' is there, for vectors of new@1; asked for was one for old@1"):
        await served.service.create_collection("docs@2")
    assert (await served.service.describe_collection("docs@2")).count == 3


async def test_vectors_that_came_with_their_documents_must_be_of_one_of_the_models(served: Served, retriever: Retriever) -> None:
    chunks = [chunk("a", "amber"), chunk("b", "basalt")]
    written = await served.service.import_chunks("moved", EmbeddedChunks(chunks, embed(chunks, "new@1")))
    again = await served.service.import_chunks("moved", EmbeddedChunks(chunks, embed(chunks, "new@1")))
    assert [(each.upserted, each.unchanged) for each in (written, again)] == [(2, 0), (0, 2)]
    assert await retriever.get("moved", ["a", "b"]) == chunks
    assert (await served.service.search(SearchRequest(["amber"], "moved", mode="dense"))).results[0][0].id == "a"
    for collection, fingerprint, named in (("more", "none@1", r"none@1.*old@1"), ("moved", "old@1", r"new@1.*old@1")):
        with pytest.raises(FingerprintMismatch, match=named):
            await served.service.import_chunks(collection, EmbeddedChunks(chunks, embed(chunks, fingerprint)))
    assert "more" not in await names(retriever)


class TestAtStart:
    def collection(self, name: str, fingerprint: str | None) -> CollectionInfo:
        return CollectionInfo(name, 1, fingerprint, "ready", ())

    async def test_only_the_embedders_that_are_needed_are_asked(self) -> None:
        old, new = Model("old@1"), Model("new@1")
        await require_embedders([self.collection("default", None)], {"old": old, "new": new})
        assert old.asked == new.asked == []
        await require_embedders([self.collection("docs@1", "old@1")], {"old": old, "new": new})
        assert (old.asked, new.asked) == (["info"], [])
        await require_embedders([self.collection("docs@1", "old@1"), self.collection("docs@2", "new@1")], {"old": old, "new": new})
        assert new.asked == ["info"]

    async def test_a_collection_of_no_embedder_is_refused(self) -> None:
        with pytest.raises(StoreError, match=r"'docs'.*lost@1.*old is old@1, new is new@1"):
            await require_embedders([self.collection("docs", "lost@1")], {"old": Model("old@1"), "new": Model("new@1")})
