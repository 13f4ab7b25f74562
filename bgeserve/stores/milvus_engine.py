"""What differs between Milvus Lite and a server, and how either is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from pymilvus import MilvusException
from pymilvus.client.types import Status

from bgeserve.errors import ServiceError, Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Engine:
    dense_index: str
    has_not: bool
    """Whether expressions may negate."""
    timeout_s: float | None
    """Of one call. None: as long as it takes."""
    folder: Path | None = None
    """Where each collection has files for what Lite leaves to us: token vectors, and the write under way. None: a server does both."""


def call(collection: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Raises Unavailable when there is no server, ServiceError when it fails."""
    try:
        return function(*args, **kwargs)
    except (MilvusException, grpc.RpcError) as error:
        kind = Unavailable if _is_gone(error) else ServiceError
        raise kind(f"collection {collection!r}: Milvus failed: {error}") from error


def _is_gone(error: MilvusException | grpc.RpcError) -> bool:
    if isinstance(error, MilvusException):
        return error.code == Status.CONNECT_FAILED
    return isinstance(error, grpc.Call) and error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
