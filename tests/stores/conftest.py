"""Every store that the contract holds for: a function that opens it, again and again with the same content."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from bgeserve.store_settings import MilvusLiteSettings, MilvusSettings, QdrantEdgeSettings, QdrantSettings, VespaSettings
from bgeserve.stores import open_store
from bgeserve.vector_store import VectorStore
from tests.stores.samples import SCHEMA

Opener = Callable[[], VectorStore]


@contextmanager
def _qdrant_edge(path: Path) -> Iterator[Opener]:
    yield lambda: open_store(QdrantEdgeSettings(path=path, create=True))


@contextmanager
def _qdrant_stand_in(path: Path) -> Iterator[Opener]:
    """The server's own client, over brute force in Python."""
    needs("qdrant_client", "qdrant")
    from qdrant_client import QdrantClient

    from bgeserve.stores.qdrant_server import QdrantStore

    yield lambda: QdrantStore(QdrantClient(path=str(path)), "test_", "english")


@contextmanager
def _qdrant(path: Path) -> Iterator[Opener]:
    settings = QdrantSettings(url=_server("QDRANT_URL"), collection_prefix=f"test_{uuid.uuid4().hex}_")
    yield lambda: open_store(settings)
    from bgeserve.stores.qdrant_server import connect

    client = connect(settings)
    for found in client.get_collections().collections:
        if found.name.startswith(settings.collection_prefix):
            client.delete_collection(found.name)
    client.close()


@contextmanager
def _milvus_lite(path: Path) -> Iterator[Opener]:
    needs("milvus_lite", "milvus")
    yield lambda: open_store(MilvusLiteSettings(path=path, create=True))


@contextmanager
def _milvus(path: Path) -> Iterator[Opener]:
    uri, prefix = _server("MILVUS_URI"), f"test_{uuid.uuid4().hex}_"
    yield lambda: open_store(MilvusSettings(uri=uri, collection_prefix=prefix))
    client = pytest.importorskip("pymilvus").MilvusClient(uri)
    for name in client.list_collections():
        if name.startswith(prefix):
            client.drop_collection(name)
    client.close()


@contextmanager
def _vespa(path: Path) -> Iterator[Opener]:
    """An application with the package that `python -m tests.stores.vespa_package FOLDER` writes."""
    url = _server("VESPA_URL")
    needs("vespa", "vespa")
    settings = VespaSettings(url=url, collection_prefix=f"test_{uuid.uuid4().hex}_", exact=True)
    yield lambda: open_store(settings)
    from tests.stores.vespa_package import remove_all

    remove_all(settings)


def needs(module: str, extra: str) -> None:
    """Skip a test where an extra is not installed."""
    if find_spec(module) is None:
        pytest.skip(f"needs bge-serve[{extra}]")


def _server(variable: str) -> str:
    if not (address := os.environ.get(variable)):
        pytest.skip(f"needs a server: set {variable} to its address")
    return address


STORES: dict[str, Callable[[Path], AbstractContextManager[Opener]]] = {
    "qdrant_edge": _qdrant_edge,
    "qdrant_stand_in": _qdrant_stand_in,
    "qdrant": _qdrant,
    "milvus_lite": _milvus_lite,
    "milvus": _milvus,
    "vespa": _vespa,
}


@pytest.fixture(params=STORES)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    with STORES[request.param](tmp_path / "store") as opener:
        yield opener


@pytest.fixture
def store(opener: Opener) -> Iterator[VectorStore]:
    """Open, with an empty collection "docs"."""
    store = opener()
    store.create("docs", SCHEMA)
    yield store
    store.close()
