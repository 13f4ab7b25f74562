"""Vector stores: each implements `vector_store.VectorStore`, and which one is used is the settings' choice."""

from __future__ import annotations

from bgeserve.settings import QdrantEdgeSettings
from bgeserve.vector_store import VectorStore


def open_store(settings: QdrantEdgeSettings) -> VectorStore:
    """The store that the settings describe. Raises StoreError, naming the setting."""
    from bgeserve.stores.qdrant_edge import QdrantEdgeStore

    return QdrantEdgeStore(settings)
