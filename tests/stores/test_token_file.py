"""Milvus Lite's token vectors lie beside its rows: whatever dies in between, the row says which hold. A server's lie in its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bgeserve.errors import ServiceError
from bgeserve.store_settings import MilvusLiteSettings
from bgeserve.stores import open_store
from bgeserve.stores.keys import chunk_key
from bgeserve.stores.token_file import TokenFile
from bgeserve.types import Float16Array
from tests.stores.conftest import needs
from tests.stores.samples import SCHEMA, TOKEN_DIMENSIONS, chunk, embed, query, tokens

VECTORS = {text: tokens(text).astype(np.float16) for text in ("amber", "basalt", "cedar")}


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "docs.token_vectors", TOKEN_DIMENSIONS)


def read(file: TokenFile, *keys: str, holding: dict[str, str] | None = None) -> dict[str, Float16Array]:
    def hashes_of(several: object) -> dict[str, str]:
        assert holding is not None, f"asked for {several}, of which there is one version each"
        return holding

    return file.read(keys, hashes_of)


def test_what_is_put_is_read_and_what_is_not_there_is_left_out(file: TokenFile) -> None:
    file.put({("a", "1"): VECTORS["amber"], ("b", "1"): VECTORS["basalt"]})
    file.put({("a", "1"): VECTORS["cedar"]})
    found = read(file, "a", "b", "c")
    assert sorted(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], VECTORS["cedar"])
    np.testing.assert_array_equal(found["b"], VECTORS["basalt"])
    file.delete(["a"])
    assert sorted(read(file, "a", "b")) == ["b"]
    assert read(file) == {}


def test_of_two_versions_the_rows_holds_until_the_other_is_dropped(file: TokenFile) -> None:
    file.put({("a", "old"): VECTORS["amber"]})
    file.put({("a", "new"): VECTORS["basalt"]})
    np.testing.assert_array_equal(read(file, "a", holding={"a": "old"})["a"], VECTORS["amber"])
    np.testing.assert_array_equal(read(file, "a", holding={"a": "new"})["a"], VECTORS["basalt"])
    file.drop_other_versions([("a", "new")])
    np.testing.assert_array_equal(read(file, "a")["a"], VECTORS["basalt"])


def test_a_dropped_file_leaves_nothing_behind(tmp_path: Path, file: TokenFile) -> None:
    file.put({("a", "1"): VECTORS["amber"]})
    file.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").write_bytes(b"no database" * 100)
    with pytest.raises(ServiceError, match=str(tmp_path / "docs")):
        TokenFile(tmp_path / "docs", TOKEN_DIMENSIONS)


def test_a_write_that_died_before_its_row_leaves_the_old_vectors_in_force(tmp_path: Path) -> None:
    needs("milvus_lite", "milvus")
    settings = MilvusLiteSettings(path=tmp_path / "store", create=True)
    store = open_store(settings)
    store.create("docs", SCHEMA)
    old, new = chunk("a", "amber"), chunk("a", "basalt")
    store.upsert("docs", [old], embed([old]))
    (path,) = settings.path.glob("*.token_vectors")
    beside = TokenFile(path, TOKEN_DIMENSIONS)
    beside.put({(chunk_key(new), new.content_hash): VECTORS["basalt"]})
    beside.close()
    store.close()
    store = open_store(settings)
    vectors = store.export("docs", ["a"])[1].multi_vector
    assert vectors is not None
    np.testing.assert_array_equal(vectors[0], VECTORS["amber"])
    store.upsert("docs", [new], embed([new]))
    (found,) = store.rescore("docs", query("basalt"), [chunk_key(new)])
    assert found.score == pytest.approx(1, abs=1e-3)
    store.close()


def test_a_servers_rows_hold_the_token_vectors(tmp_path: Path) -> None:
    """Over Lite, which takes the same calls."""
    needs("milvus_lite", "milvus")
    from pymilvus import MilvusClient

    from bgeserve.stores.milvus_collection import MilvusCollection
    from bgeserve.stores.milvus_lite import ENGINE

    rng = np.random.default_rng(0)
    chunks = [chunk(f"d{i}", f"amber {i}") for i in range(70)]
    long = rng.uniform(-1, 1, (20_000, TOKEN_DIMENSIONS)).astype(np.float32)
    written = replace(embed(chunks), multi_vector=[*(embed(chunks).multi_vector or ())[:-1], long])
    edge = open_store(MilvusLiteSettings(path=tmp_path / "beside", create=True))
    edge.create("docs", SCHEMA)
    client = MilvusClient(str(tmp_path / "rows.db"))
    rows = MilvusCollection.create(client, ENGINE, "docs", "docs", SCHEMA, "")
    for upsert in (rows.upsert, lambda *write: edge.upsert("docs", *write)):
        upsert(chunks, written)
    keys = [chunk_key(c) for c in chunks]
    assert rows.rescore(query("amber 7"), keys) == edge.rescore("docs", query("amber 7"), keys)
    assert len(rows.rescore(query("amber 7"), [*keys[3:], chunk_key(chunk("missing"))])) == 67
    for ours, theirs in zip(rows.export(["d0", "d69"])[1].multi_vector or (), (tokens("amber 0"), long), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float16))
    client.close()
    edge.close()
