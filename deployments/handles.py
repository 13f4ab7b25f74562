"""Deployment handles as the pieces they stand for: `RemoteEmbedder` is an Embedder, and so on.

Knows that a request goes over in calls of bounded size. Does not know what can go wrong between two processes (`remote.py`), nor models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from ray.serve.handle import DeploymentHandle

from bgeserve import tracing
from bgeserve.call_gate import CallGate
from bgeserve.caller import ANYONE, Caller
from bgeserve.chunking import Span
from bgeserve.errors import Unavailable
from bgeserve.filters import Filter
from bgeserve.fusion import Fusion
from bgeserve.model_load import ModelLoad, combined
from bgeserve.protocols import WriteTicket
from bgeserve.splitting import concat_embeddings, concat_scores, gather_bounded, places_from, split_by_bytes
from bgeserve.types import (
    Chunk,
    Chunking,
    CollectionInfo,
    EmbeddedChunks,
    EmbedderOptions,
    Embeddings,
    Hit,
    InputType,
    Leg,
    ModelInfo,
    Output,
    Query,
    RerankerOptions,
    Scores,
)
from bgeserve.unmet import Waiting
from deployments.one_version import of_one_version
from deployments.remote import MAX_GRPC_BYTES, Remote, bytes_of, bytes_of_answer

CALLS_PER_REPLICA = 4
"""Full bulk calls (or as much in small ones) in flight: as many as keep a replica busy.

