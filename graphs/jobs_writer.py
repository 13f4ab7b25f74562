"""The part of a data job that runs in the cluster: reads records and puts their documents into the service, several calls at a time.

What is stored already is not embedded again, and a job that was killed leaves whole documents behind: whoever starts it again goes on where
it was. Knows records and the application's handle. Chunks, vectors and the order of writes are the service's (`bgeserve/indexing.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import ray
from ray import serve
from ray.data import DataContext, Dataset
from ray.serve.exceptions import RayServeException

from bgeserve.caller import A_JOB
from bgeserve.errors import NotFound
from bgeserve.settings import SearchGraphSettings
from bgeserve.splitting import gather_bounded
from bgeserve.types import Document, WriteResult
from bgeserve.wire import split_documents
from deployments.remote import Remote
from graphs.jobs_calls import Outcome, Send, put
from graphs.jobs_embedders import OwnEmbedders
from graphs.jobs_files import read_files, records_of

BLOCK_BYTES = 2**20
"""Of records, which come one block at a time: as a whole file they would fill a small object store, and come late."""
ID_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is not stored: where it stood, why, and the row itself (JSON)."""

    where: str
    why: str
    row: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a whole job, up to now; `dead_letters` are those since this was last asked for."""

    upserted: int = 0
    unchanged: int = 0
    rejected: int = 0
    tokens: int = 0
    """Embedded."""
    truncated: int = 0
    """Documents of which the model saw only the beginning."""
    source_bytes: int = 0
    total_bytes: int | None = None
    dead_letters: Sequence[DeadLetter] = ()


@ray.remote(num_cpus=0)
class JobWriter:
    """One job. An actor, so that a driver outside the cluster (Ray Client) does the same as one inside; it ends with its driver."""

    def __init__(self, collection: str, app: str, calls_in_flight: int, own: tuple[int, SearchGraphSettings] | None) -> None:
        """own: how many embedders the job has of its own, as the application's settings say. None: the deployed ones embed."""
        self._own = own
        self._collection = collection
        self._app = app
        self._calls_in_flight = calls_in_flight
        self._progress = Progress()
        self._dead_letters: deque[tuple[DeadLetter, int]] = deque()
        """With the bytes of each. From two threads: the one that reads, and the one that writes."""
        self._seen: set[bytes] = set()
        self._on_their_way: dict[str, tuple[str, int]] = {}
        """Of each document that is neither stored nor a dead letter yet: where it stood, and its bytes."""

    async def progress(self) -> Progress:
        dead_letters: list[DeadLetter] = []
        while self._dead_letters:
            dead_letter, source_bytes = self._dead_letters.popleft()
            dead_letters.append(dead_letter)
            before = self._progress
            self._progress = replace(before, rejected=before.rejected + 1, source_bytes=before.source_bytes + source_bytes)
        return replace(self._progress, dead_letters=dead_letters)

    async def run(self, source: str | Dataset) -> None:
        """Until everything is stored or a dead letter. Raises what no other row would escape; what was stored stays."""
        send = self._sender(await asyncio.to_thread(_handle, self._app))
        calls = split_documents(self._documents(await asyncio.to_thread(self._records, source)))
        drawing = asyncio.Lock()

        async def writer() -> None:
            while True:
                async with drawing:
                    documents = await asyncio.to_thread(next, calls, None)
                if documents is None:
                    return
                self._count(documents, await put(send, documents))

        await gather_bounded([writer] * self._calls_in_flight, self._calls_in_flight)

    def _records(self, source: str | Dataset) -> Dataset:
        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = BLOCK_BYTES
        # Of two rows with one id the first is stored: which that is must not depend on who reads faster.
        context.execution_options.preserve_order = True
        if isinstance(source, Dataset):
            return records_of(source)
        records, total_bytes = read_files(source)
        self._progress = replace(self._progress, total_bytes=total_bytes)
        return records

    def _documents(self, records: Dataset) -> Iterator[Document]:
        for batch in records.iter_batches(batch_size=None, batch_format="pyarrow"):
            for record in cast(Any, batch).to_pylist():
                where, source_bytes = record["where"], record["source_bytes"]
                if record["why"] is not None:
                    self._dead_letters.append((DeadLetter(where, record["why"], record["row"]), source_bytes))
                    continue
                document = Document(**json.loads(record["document"]))
                digest = hashlib.blake2b(document.id.encode(), digest_size=ID_DIGEST_BYTES).digest()
                if digest in self._seen:
                    why = f"id {document.id!r} has come already: of two documents with one id, one would be lost"
                    self._dead_letters.append((DeadLetter(where, why, record["document"]), source_bytes))
                    continue
                self._seen.add(digest)
                self._on_their_way[document.id] = where, source_bytes
                yield document

    def _count(self, documents: Sequence[Document], outcome: Outcome) -> None:
        for document, why in outcome.refused:
            where, source_bytes = self._on_their_way.pop(document.id)
            self._dead_letters.append((DeadLetter(where, why, json.dumps(asdict(document))), source_bytes))
        refused = {document.id for document, _ in outcome.refused}
        source_bytes = sum(self._on_their_way.pop(document.id)[1] for document in documents if document.id not in refused)
        before, written = self._progress, outcome.written
        self._progress = replace(
            before,
            upserted=before.upserted + written.upserted,
            unchanged=before.unchanged + written.unchanged,
            tokens=before.tokens + written.tokens,
            truncated=before.truncated + len(written.truncated),
            source_bytes=before.source_bytes + source_bytes,
        )

    def _sender(self, handle: Any) -> Send:
        if self._own is not None:
            return partial(OwnEmbedders(*self._own, self._app).put_documents, self._collection)
        remote = Remote(handle)

        async def send(documents: Sequence[Document]) -> WriteResult:
            text_bytes = sum(len(document.text) for document in documents)
            asked = {"lane": A_JOB.lane}
            return await remote.call("put_documents", self._collection, documents, asked=asked, caller=A_JOB, text_bytes=text_bytes)

        return send


def _handle(app: str) -> Any:
    try:
        return serve.get_app_handle(app)
    except RayServeException:
        running = sorted(serve.status().applications)
        raise NotFound(f"no application {app!r} runs in this Ray cluster; there are {running}", field="app") from None
