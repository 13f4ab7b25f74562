"""Deployment handles as the pieces they stand for: `RemoteEmbedder` is an Embedder, and so on.

Knows that a request goes over in calls of bounded size. Does not know what can go wrong between two processes (`remote.py`), nor models.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from ray.serve.handle import DeploymentHandle

from bgeserve.call_gate import CallGate
from bgeserve.deadline import Deadline
from bgeserve.errors import FingerprintMismatch, TextTooLong
from bgeserve.filters import Filter
from bgeserve.fusion import Fusion
from bgeserve.protocols import WriteTicket
from bgeserve.splitting import concat_embeddings, concat_scores, gather_bounded, split_by_bytes
from bgeserve.types import (
    Chunk,
    CollectionInfo,
    EmbedderOptions,
    Embeddings,
    Hit,
    InputType,
    Lane,
    Leg,
    ModelInfo,
    Output,
    Query,
    RerankerOptions,
    Scores,
)
from deployments.remote import Caller, Remote, payload_bytes_of, payload_bytes_of_answer

SendPart = Callable[[DeploymentHandle[Any], slice, Mapping[str, Any]], Any]
"""One call about a part of the texts, with the keywords that say whose it is and how long it may take."""

CALLS_PER_REPLICA = 4
"""Bulk calls in flight: as many as keep a replica busy. The others wait where they can still go to a replica that autoscaling adds."""


class _RemoteModel:
    """What embedders and rerankers share: where they are, how much goes over in one call, and what they are, asked once."""

    def __init__(self, handle: DeploymentHandle[Any], max_call_bytes: int, max_replicas: int = 1) -> None:
        self._remote = Remote(handle, max_replicas)
        self._max_call_bytes = max_call_bytes
        self._max_in_flight = CALLS_PER_REPLICA * max_replicas
        self._gate = CallGate(self._max_in_flight)
        self._info: ModelInfo | None = None

    async def info(self) -> ModelInfo:
        info = self._info
        if info is None:
            info = self._info = await self._remote.call(lambda handle: handle.info.remote(), Caller())
        return info

    async def _in_calls(self, texts: Sequence[str], send: SendPart, outputs: Sequence[Output], caller: Caller) -> list[Any]:
        """What the replicas answer to each part of the texts, in order. What is too large for one call is bulk, whoever waits for it: no
        query has to wait until all of it is done."""
        # Without texts one call still goes out: its answer carries the model's fingerprint.
        slices = split_by_bytes(texts, self._max_call_bytes) or [slice(0, 0)]
        if len(slices) > 1:
            caller = replace(caller, lane="bulk")

        async def call(part: slice) -> Any:
            size = sum(map(len, texts[part]))
            gate = self._gate.passed(size, caller.tenant, caller.deadline) if caller.lane == "bulk" else nullcontext()
            async with gate:
                with _places_from(part.start):
                    return await self._remote.call(
                        lambda handle: send(handle, part, caller.keywords()), caller, payload_bytes_of_answer(texts[part], outputs)
                    )

        return await gather_bounded([partial(call, part) for part in slices], self._max_in_flight)


class RemoteEmbedder(_RemoteModel):
    async def encode(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] = ("dense",),
        input_type: InputType = "document",
        options: EmbedderOptions | None = None,
        truncate: bool = True,
        lane: Lane = "interactive",
        timeout_s: float | None = None,
        tenant: str = "",
    ) -> Embeddings:
        asked = {"outputs": outputs, "input_type": input_type, "options": options, "truncate": truncate}
        parts: list[Embeddings] = await self._in_calls(
            texts,
            lambda handle, part, caller: handle.encode.remote(texts[part], **asked, **caller),
            outputs,
            Caller(lane, Deadline(timeout_s), tenant),
        )
        self._check_fingerprints({part.fingerprint for part in parts})
        return concat_embeddings(parts)

    def _check_fingerprints(self, fingerprints: set[str]) -> None:
        if self._info is not None and fingerprints != {self._info.fingerprint}:
            self._info = None
        if len(fingerprints) > 1:
            raise FingerprintMismatch(f"the model was replaced while this request ran ({', '.join(sorted(fingerprints))}): send it again")


class RemoteReranker(_RemoteModel):
    async def rerank(
        self,
        query: str,
        passages: Sequence[str],
        *,
        options: RerankerOptions | None = None,
        truncate: bool = True,
        lane: Lane = "interactive",
        timeout_s: float | None = None,
        tenant: str = "",
    ) -> Scores:
        asked = {"options": options, "truncate": truncate}
        parts: list[Scores] = await self._in_calls(
            passages,
            lambda handle, part, caller: handle.rerank.remote(query, passages[part], **asked, **caller),
            (),
            Caller(lane, Deadline(timeout_s), tenant),
        )
        return concat_scores(parts)


class RemoteRetriever:
    """Each method may be sent again when the owner dies: reading changes nothing, and a write's ticket dies with its owner (StaleWrite)."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._remote = Remote(handle)

    async def retrieve(
        self,
        collection: str,
        queries: Sequence[Query],
        *,
        fingerprint: str | None,
        legs: Sequence[Leg],
        fusion: Fusion,
        candidates: int,
        limit: int,
        filter: Filter | None = None,
    ) -> list[list[Hit]]:
        options = {"fingerprint": fingerprint, "legs": legs, "fusion": fusion, "candidates": candidates, "limit": limit, "filter": filter}
        return await self._remote.call(lambda handle: handle.retrieve.remote(collection, queries, **options), Caller())

    async def begin_write(self, collection: str, fingerprint: str, content_hashes: Mapping[str, str]) -> WriteTicket:
        return await self._remote.call(lambda handle: handle.begin_write.remote(collection, fingerprint, content_hashes), Caller())

    async def finish_write(self, collection: str, ticket: WriteTicket, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        await self._remote.call(
            lambda handle: handle.finish_write.remote(collection, ticket, chunks, embeddings),
            Caller(),
            payload_bytes_of(chunks, embeddings),
        )

    async def abandon_write(self, collection: str, ticket: WriteTicket) -> None:
        await self._remote.call(lambda handle: handle.abandon_write.remote(collection, ticket), Caller())

    async def delete(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int:
        return await self._remote.call(lambda handle: handle.delete.remote(collection, ids, filter), Caller())

    async def get(self, collection: str, ids: Sequence[str]) -> list[Chunk]:
        return await self._remote.call(lambda handle: handle.get.remote(collection, ids), Caller())

    async def scroll(self, collection: str, *, limit: int, after: str | None = None) -> tuple[list[Chunk], str | None]:
        return await self._remote.call(lambda handle: handle.scroll.remote(collection, limit=limit, after=after), Caller())

    async def describe(self, collection: str) -> CollectionInfo:
        return await self._remote.call(lambda handle: handle.describe.remote(collection), Caller())

    async def drop(self, collection: str) -> int:
        return await self._remote.call(lambda handle: handle.drop.remote(collection), Caller())

    async def collections(self) -> list[str]:
        return await self._remote.call(lambda handle: handle.collections.remote(), Caller())


@contextmanager
def _places_from(start: int) -> Generator[None]:
    """A replica counts the texts of its call; the caller counts those of the request."""
    try:
        yield
    except TextTooLong as error:
        raise error if error.index is None else error.at(error.field or "", error.index + start) from None