The others wait where they can still go to a replica that autoscaling adds.
"""
OWNER_WAIT_S = 20.0
"""How long a call waits where nobody owns the collections: longer than another replica takes to start on the same node, even a busy
one, and less than a request may take by default."""
OWNER_RETRY_S = 5.0
"""What is then said of when to come again."""


class _RemoteModel:
    """What embedders and rerankers share: where they are, how much goes over in one call, and what they are, asked once."""

    def __init__(self, handle: DeploymentHandle[Any], max_call_bytes: int, max_replicas: int = 1) -> None:
        self._remote = Remote(handle, max_replicas=max_replicas, max_joined_bytes=max_call_bytes)
        self._max_call_bytes = max_call_bytes
        self._max_in_flight = CALLS_PER_REPLICA * max_replicas
        self._gate = CallGate(self._max_in_flight * max_call_bytes)
        self._info: ModelInfo | None = None

    async def info(self) -> ModelInfo:
        info = self._info
        if info is None:
            info = self._info = await self._remote.call("info")
        return info

    async def current_load(self) -> ModelLoad:
        return combined("", await self._remote.call_each("current_load"))

    async def _in_calls(
        self, caller: Caller, method: str, before: Sequence[Any], texts: Sequence[str], asked: Mapping[str, Any]
    ) -> list[Any]:
        """What the replicas answer to `method(*before, texts, **asked)` for each part of the texts, in order. What is too large for one
        call is bulk, whoever waits for it: no query has to wait until all of it is done."""
        # Without texts one call still goes out: its answer carries the model's fingerprint.
        slices = split_by_bytes(texts, self._max_call_bytes) or [slice(0, 0)]
        sent_as = caller.lane
        if len(slices) > 1:
            caller = replace(caller, lane="bulk")
        unsent_bytes = sum(map(len, texts)) if caller.lane == "bulk" else 0

        caller = tracing.carried(caller)

        async def call(part: slice, unsent: Waiting) -> Any:
            size = sum(map(len, texts[part]))
            gate = self._gate.passed(size, caller.tenant, sent_as, caller.deadline) if caller.lane == "bulk" else nullcontext()
            answer_bytes = bytes_of_answer(texts[part], asked.get("outputs", ()))
            async with gate:
                unsent.sent(min(size, unsent.left_bytes))
                with places_from(part.start):
                    return await self._remote.call(
                        method,
                        *before,
                        texts[part],
                        asked={**asked, "caller": caller},
                        caller=caller,
                        text_bytes=size,
                        answer_bytes=answer_bytes,
                    )

        with self._remote.unmet.waiting(unsent_bytes) as unsent:
            return await gather_bounded([partial(call, part, unsent) for part in slices], self._max_in_flight)

    async def _of_one_version(
        self,
        caller: Caller,
        method: str,
        before: Sequence[Any],
        texts: Sequence[str],
        asked: Mapping[str, Any],
        version: Callable[[Any], str],
    ) -> list[Any]:
        """As `_in_calls`, of one version of the model. Raises FingerprintMismatch when its calls meet two, again and again."""
        parts = await self._in_calls(caller, method, before, texts, asked)

        async def ask_again(odd: Sequence[int]) -> list[Any]:
            slices, job = split_by_bytes(texts, self._max_call_bytes), replace(caller, lane="bulk")
            calls = [partial(self._in_calls, job, method, before, texts[slices[index]], asked) for index in odd]
            return [part for (part,) in await gather_bounded(calls, self._max_in_flight)]

        return await of_one_version(parts, version, ask_again)


class RemoteEmbedder(_RemoteModel):
    async def encode(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] = ("dense",),
        input_type: InputType = "document",
        options: EmbedderOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Embeddings:
        asked = {"outputs": outputs, "input_type": input_type, "options": options, "truncate": truncate}
        parts: list[Embeddings] = await self._of_one_version(caller, "encode", (), texts, asked, lambda made: made.fingerprint)
        if self._info is not None and parts[0].fingerprint != self._info.fingerprint:
            self._info = None
        return concat_embeddings(parts)

    async def chunk(self, texts: Sequence[str], chunking: Chunking) -> list[list[Span]]:
        parts: list[list[list[Span]]] = []
        # One after the other: it is little work, and never worth a replica's whole attention.
        for part in split_by_bytes(texts, MAX_GRPC_BYTES // 4):
            some = texts[part]
            parts.append(await self._remote.call("chunk", some, chunking, text_bytes=4 * sum(map(len, some))))
        return [spans for part in parts for spans in part]


class RemoteReranker(_RemoteModel):
    async def rerank(
        self,
        query: str,
        passages: Sequence[str],
        *,
        options: RerankerOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Scores:
        asked = {"options": options, "truncate": truncate}
        return concat_scores(await self._of_one_version(caller, "rerank", (query,), passages, asked, lambda scores: scores.version))


class RemoteRetriever:
    """Each method may be sent again when the owner dies: reading changes nothing, and a write's ticket dies with its owner (StaleWrite)."""

    def __init__(self, handle: DeploymentHandle[Any], is_owned: Callable[[], Awaitable[bool]]) -> None:
        """is_owned: whether a replica runs that owns the collections. Each method raises Unavailable when none has for OWNER_WAIT_S."""
        self._remote = Remote(handle)
        self._is_owned = is_owned

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
        return await self._ask("retrieve", collection, queries, asked=options)

    async def begin_write(self, collection: str, fingerprint: str, content_hashes: Mapping[str, str]) -> WriteTicket:
        return await self._ask("begin_write", collection, fingerprint, content_hashes)

    async def finish_write(self, collection: str, ticket: WriteTicket, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        text_bytes = sum(len(chunk.text) for chunk in chunks)
        await self._ask("finish_write", collection, ticket, chunks, embeddings, text_bytes=text_bytes, answer_bytes=bytes_of(embeddings))

    async def abandon_write(self, collection: str, ticket: WriteTicket) -> None:
        await self._ask("abandon_write", collection, ticket)

    async def delete(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int:
        return await self._ask("delete", collection, ids, filter)

    async def get(self, collection: str, ids: Sequence[str]) -> list[Chunk]:
        return await self._ask("get", collection, ids)

    async def scroll(self, collection: str, *, limit: int, after: str | None = None) -> tuple[list[Chunk], str | None]:
        return await self._ask("scroll", collection, asked={"limit": limit, "after": after})

    async def export(self, collection: str, *, limit: int, after: str | None = None) -> tuple[EmbeddedChunks, str | None]:
        # Nobody knows yet how large the answer is: with token vectors even a few documents are megabytes.
        return await self._ask("export", collection, asked={"limit": limit, "after": after}, answer_bytes=MAX_GRPC_BYTES + 1)

    async def describe(self, collection: str) -> CollectionInfo:
        return await self._ask("describe", collection)

    async def create(self, collection: str, like: Embeddings) -> None:
        await self._ask("create", collection, like)

    async def copy(self, collection: str, name: str) -> str:
        return await self._ask("copy", collection, name)

    async def drop(self, collection: str) -> int:
        return await self._ask("drop", collection)

    async def collections(self) -> list[CollectionInfo]:
        return await self._ask("collections")

    async def aliases(self) -> Mapping[str, str]:
        return await self._ask("aliases")

    async def set_alias(self, alias: str, collection: str) -> str | None:
        return await self._ask("set_alias", alias, collection)

    async def remove_alias(self, alias: str) -> str:
        return await self._ask("remove_alias", alias)

    async def _ask(self, method: str, *args: Any, **more: Any) -> Any:
        asking = asyncio.ensure_future(self._remote.call(method, *args, **more))
        try:
            while not (await asyncio.wait({asking}, timeout=OWNER_WAIT_S))[0]:
                if not await self._is_owned():
                    problem = "the process that owns the collections has ended, and no other has taken over yet"
                    raise Unavailable(problem, retry_after_s=OWNER_RETRY_S)
            return await asking
        finally:
            asking.cancel()
