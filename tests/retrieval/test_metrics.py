"""What the owner of the collections measures of them: how full they are after a write, and the writes that failed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bgeserve import store_metrics
from bgeserve.errors import StaleWrite, Unavailable
from bgeserve.observe import Kind, Observer
from bgeserve.retrieval import StoreRetriever
from bgeserve.store_settings import MEASURED_DOCUMENTS, QdrantEdgeSettings
from bgeserve.types import Chunk, Embeddings

Sent = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def sent() -> Sent:
    return []


@pytest.fixture
async def retriever(tmp_path: Path, sent: Sent) -> AsyncIterator[StoreRetriever]:
    def sink(kind: Kind, name: str, value: float, tags: dict[str, str]) -> None:
        sent.append((name, value, tags))

    retriever = StoreRetriever(QdrantEdgeSettings(path=tmp_path / "store", create=True), observer=Observer(sink))
    yield retriever
    await retriever.close()


async def write(retriever: StoreRetriever, id: str) -> None:
    embeddings = Embeddings("model@1", [1], [False], dense=np.ones((1, 4), np.float32))
    ticket = await retriever.begin_write("docs", "model@1", {id: id})
    await retriever.finish_write("docs", ticket, [Chunk(id, 0, 0, 1, "a", {}, id)], embeddings)


async def counted(retriever: StoreRetriever, sent: Sent) -> list[float]:
    await retriever.collections()  # whatever was to be counted has been by now: the store has one thread
    return [value for name, value, tags in sent if name == "store_documents" and tags == {"collection": "docs"}]


async def test_a_write_tells_how_full_the_collection_is_and_the_next_ones_only_after_a_while(
    retriever: StoreRetriever, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(retriever, "a")
    await write(retriever, "b")
    assert await counted(retriever, sent) == [1]
    monkeypatch.setattr(store_metrics, "LOOK_EVERY_S", 0)
    await write(retriever, "c")
    assert await counted(retriever, sent) == [1, 3]
    values = {name: (value, tags) for name, value, tags in sent}
    assert values["store_fill_ratio"] == (3 / MEASURED_DOCUMENTS, {"collection": "docs"})
    free, tags = values["store_disk_free_ratio"]
    assert 0 < free < 1
    assert tags == {}


async def test_a_write_that_fails_is_counted_and_one_that_is_refused_is_not(
    retriever: StoreRetriever, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failures() -> int:
        return len([name for name, _, _ in sent if name == "failed_writes_total"])

    async def ends_with(error: Exception) -> None:
        async def flush() -> None:
            raise error

        monkeypatch.setattr(retriever._commit, "commit", flush)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(type(error)):
            await write(retriever, "a")

    await ends_with(StaleWrite("somebody else's"))
    assert failures() == 0
    await ends_with(Unavailable("the disk has gone"))
    assert failures() == 1
