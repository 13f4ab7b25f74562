"""What the owner of the collections asks at its start, and that a store which it must not serve is given back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from bgeserve.errors import StoreError
from bgeserve.retrieval import StoreRetriever
from bgeserve.store_settings import QdrantEdgeSettings
from deployments.retriever import RetrieverDeployment
from tests.deployments.fakes import PieceHandle
from tests.retrieval.owner import put
from tests.retrieval.test_index_embedders import Model
from tests.stores.samples import chunk


@pytest.fixture
async def settings(tmp_path: Path) -> QdrantEdgeSettings:
    """Of a store with a collection of tiny@1."""
    settings = QdrantEdgeSettings(path=tmp_path / "store", create=True, min_free_bytes=2**20)
    retriever = StoreRetriever(settings)
    await put(retriever, chunk("a"), collection="docs")
    await retriever.close()
    return settings


@pytest.fixture(autouse=True)
def _one_node_and_its_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}])
    logger = logging.getLogger("bgeserve")
    before = list(logger.handlers)
    yield
    logger.handlers[:] = before


class Owner(RetrieverDeployment.func_or_class):  # type: ignore[name-defined, misc]
    """Without its end, which Serve awaits and Python's garbage collector cannot."""

    def __del__(self) -> None: ...

    async def close(self) -> None:
        await self._retriever.close()


async def started(settings: QdrantEdgeSettings, **fingerprints: str) -> tuple[Any, dict[str, PieceHandle]]:
    handles = {name: PieceHandle(name, Model(fingerprint)) for name, fingerprint in fingerprints.items()}
    owner = Owner.__new__(Owner)
    await owner.__init__(settings, handles)
    return owner, handles


async def test_an_embedder_that_made_no_collection_is_not_woken(settings: QdrantEdgeSettings) -> None:
    owner, handles = await started(settings, first="tiny@1", other="other@1")
    assert (handles["first"].calls, handles["other"].calls) == (["first.info"], [])
    assert [info.name for info in await owner.collections()] == ["default", "docs"]
    await owner.close()


async def test_a_collection_of_another_embedder_than_the_default_is_served(settings: QdrantEdgeSettings) -> None:
    owner, handles = await started(settings, first="other@1", tiny="tiny@1")
    assert handles["tiny"].calls == ["tiny.info"]
    await owner.close()


async def test_a_collection_of_no_embedder_is_refused_and_the_store_given_back(settings: QdrantEdgeSettings) -> None:
    with pytest.raises(StoreError, match=r"'docs' holds vectors of tiny@1; of the embedders, first is other@1, second is more@1"):
        await started(settings, first="other@1", second="more@1")
    await StoreRetriever(settings).close()
