"""What only Milvus does: its limits, its names, and Lite's folder."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from bgeserve.errors import InvalidRequest, StorageFull, StoreError, Unavailable
from bgeserve.filters import Equals, Not, Range
from bgeserve.store_settings import MilvusLiteSettings, MilvusSettings
from bgeserve.stores import open_store
from bgeserve.types import Chunk
from tests.stores.samples import SCHEMA, chunk, embed, query

if find_spec("milvus_lite") is None:
    pytest.skip("needs bge-serve[milvus]", allow_module_level=True)

from bgeserve.stores.milvus_filter import expression
from bgeserve.stores.milvus_lite import MilvusLiteStore
from bgeserve.stores.milvus_names import MAX_NAME, alias_of, stored_alias, stored_name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def open_(path: Path, create: bool = False, language: str | None = "english", min_free_bytes: int = 2**20) -> MilvusLiteStore:
    return MilvusLiteStore(MilvusLiteSettings(path=path, create=create, language=language, min_free_bytes=min_free_bytes))


def filled(path: Path) -> MilvusLiteStore:
    store = open_(path, create=True)
    store.create("docs", SCHEMA)
    store.upsert("docs", [chunk("d0", "amber")], embed([chunk("d0", "amber")]))
    return store


def test_a_missing_folder_is_refused_and_another_stores_is_left_alone(path: Path) -> None:
    with pytest.raises(StoreError, match=rf"{path} does not exist.*create: true"):
        open_(path)
    path.mkdir()
    (path / "store.json").write_text('{"kind": "qdrant_edge", "format": 1, "store_id": "x"}')
    with pytest.raises(StoreError, match="qdrant_edge"):
        open_(path, create=True)


def test_searches_leave_no_log_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.joinpath("logs").mkdir()
    monkeypatch.setenv("GLOG_log_dir", str(path.parent / "logs"))
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    store = filled(path)
    assert store.search("docs", "dense", query("amber"), 1, None)
    store.close()
    assert list((path.parent / "logs").iterdir()) == []


def test_a_folder_has_one_owner(path: Path) -> None:
    store = filled(path)
    with pytest.raises(StoreError, match="in use by another process"):
        open_(path)
    assert store.count("docs") == 1
    store.close()
    open_(path).close()


def test_a_language_is_known_and_that_of_the_index(path: Path) -> None:
    with pytest.raises(StoreError, match="'klingon'"):
        open_(path, create=True, language="klingon")
    filled(path).close()
    with pytest.raises(StoreError, match=r"'german'.*'docs'.*'english'"):
        open_(path, language="german")
    open_(path).close()


def test_writes_are_refused_below_the_reserve_and_reading_goes_on(path: Path) -> None:
    filled(path).close()
    store = open_(path, min_free_bytes=2**60)
    for write in (
        lambda: store.upsert("docs", [chunk("b")], embed([chunk("b")])),
        lambda: store.delete("docs", ["d0"]),
        lambda: store.create("more", SCHEMA),
    ):
        with pytest.raises(StorageFull, match=f"min_free_bytes: {2**60}"):
            write()
    assert store.count("docs") == len(store.search("docs", "full_text", query("amber"), 10, None)) == 1
    store.close()


@pytest.mark.parametrize(
    ("what", "bad"),
    [
        ("its text", chunk("big", "ä" * 32_768)),
        ("the words of its text", chunk("big", " ".join(f"w{i:x}" for i in range(9000)))),
        ("its id and metadata", chunk("big", metadata={"a": "x" * 65_536})),
        ("its metadata would be 4097 keywords", chunk("big", metadata={f"f{i}": i for i in range(241)})),
    ],
)
def test_what_is_beyond_a_limit_of_milvus_is_refused_whole(path: Path, what: str, bad: Chunk) -> None:
    store = filled(path)
    chunks = [chunk("good"), bad]
    with pytest.raises(InvalidRequest, match=rf"'big'.*{what}"):
        store.upsert("docs", chunks, embed(chunks))
    assert store.count("docs") == 1
    store.close()


def test_a_negation_sees_every_keyword_of_documents_that_were_there_before(path: Path) -> None:
    store = filled(path)
    chunks = [chunk(f"m{i}", metadata={"tag": [f"t{j}" for j in range(i)]}) for i in range(40)]
    store.upsert("docs", chunks, embed(chunks))
    assert len(store.matching("docs", Not(Equals("tag", "t38")))) == 40
    store.close()
    store = open_(path)
    # Only the last document has it, and at the end of the longest array.
    assert "m39" not in store.matching("docs", Not(Equals("tag", "t38")))
    assert len(store.matching("docs", Not(Equals("tag", "t38")))) == 40
    store.close()


def test_a_server_is_asked_to_negate_and_lite_is_not() -> None:
    filter = Not(Range("year", gte=2000))
    assert "(not array_contains_any(" in expression(filter, None)
    assert "not array_contains_any" not in expression(filter, 3)
    assert expression(filter, 3).count("not in") == 3


def test_names_are_milvus_identifiers_and_never_meet() -> None:
    names = ["docs", "a.b", "a-b", "a_b", "A_b", "9" * 128, "9" * 127 + "8"]
    stored = [stored_name("bge_serve_", name) for name in names]
    assert len(set(stored)) == len(names)
    assert all(name.isidentifier() and len(name) <= 255 for name in stored)


@pytest.mark.parametrize("alias", ["docs", "docs@2", "a.b", "a-b", "a_b", "a_2db", "A_b", "9"])
def test_an_alias_is_a_milvus_identifier_that_says_its_name(alias: str) -> None:
    stored_as = stored_alias("bge_serve_", alias)
    assert stored_as.isidentifier()
    assert alias_of("bge_serve_", stored_as) == alias


def test_an_alias_that_is_too_long_for_milvus_is_refused() -> None:
    assert len(stored_alias("bge_serve_", "a" * 128)) < MAX_NAME
    with pytest.raises(InvalidRequest, match="394 characters in Milvus; the limit is 255"):
        stored_alias("bge_serve_", "." * 128)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9") as refused:
        open_store(MilvusSettings(uri="http://127.0.0.1:9", timeout_s=0.3))
    assert refused.value.field == "uri"


def test_a_process_that_died_is_started_again_with_what_was_acknowledged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = filled(path)
    _kill_milvus()
    assert store.count("docs") == len(store.search("docs", "full_text", query("amber"), 10, None)) == 1
    assert len(caplog.records) == 1
    store.upsert("docs", [chunk("d1")], embed([chunk("d1")]))
    assert store.count("docs") == 2
    store.close()


def test_a_call_in_which_it_dies_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(path)
    _kill_milvus()
    monkeypatch.setattr("bgeserve.stores.milvus_lite._answers", lambda file: True)
    with pytest.raises(Unavailable, match="'docs'"):
        store.count("docs")
    store.close()


def _kill_milvus() -> None:
    children = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    killed = [pid for pid in children if b"milvus" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]]
    assert len(killed) == 1
    os.kill(killed[0], signal.SIGKILL)
    os.waitid(os.P_PID, killed[0], os.WEXITED | os.WNOWAIT)


def test_a_secret_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    with pytest.raises(StoreError, match="'MILVUS_TOKEN', which is not set"):
        open_store(MilvusSettings(uri="http://127.0.0.1:9", token_env="MILVUS_TOKEN"))
