"""Each store's own client on a copy of the same files: the legs' searches and nothing else. What ours takes more is the Retriever's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.retrieval.stored import CANDIDATES, COLLECTION, StoreName
from bgeserve.types import Leg, Query

Search = Callable[[Query, Sequence[Leg]], None]


def qdrant_edge(folder: Path) -> Search:
    import qdrant_edge as qdrant

    shard = qdrant.EdgeShard.load(str(folder / "collections" / COLLECTION / "shard"))

    def search(query: Query, legs: Sequence[Leg]) -> None:
        for leg in legs:
            vector = qdrant.SparseVector(*_sparse(query)) if leg == "sparse" else _dense(query)
            nearest = qdrant.Query.Nearest(vector, using=leg)
            shard.query(qdrant.QueryRequest(limit=CANDIDATES, query=nearest, with_payload=False, with_vector=False))

    return search


def milvus_lite(folder: Path) -> Search:
    from pymilvus import MilvusClient

    client = MilvusClient(str(folder / "milvus.db"))
    (name,) = client.list_collections()
    client.load_collection(name)

    def search(query: Query, legs: Sequence[Leg]) -> None:
        for leg in legs:
            vector = dict(zip(*_sparse(query), strict=True)) if leg == "sparse" else _dense(query)
            client.search(name, [vector], limit=CANDIDATES, anns_field=leg)

    return search


def on_a_copy(store: StoreName, folder: Path) -> Search:
    """A folder has one owner at a time."""
    copy = folder.with_name(f"{folder.name}-copy")
    subprocess.run(["cp", "--recursive", "--sparse=always", folder, copy], check=True)  # Qdrant's files are mostly holes
    return _CLIENTS[store](copy)


def _dense(query: Query) -> list[float]:
    assert query.dense is not None
    return query.dense.tolist()


def _sparse(query: Query) -> tuple[list[int], list[float]]:
    assert query.sparse is not None
    return query.sparse.indices.tolist(), query.sparse.values.tolist()


_CLIENTS: Mapping[StoreName, Callable[[Path], Search]] = {"qdrant_edge": qdrant_edge, "milvus_lite": milvus_lite}
