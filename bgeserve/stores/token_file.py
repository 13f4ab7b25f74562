"""Token vectors in a SQLite file of their own, beside an engine that keeps its rows in memory. Knows keys and hashes, no engine.

A chunk's vectors are durable before its row is, and stand under the row's hash: a process that dies between the two leaves the vectors of
both versions, of which the row says which holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bgeserve.errors import ServiceError
from bgeserve.types import Float16Array

_OPEN = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS token_vectors (key TEXT, hash TEXT, vectors BLOB, PRIMARY KEY (key, hash));
"""


class TokenFile:
    """One collection's. All but `close` raise ServiceError when the file cannot be read or written."""

    def __init__(self, path: Path, dimensions: int) -> None:
        self._path = path
        self._dimensions = dimensions
        with self._told():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.executescript(_OPEN)

    def put(self, vectors: Mapping[tuple[str, str], Float16Array]) -> None:
        """By key and hash, beside what other hashes have. Durable on return."""
        self._change("INSERT OR REPLACE INTO token_vectors VALUES (?, ?, ?)", ((*of, found.tobytes()) for of, found in vectors.items()))

    def drop_other_versions(self, kept: Iterable[tuple[str, str]]) -> None:
        """What these keys have under another hash than theirs."""
        self._change("DELETE FROM token_vectors WHERE key = ? AND hash != ?", kept)

    def delete(self, keys: Iterable[str]) -> None:
        self._change("DELETE FROM token_vectors WHERE key = ?", ((key,) for key in keys))

    def read(self, keys: Sequence[str], hashes_of: Callable[[Sequence[str]], Mapping[str, str]]) -> dict[str, Float16Array]:
        """[vectors, dimensions] of the keys that have any. `hashes_of`: asked for the keys of which there are several versions."""
        versions: dict[str, dict[str, bytes]] = {}
        with self._told():
            asked = f"SELECT key, hash, vectors FROM token_vectors WHERE key IN ({','.join('?' * len(keys))})"
            for key, content_hash, found in self._db.execute(asked, keys):
                versions.setdefault(key, {})[content_hash] = found
        several = [key for key, found in versions.items() if len(found) > 1]
        holding = hashes_of(several) if several else {}
        present = {key: found[holding[key]] if key in holding else next(iter(found.values())) for key, found in versions.items()}
        return {key: np.frombuffer(found, np.float16).reshape(-1, self._dimensions) for key, found in present.items()}

    def close(self) -> None:
        self._db.close()

    def drop(self) -> None:
        self.close()
        for path in self._path.parent.glob(self._path.name + "*"):
            path.unlink()

    def _change(self, statement: str, rows: Iterable[tuple[str | bytes, ...]]) -> None:
        with self._told(), self._db:
            self._db.execute("BEGIN")
            self._db.executemany(statement, rows)

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ServiceError(f"the token vectors in {self._path} cannot be read or written: {error}") from error
