"""The write that is under way in an engine which may have applied half of one when it dies: on disk until it is done, so that whoever opens
the engine next does it again. Knows rows as Milvus takes them, and no engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bgeserve.errors import ServiceError, Unavailable
from bgeserve.stores.folder import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """To be done as often as it takes: the same comes of it."""

    rows: list[dict[str, Any]]
    """What their documents are to consist of."""
    gone: list[str]
    """Keys of rows that are to be deleted."""


class RedoFile:
    """One collection's: of one write, since a store has one writer at a time."""

    def __init__(self, path: Path, apply: Callable[[UnderWay], None]) -> None:
        """apply: raises ServiceError when the engine refuses, Unavailable when it has gone."""
        self._path = path
        self._apply = apply

    def do(self, write: UnderWay) -> None:
        """Durable before it begins; the next flush of the folder makes sure that it is gone. Raises what `apply` raises, and ServiceError
        when the file cannot be written."""
        self.finish()
        content = orjson.dumps(write, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        try:
            write_whole(self._path, content)
        except OSError as error:
            raise ServiceError(f"{self._path} cannot be written: {error.strerror}") from error
        self._apply(write)
        self.drop()

    def finish(self) -> None:
        """Does what was not done to its end. What the engine refuses for good is given up: nobody was told that it is stored."""
        if not self._path.exists():
            return
        write = UnderWay(**orjson.loads(self._path.read_bytes()))
        for row in write.rows:
            if "sparse" in row:
                row["sparse"] = {int(index): value for index, value in row["sparse"].items()}
        try:
            self._apply(write)
        except Unavailable:
            raise
        except ServiceError as error:
            log.error("%s: the write that was under way is refused, and given up: %s", self._path, error.message)
        self.drop()

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)
