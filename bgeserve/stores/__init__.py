"""Vector stores: each implements `vector_store.VectorStore`, and which one is used is the settings' choice."""

from __future__ import annotations

from importlib.util import find_spec

from bgeserve.errors import StoreError
from bgeserve.store_settings import MilvusLiteSettings, MilvusSettings, QdrantEdgeSettings, QdrantSettings, StoreSettings, VespaSettings
from bgeserve.vector_store import VectorStore


def open_store(settings: StoreSettings) -> VectorStore:
    """The store that the settings describe. Raises StoreError, naming the setting."""
    match settings:
        case QdrantEdgeSettings():
            from bgeserve.stores.qdrant_edge import QdrantEdgeStore

            return QdrantEdgeStore(settings)
        case QdrantSettings():
            _require("qdrant_client", settings.kind)
            from bgeserve.stores.qdrant_server import QdrantStore, connect

            prefix, language = settings.collection_prefix, settings.language
            return QdrantStore(connect(settings), prefix, language, settings.quantization, settings.oversampling)
        case MilvusLiteSettings():
            _require("pymilvus", settings.kind)
            _require("milvus_lite", settings.kind)
            # Of setuptools before 82: milvus-lite imports it and does not say so.
            _require("pkg_resources", settings.kind)
            from bgeserve.stores.milvus_lite import MilvusLiteStore

            return MilvusLiteStore(settings)
        case MilvusSettings():
            _require("pymilvus", settings.kind)
            from bgeserve.stores.milvus_server import MilvusStore

            return MilvusStore(settings)
        case VespaSettings():
            _require("vespa", settings.kind)
            from bgeserve.stores.vespa import VespaStore

            return VespaStore(settings)


def _require(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise StoreError(f"store.kind is {extra!r}, which needs {module}: install bge-serve[{extra}]", field="kind")
