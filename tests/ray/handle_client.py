"""A program that holds the application's handle, run by tests in a process of its own: writes what each call answered, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import ray
from ray import serve

from bgeserve.errors import UnknownModel
from bgeserve.protocols import SearchRequest
from bgeserve.types import Document

TEXTS = ["read and write gzip files", "parse command line arguments"]


def use_result(handle: Any) -> dict[str, Any]:
    vectors = handle.encode.remote(TEXTS, outputs=("dense",), lane="bulk").result()
    written = handle.put_documents.remote("handles", [Document(text, text) for text in TEXTS]).result()
    answer = handle.search.remote(SearchRequest(["compress a file"], collection="handles", top_k=1)).result()
    scores = handle.rerank.remote("compress a file", TEXTS).result()
    try:
        handle.encode.remote(TEXTS, model="nobody").result()
        refused = None
    except UnknownModel as error:
        refused = error.message
    return _told(vectors, written, answer, scores, refused, handle.delete_collection.remote("handles").result())


async def use_await(handle: Any) -> dict[str, Any]:
    vectors = await handle.encode.remote(TEXTS, outputs=("dense",), lane="bulk")
    written = await handle.put_documents.remote("handles", [Document(text, text) for text in TEXTS])
    answer = await handle.search.remote(SearchRequest(["compress a file"], collection="handles", top_k=1))
    scores = await handle.rerank.remote("compress a file", TEXTS)
    try:
        await handle.encode.remote(TEXTS, model="nobody")
        refused = None
    except UnknownModel as error:
        refused = error.message
    return _told(vectors, written, answer, scores, refused, await handle.delete_collection.remote("handles"))


def _told(vectors: Any, written: Any, answer: Any, scores: Any, refused: str | None, deleted: int) -> dict[str, Any]:
    return {
        "dense": [str(vectors.dense.dtype), *vectors.dense.shape],
        "stored": written.upserted + written.unchanged,
        "found": [hit.id for hit in answer.results[0]],
        "reranked": TEXTS[int(scores.normalized.argmax())],
        "refused": refused,
        "deleted": deleted,
    }


def main(how: str) -> None:
    ray.init(log_to_driver=False)
    handle = serve.get_app_handle("search")
    told = asyncio.run(use_await(handle)) if how == "await" else use_result(handle)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
