"""Memory and disk of the embedded stores by what is stored.

Measured from outside, on a process of its own that opens and searches it: `python -m benchmarks.retrieval.memory STORE PATH LEG ...`
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from benchmarks.resident import MIB
from benchmarks.retrieval.corpus import Corpus
from benchmarks.retrieval.stored import STORES, StoreName, fill, opened, search
from benchmarks.serving.processes import Program
from benchmarks.serving.report import Section
from bgeserve.cli.progress import Bars
from bgeserve.types import Leg

DIMENSIONS = 384
SEARCHES = 100
FEW = 64
"""Chunks of the store that says what a process takes without any."""
RSS_GOAL_MIB = 3 * 1024
MODES: Mapping[str, Sequence[Leg]] = {
    "dense, full_text": ("dense",),
    "dense, sparse, full_text": ("dense", "sparse"),
    "these and multi_vector": ("dense", "sparse", "multi_vector"),
}
COLUMNS = ("store", "stored", "RSS MiB", "without its mapped files", "bytes a chunk", "disk MiB", "disk bytes a chunk")


def measure(stores: Sequence[StoreName], size: int, bars: Bars) -> Section:
    rows = [_row(store, mode, size, bars) for store in stores for mode in MODES]
    notes = [
        f"{size:,} chunks of {DIMENSIONS} dimensions and 64 token vectors; of all processes that hold the store open, after {SEARCHES} "
        f"searches of all legs; bytes a chunk: of RSS, above that with {FEW} chunks; goal for 100,000 chunks with multi_vector: "
        f"{RSS_GOAL_MIB:,} MiB"
    ]
    return Section("Memory and disk by what is stored", COLUMNS, rows, notes)


def _row(store: StoreName, mode: str, size: int, bars: Bars) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="retrieval-benchmark-") as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        for path, count in ((empty, FEW), (full, size)):
            asyncio.run(_build(store, path, Corpus(count, DIMENSIONS, MODES[mode]), bars))
        base_bytes, _ = _held_open(store, empty, MODES[mode])
        total_bytes, private_bytes = _held_open(store, full, MODES[mode])
        disk_bytes = 1024 * int(subprocess.run(["du", "-sk", full], check=True, capture_output=True, text=True).stdout.split()[0])
    return [
        store,
        mode,
        f"{total_bytes / MIB:,.0f}",
        f"{private_bytes / MIB:,.0f}",
        f"{(total_bytes - base_bytes) / size:,.0f}",
        f"{disk_bytes / MIB:,.0f}",
        f"{disk_bytes / size:,.0f}",
    ]


async def _build(store: StoreName, path: Path, corpus: Corpus, bars: Bars) -> None:
    async with opened(store, path) as retriever:
        await fill(retriever, corpus, bars.add(f"{store}: writing", corpus.documents, "chunks"))


def _held_open(store: StoreName, path: Path, legs: Sequence[Leg]) -> tuple[int, int]:
    """Bytes that are resident, and those of them that no file holds too."""
    command = [sys.executable, "-m", "benchmarks.retrieval.memory", store, str(path), *legs]
    program = Program(command, path.with_suffix(".log"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert program.process.stdout is not None
        if not program.process.stdout.readline():
            raise RuntimeError(program.said_last())
        pids = program.pids()
        return _sum(pids, "VmRSS"), _sum(pids, "RssAnon")
    finally:
        program.stop()


def _sum(pids: Sequence[int], field: str) -> int:
    found = [re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE) for pid in pids]
    return sum(1024 * int(match[1]) for match in found if match is not None)


async def _hold_open(store: StoreName, path: Path, legs: Sequence[Leg]) -> None:
    async with opened(store, path) as retriever:
        for query in Corpus(0, DIMENSIONS, legs).queries(SEARCHES):
            await search(retriever, query, [*legs, "full_text"])
        print("searched", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    name, stored_at, *chosen = sys.argv[1:]
    assert name in STORES
    asyncio.run(_hold_open(name, Path(stored_at), cast("list[Leg]", chosen)))
