"""A write that was under way when Milvus Lite or its owner died: whoever opens the store next finishes it, wherever it had come to."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgeserve.errors import Unavailable
from bgeserve.store_settings import MilvusLiteSettings
from bgeserve.types import Chunk
from tests.stores.samples import SCHEMA, chunk, embed, query

if find_spec("milvus_lite") is None:
    pytest.skip("needs bge-serve[milvus]", allow_module_level=True)

from pymilvus import MilvusClient, MilvusException
from pymilvus.client.types import Status

from bgeserve.stores.milvus_lite import MilvusLiteStore

OTHERS = 70
"""More than one call to the engine takes."""
CALLS = ("upsert", "delete")


def open_(path: Path) -> MilvusLiteStore:
    return MilvusLiteStore(MilvusLiteSettings(path=path, create=True, language="english", min_free_bytes=2**20))


def document(id: str, *texts: str) -> list[Chunk]:
    return [chunk(id, text, n=n) for n, text in enumerate(texts)]


OLD = [*document("d", "amber one", "amber two", "amber three"), *document("e", "basalt one", "basalt two")]
NEW = [*document("d", "cedar only"), *document("e", "cedar first", "cedar second"), *(chunk(f"o{i}", "cedar") for i in range(OTHERS))]


def die_at(monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """From the nth write on, the engine is not there any more."""
    made = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            if made >= nth:
                raise MilvusException(Status.CONNECT_FAILED, "dead")
            return real(*args, **kwargs)

        return write

    for name in CALLS:
        monkeypatch.setattr(MilvusClient, name, dying(getattr(MilvusClient, name)))


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_replacement_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    store = open_(tmp_path / "store")
    store.create("docs", SCHEMA)
    store.upsert("docs", OLD, embed(OLD))
    with monkeypatch.context() as patch:
        die_at(patch, nth)
        with pytest.raises(Unavailable):
            store.upsert("docs", NEW, embed(NEW))
    store.close()
    again = open_(tmp_path / "store")
    ids = list(dict.fromkeys(c.document_id for c in NEW))
    chunks, embeddings = again.export("docs", ids)
    assert chunks == NEW
    wanted = embed(NEW)
    assert embeddings.dense is not None
    assert wanted.dense is not None
    np.testing.assert_array_equal(embeddings.dense, wanted.dense)
    assert [vector.values.tolist() for vector in embeddings.sparse or ()] == [vector.values.tolist() for vector in wanted.sparse or ()]
    assert [vector.indices.tolist() for vector in embeddings.sparse or ()] == [vector.indices.tolist() for vector in wanted.sparse or ()]
    assert again.search("docs", "full_text", query("amber"), 10, None) == []
    assert again.count("docs") == 2 + OTHERS
    again.close()


@pytest.mark.parametrize("nth", [1, 2])
def test_a_delete_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    store = open_(tmp_path / "store")
    store.create("docs", SCHEMA)
    many = [chunk("d", f"amber {n}", n=n) for n in range(OTHERS)]
    store.upsert("docs", many, embed(many))
    with monkeypatch.context() as patch:
        die_at(patch, nth)
        with pytest.raises(Unavailable):
            store.delete("docs", ["d"])
    store.close()
    again = open_(tmp_path / "store")
    assert again.get("docs", ["d"]) == []
    assert again.search("docs", "dense", query("amber 69"), 10, None) == []
    again.close()


def test_a_write_that_failed_is_finished_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_(tmp_path / "store")
    store.create("docs", SCHEMA)
    store.upsert("docs", OLD, embed(OLD))
    with monkeypatch.context() as patch:
        die_at(patch, 2)
        with pytest.raises(Unavailable):
            store.upsert("docs", NEW, embed(NEW))
    later = document("e", "delta")
    store.upsert("docs", later, embed(later))
    assert store.get("docs", ["d", "e"]) == [*NEW[:1], *later]
    assert store.count("docs") == 2 + OTHERS
    store.close()


def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    store = open_(tmp_path / "store")
    store.create("docs", SCHEMA)
    store.upsert("docs", OLD, embed(OLD))
    assert store.delete("docs", ["d"]) == 1
    store.close()
    assert list((tmp_path / "store").glob("*.redo")) == []


def test_a_write_that_the_engine_refuses_for_good_keeps_nobody_from_opening(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_(tmp_path / "store")
    store.create("docs", SCHEMA)
    store.upsert("docs", OLD, embed(OLD))
    store.close()
    stored_as = next((tmp_path / "store").glob("*.token_vectors")).stem
    left = tmp_path / "store" / f"{stored_as}.redo"
    left.write_text('{"rows": [{"key": "k", "document": "d", "n": 0, "terms": []}], "gone": []}')
    again = open_(tmp_path / "store")
    assert again.get("docs", ["d"]) == OLD[:3]
    assert "is refused" in caplog.text
    assert not left.exists()
    again.close()
