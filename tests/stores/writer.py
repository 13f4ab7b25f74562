"""Run as a program: sixteen writers that put and delete documents of their own, saying what they begin and what is done.

    python -m tests.stores.writer KIND FOLDER          lines: "begin ID VERSION" and "done ID VERSION"; version 0 is a delete

`check` is the other half: what a killed writer's store must hold.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bgeserve.retrieval import StoreRetriever
from bgeserve.store_settings import EmbeddedStoreSettings, MilvusLiteSettings, QdrantEdgeSettings
from bgeserve.stores import open_store
from tests.stores.samples import FINGERPRINT, chunk, embed, tokens

WRITERS = 16
KINDS: dict[str, type[QdrantEdgeSettings | MilvusLiteSettings]] = {"qdrant_edge": QdrantEdgeSettings, "milvus_lite": MilvusLiteSettings}


async def main(kind: str, path: Path) -> None:
    retriever = StoreRetriever(settings(kind, path, create=True))
    await asyncio.gather(*(write(retriever, writer) for writer in range(WRITERS)))


async def write(retriever: StoreRetriever, writer: int) -> None:
    choose = random.Random(writer)
    version = 0
    while True:
        # Few ids, so that documents are rewritten and deleted; several at a time, so that writes have parts.
        ids = sorted({f"w{writer}-{choose.randrange(60)}" for _ in range(choose.choice([1, 1, 5]))})
        version += 1
        delete = choose.random() < 0.2
        for id in ids:
            print("begin", id, 0 if delete else version, flush=True)  # noqa: T201
        if delete:
            await retriever.delete("default", ids)
        else:
            chunks = [chunk(id, text_of(id, version)) for id in ids]
            ticket = await retriever.begin_write("default", FINGERPRINT, {c.document_id: c.content_hash for c in chunks})
            await retriever.finish_write("default", ticket, chunks, embed(chunks))
        for id in ids:
            print("done", id, 0 if delete else version, flush=True)  # noqa: T201


def settings(kind: str, path: Path, create: bool = False) -> EmbeddedStoreSettings:
    return KINDS[kind](path=path, create=create, min_free_bytes=2**20)


def text_of(id: str, version: int) -> str:
    return f"amber {id} version{version} " + "basalt " * (version % 50)


async def check(kind: str, path: Path, lines: Iterable[str]) -> int:
    """Assert that each document is in the state that was last reported done, or in one begun since. Answers how many writes were done."""
    possible: dict[str, set[int]] = {}
    done = 0
    for line in lines:
        said, id, version = line.split()
        if said == "begin":
            possible.setdefault(id, {0}).add(int(version))
        else:
            # A writer has one write under way, so whatever was begun before is decided.
            possible[id] = {int(version)}
            done += 1
    retriever = StoreRetriever(settings(kind, path))
    try:
        stored = {c.document_id: c.text for c in await retriever.get("default", list(possible))}
        for id, versions in possible.items():
            allowed = {text_of(id, version) if version else None for version in versions}
            assert stored.get(id) in allowed, f"{id} is {stored.get(id)!r}, and should be one of {allowed}"
        assert (await retriever.describe("default")).count == len(stored)
    finally:
        await retriever.close()
    _check_token_vectors(kind, path)
    return done


def _check_token_vectors(kind: str, path: Path) -> None:
    """Each text has its own, wherever they lie."""
    store = open_store(settings(kind, path))
    try:
        chunks, vectors = store.export("default", store.scroll("default", 10_000, None)[0]) if store.collections() else ([], None)
        for each, found in zip(chunks, () if vectors is None else vectors.multi_vector or (), strict=True):
            assert np.array_equal(found, tokens(each.text).astype(np.float16)), f"{each.document_id} has the token vectors of another text"
    finally:
        store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
