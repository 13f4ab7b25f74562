"""What only the embedded store does: its folder, its lock, its disk, and BM25's average length."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.durability.disk import fill
from bgeserve.errors import StorageFull, StoreError
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.stores.bm25 import mean_tokens
from bgeserve.stores.qdrant_collection import STEADY_CHUNKS
from bgeserve.stores.qdrant_edge import QdrantEdgeStore
from tests.stores.disks import ext4
from tests.stores.samples import SCHEMA, chunk, embed, query


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def open_(path: Path, create: bool = False, language: str | None = "english", min_free_bytes: int = 2**20) -> QdrantEdgeStore:
    return QdrantEdgeStore(QdrantEdgeSettings(path=path, create=create, language=language, min_free_bytes=min_free_bytes))


def filled(path: Path, count: int = 1) -> QdrantEdgeStore:
    store = open_(path, create=True)
    store.create("docs", SCHEMA)
    chunks = [chunk(f"d{i}", f"amber number{i}") for i in range(count)]
    store.upsert("docs", chunks, embed(chunks))
    store.flush()
    return store


class TestFolder:
    def test_a_missing_folder_is_refused_by_name(self, path: Path) -> None:
        with pytest.raises(StoreError, match=rf"{path} does not exist.*create: true"):
            open_(path)
        assert not path.exists()

    def test_an_empty_folder_is_no_store(self, path: Path) -> None:
        path.mkdir()
        with pytest.raises(StoreError, match=r"is empty.*create: true"):
            open_(path)
        open_(path, create=True).close()

    def test_someone_elses_folder_is_left_alone(self, path: Path) -> None:
        path.mkdir()
        (path / "thesis.txt").write_text("do not touch")
        with pytest.raises(StoreError, match=r"'thesis.txt'.*not a bge-serve store"):
            open_(path, create=True)
        assert [entry.name for entry in path.iterdir()] == ["thesis.txt"]

    def test_a_file_is_no_folder(self, path: Path) -> None:
        path.write_text("")
        with pytest.raises(StoreError, match="is not a folder"):
            open_(path, create=True)

    def test_a_start_that_was_killed_before_the_manifest_is_begun_again(self, path: Path) -> None:
        path.mkdir()
        (path / "lock").write_text("1234")
        (path / "store.json.tmp").write_text("{")
        open_(path, create=True).close()

    @pytest.mark.parametrize(
        "manifest",
        ["", "[]", "{}", '{"kind": "qdrant_edge", "format": 2, "store_id": "x"}', '{"kind": "lance", "format": 1, "store_id": "x"}'],
    )
    def test_another_format_is_refused(self, path: Path, manifest: str) -> None:
        open_(path, create=True).close()
        (path / "store.json").write_text(manifest)
        with pytest.raises(StoreError, match=r"store\.json"):
            open_(path)

    def test_a_store_keeps_its_id(self, path: Path) -> None:
        open_(path, create=True).close()
        manifest = (path / "store.json").read_text()
        open_(path, create=True).close()
        assert (path / "store.json").read_text() == manifest
        assert len(json.loads(manifest)["store_id"]) == 36

    def test_a_broken_collection_is_named(self, path: Path) -> None:
        filled(path).close()
        (path / "collections" / "docs" / "schema.json").write_text("{")
        with pytest.raises(StoreError, match=r"'docs'.*cannot be opened"):
            open_(path)
        shutil.rmtree(path / "collections" / "docs" / "shard")
        with pytest.raises(StoreError, match=r"'docs'.*cannot be opened"):
            open_(path)

    def test_what_a_killed_create_left_is_made_anew(self, path: Path) -> None:
        filled(path).close()
        (path / "collections" / "docs" / "schema.json").unlink()
        store = open_(path)
        assert store.collections() == []
        store.create("docs", SCHEMA)
        assert store.count("docs") == 0
        store.close()

    def test_an_unknown_language_is_refused_at_start(self, path: Path) -> None:
        with pytest.raises(StoreError, match="'klingon'") as refused:
            open_(path, create=True, language="klingon")
        assert refused.value.field == "language"

    def test_another_language_than_the_index_is_refused(self, path: Path) -> None:
        filled(path).close()
        with pytest.raises(StoreError, match=r"'german'.*'docs'.*'english'"):
            open_(path, language="german")
        open_(path).close()


class TestOwner:
    def test_a_second_owner_is_refused(self, path: Path) -> None:
        store = filled(path)
        with pytest.raises(StoreError, match=rf"in use by another process \(pid {os.getpid()}\)"):
            open_(path)
        store.close()
        open_(path).close()

    def test_another_process_is_refused_until_the_owner_dies(self, path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from tests.stores.test_qdrant_edge import filled\n"
            "store = filled(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
        )
        owner = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"open\n"
            with pytest.raises(StoreError, match=f"pid {owner.pid}"):
                open_(path)
        finally:
            owner.kill()
            owner.communicate()
        store = open_(path)
        assert store.count("docs") == 1
        store.close()


class TestAverageLength:
    @pytest.mark.parametrize("language", ["english", None])
    def test_counts_every_word(self, language: str | None) -> None:
        texts = ["amber " * 300, "basalt", "cedar delta ember", "", "fjord granite fjord granite"]
        assert mean_tokens(language, texts) == pytest.approx((300 + 1 + 3 + 0 + 4) / 5, rel=1e-4)

    def test_is_at_least_one(self) -> None:
        assert mean_tokens("english", []) == mean_tokens("english", ["", "the"]) == 1.0

    def test_is_measured_while_the_collection_grows_and_then_kept(self, path: Path) -> None:
        store = filled(path)
        assert _lexicon(path) == {"average_tokens": pytest.approx(2.0), "measured_chunks": 1}
        for begin, words in ((1, 20), (600, 20), (1024, 20), (3000, 400)):
            chunks = [chunk(f"d{i}", "amber " * words) for i in range(begin, begin + (600 if begin < 3000 else 2000))]
            store.upsert("docs", chunks, embed(chunks))
        store.close()
        measured = _lexicon(path)
        assert measured["measured_chunks"] >= STEADY_CHUNKS
        assert measured["average_tokens"] == pytest.approx(20, rel=0.01)

    def test_weights_are_those_of_a_collection_that_was_written_at_once(self, path: Path, tmp_path: Path) -> None:
        chunks = [chunk(f"d{i}", "amber " * (i % 7 + 1) + f"basalt{i}") for i in range(256)]
        grown, whole = open_(path, create=True), open_(tmp_path / "whole", create=True)
        for store in (grown, whole):
            store.create("docs", SCHEMA)
        for size in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            grown.upsert("docs", chunks[size // 2 : size], embed(chunks[size // 2 : size]))
        whole.upsert("docs", chunks, embed(chunks))
        assert grown.search("docs", "full_text", query("amber"), 256, None) == whole.search("docs", "full_text", query("amber"), 256, None)
        assert grown.search("docs", "dense", query("amber"), 256, None) == whole.search("docs", "dense", query("amber"), 256, None)
        grown.close()
        whole.close()


def _lexicon(path: Path) -> dict[str, float]:
    return json.loads((path / "collections" / "docs" / "schema.json").read_text())["lexicon"]


class TestFullDisk:
    def test_every_write_is_refused_below_the_reserve_and_reading_goes_on(self, path: Path) -> None:
        filled(path).close()
        store = open_(path, min_free_bytes=2**60)
        for write in (
            lambda: store.upsert("docs", [chunk("b")], embed([chunk("b")])),
            lambda: store.delete("docs", ["d0"]),
            lambda: store.create("more", SCHEMA),
            store.ensure_writable,
        ):
            with pytest.raises(StorageFull, match=rf"{path}.*min_free_bytes: {2**60}"):
                write()
        assert store.count("docs") == len(store.search("docs", "full_text", query("amber"), 10, None)) == 1
        store.close()

    def test_a_disk_that_fills_up_kills_nobody(self, tmp_path: Path) -> None:
        """In a process of its own: without the reserve the kernel would end it with SIGBUS."""
        code = "import sys; from pathlib import Path; from tests.stores.test_qdrant_edge import fill_up; fill_up(Path(sys.argv[1]))"
        with ext4(tmp_path, size_mib=128) as disk:
            path = disk.path / "store"
            done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done
            written = int(done.stdout)
            assert written > 100
            # Whoever comes next reads it even where somebody else has taken the reserve.
            fill(disk.path / "the rest")
            store = open_(path)
            assert store.count("docs") == written
            assert [c.text for c in store.get("docs", [f"d{written - 1}"])] == [_long_text(written - 1)]
            store.close()


def fill_up(path: Path) -> None:
    store = open_(path, create=True, min_free_bytes=48 * 2**20)
    store.create("docs", SCHEMA)
    written = 0
    try:
        while True:
            chunks = [chunk(f"d{i}", _long_text(i)) for i in range(written, written + 50)]
            store.upsert("docs", chunks, embed(chunks))
            written += 50
            if written % 100 == 0:
                store.flush()
    except StorageFull:
        store.flush()
        assert store.count("docs") == len(store.get("docs", [f"d{i}" for i in range(written)])) == written
        assert len(store.search("docs", "dense", query("amber"), 10, None)) == 10
        print(written)  # noqa: T201


def _long_text(i: int) -> str:
    return f"number{i} amber {random.Random(i).randbytes(30_000).hex()}"
