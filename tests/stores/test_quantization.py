"""Quantized dense vectors: found by their short form, scored by the whole ones; as the collection's first write found the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from bgeserve.errors import StoreError
from bgeserve.filters import Equals
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.stores import open_store
from bgeserve.types import Float32Array, Query
from bgeserve.vector_store import CollectionSchema, VectorStore
from tests.stores.conftest import needs
from tests.stores.samples import SCHEMA, chunk, embed

Kind = Literal["none", "turbo", "binary"]
DIMENSIONS = 256
TOP = 50
WIDE = CollectionSchema("wide@1", DIMENSIONS, has_sparse=False, language="english")


def open_(path: Path, quantization: Kind, oversampling: float = 2) -> VectorStore:
    return open_store(QdrantEdgeSettings(path=path, create=True, quantization=quantization, oversampling=oversampling))


@pytest.fixture(scope="module")
def vectors() -> Float32Array:
    """Clustered, as those of texts are."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, DIMENSIONS))
    found = centres[rng.integers(0, 40, 2000)] + 0.7 * rng.standard_normal((2000, DIMENSIONS))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def filled(path: Path, vectors: Float32Array, quantization: Kind) -> VectorStore:
    store = open_(path, quantization)
    store.create("docs", WIDE)
    chunks = [chunk(f"d{i}", metadata={"half": i % 2}) for i in range(len(vectors))]
    store.upsert("docs", chunks, replace(embed(chunks, WIDE.fingerprint), dense=vectors, sparse=None, multi_vector=None))
    return store


def recall_and_worst_score(store: VectorStore, vectors: Float32Array, half: int | None = None) -> tuple[float, float]:
    """Of the exact best, the share that is found; and how far the score of any that was found is from its inner product."""
    shares: list[float] = []
    worst = 0.0
    allowed = np.array([half is None or i % 2 == half for i in range(len(vectors))])
    for asked in vectors[:20]:
        scores = vectors @ asked
        best = set(np.argsort(-np.where(allowed, scores, -2))[:TOP].tolist())
        hits = store.search("docs", "dense", Query("x", dense=asked), TOP, None if half is None else Equals("half", half))
        found = {int(c.document_id[1:]): hit.score for c, hit in zip(store.fetch("docs", hits), hits, strict=True)}
        shares.append(len(best & found.keys()) / TOP)
        worst = max(worst, *(abs(score - float(scores[i])) for i, score in found.items()))
    return float(np.mean(shares)), worst


def test_turbo_finds_nearly_what_an_exact_search_finds_and_scores_it_exactly(tmp_path: Path, vectors: Float32Array) -> None:
    store = filled(tmp_path / "store", vectors, "turbo")
    for _ in range(2):
        for half in (None, 1):
            recall, worst_score = recall_and_worst_score(store, vectors, half)
            assert recall >= 0.98
            assert worst_score < 1e-5
        store.flush()
        store.close()
        store = open_(tmp_path / "store", "turbo")
    store.close()


def test_binary_finds_more_the_more_is_scored_anew(tmp_path: Path, vectors: Float32Array) -> None:
    filled(tmp_path / "store", vectors, "binary").close()
    recalls: list[float] = []
    for oversampling in (1, 4, 16):
        store = open_(tmp_path / "store", "binary", oversampling)
        recall, worst_score = recall_and_worst_score(store, vectors)
        assert worst_score < 1e-5
        recalls.append(recall)
        store.close()
    assert recalls[0] < recalls[1] < recalls[2] <= 1
    assert recalls[2] >= 0.98


def test_a_collection_keeps_the_quantization_of_its_first_write(tmp_path: Path) -> None:
    store = open_(tmp_path / "store", "turbo")
    store.create("docs", SCHEMA)
    assert store.schema("docs") == replace(SCHEMA, quantization="turbo")
    store.close()
    with pytest.raises(StoreError, match=r"store\.quantization is 'binary', but collection 'docs' was indexed with 'turbo'") as refused:
        open_(tmp_path / "store", "binary")
    assert refused.value.field == "quantization"
    open_(tmp_path / "store", "turbo").close()


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
@pytest.mark.parametrize("kind", ["scalar", "turbo", "binary"])
def test_a_server_is_asked_for_it_by_its_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The stand-in keeps no short forms: what is looked at is what would go to a server."""
    needs("qdrant_client", "qdrant")
    from qdrant_client import QdrantClient, models

    from bgeserve.stores.qdrant_server import QdrantStore

    client = QdrantClient(path=str(tmp_path / "server"))
    asked: dict[str, Any] = {}
    for method in ("create_collection", "query_points"):
        monkeypatch.setattr(client, method, _watched(getattr(client, method), asked))
    store = QdrantStore(client, "test_", "english", kind, 3)
    store.create("docs", SCHEMA)
    store.upsert("docs", [chunk("a")], embed([chunk("a")]))
    store.search("docs", "dense", Query("x", dense=np.ones(8, np.float32)), 1, None)
    assert list(asked["vectors_config"]["dense"].quantization_config.model_dump()) == [kind]
    assert asked["vectors_config"]["dense"].on_disk
    assert asked["search_params"] == models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=3))
    store.search("docs", "full_text", Query("text"), 1, None)
    assert asked["search_params"] is None
    store.close()


def _watched(method: Any, asked: dict[str, Any]) -> Any:
    def watched(*args: Any, **keywords: Any) -> Any:
        asked.update(keywords)
        return method(*args, **keywords)

    return watched
