"""What the HTTP API expects of the service behind it. All async: each call may be a hop away, or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bgeserve.caller import A_JOB, ANYONE, Caller
from bgeserve.filters import Filter
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness, SearchRequest
from bgeserve.types import (
    CollectionInfo,
    Document,
    EmbeddedChunks,
    EmbedderOptions,
    Embeddings,
    InputType,
    ModelInfo,
    ModelStatus,
    Output,
    RerankerOptions,
    Role,
    Scores,
    SearchAnswer,
    WriteResult,
)


class Backend(Protocol):
    """Everything that the HTTP API offers, whatever runs it: handles to deployments, or models in this very process.

    `model=None` means the service's only model of that role. Raises UnknownModel, WrongRole beside what the pieces raise.
    """

    async def encode(
        self,
        model: str | None,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] = ("dense",),
        input_type: InputType = "document",
        options: EmbedderOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Embeddings: ...

    async def rerank(
        self,
        model: str | None,
        query: str,
        passages: Sequence[str],
        *,
        options: RerankerOptions | None = None,
        truncate: bool = True,
        caller: Caller = ANYONE,
    ) -> Scores: ...

    async def search(self, request: SearchRequest) -> SearchAnswer: ...
    async def put_documents(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        truncate: bool = True,
        caller: Caller = A_JOB,
    ) -> WriteResult: ...
    async def get_documents(self, collection: str, ids: Sequence[str]) -> list[Document]: ...
    async def scroll_documents(self, collection: str, *, limit: int, after: str | None) -> tuple[list[Document], str | None]: ...
    async def delete_documents(self, collection: str, ids: Sequence[str] | None, filter: Filter | None = None) -> int: ...
    async def export_chunks(self, collection: str, *, limit: int, after: str | None) -> tuple[EmbeddedChunks, str | None]: ...
    async def import_chunks(self, collection: str, documents: EmbeddedChunks) -> WriteResult:
        """Store whole documents with vectors that an embedder of this service made. Raises FingerprintMismatch: none of them did."""
        ...

    async def collections(self) -> list[CollectionInfo]: ...
    async def aliases(self) -> Mapping[str, str]: ...
    async def set_alias(self, alias: str, collection: str) -> str | None: ...
    async def remove_alias(self, alias: str) -> str: ...
    async def create_collection(self, collection: str, embedder: str | None = None) -> CollectionInfo:
        """Make an empty collection for an embedder of the service; None: the one that makes the others."""
        ...

    async def describe_collection(self, collection: str) -> CollectionInfo: ...
    async def copy_collection(self, collection: str, name: str) -> str: ...
    async def delete_collection(self, collection: str) -> int: ...
    def default_model(self, role: Role) -> str:
        """The name that `model=None` stands for. Raises InvalidRequest when there are several of that role, or none."""
        ...

    async def models(self) -> list[ModelInfo]: ...
    async def model_info(self, name: str) -> ModelInfo:
        """Of one model, of either role; asks no other. Raises UnknownModel."""
        ...

    async def model_statuses(self) -> list[ModelStatus]:
        """Of every deployed model; asks none of them, so that it neither waits for a start nor causes one."""
        ...

    async def model_loads(self) -> list[ModelLoad]:
        """Of every deployed model; wakes none."""
        ...

    async def readiness(self) -> Readiness: ...
