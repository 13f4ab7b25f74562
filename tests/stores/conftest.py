"""Every store that the contract holds for: a function that opens it, again and again with the same content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgeserve.settings import QdrantEdgeSettings
from bgeserve.stores import open_store
from bgeserve.vector_store import VectorStore
from tests.stores.samples import SCHEMA

Opener = Callable[[], VectorStore]


@pytest.fixture(params=["qdrant_edge"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    settings = {"qdrant_edge": QdrantEdgeSettings(path=tmp_path / "store", create=True)}
    return lambda: open_store(settings[request.param])


@pytest.fixture
def store(opener: Opener) -> Iterator[VectorStore]:
    """Open, with an empty collection "docs"."""
    store = opener()
    store.create("docs", SCHEMA)
    yield store
    store.close()
