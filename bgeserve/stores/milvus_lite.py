"""Milvus Lite in a folder that one replica owns: a process beside this one, its rows in a SQLite file and, to be searched, in memory.

Line 2.5 rather than 3.2, both measured on two cores, since what was acknowledged must be there again:

- 2.5.1 commits each write to SQLite, synced: with our `flush` a power cut loses nothing. 3.2.2 does not sync its log, moves rows into files
  that it does not sync either before it deletes the log, and loses acknowledged rows when several writers are killed.
- Neither replaces rows in one step: who dies in between leaves what was acknowledged half replaced. So a write is in a file of ours until
  it is done, and whoever opens the store next does it again (`redo_file.py`).
- 2.5.1 answers a search of 20,000 chunks with 1,024 dimensions in 1-12 ms, with a filter in 16-48; 3.2.2 needs 71 ms at 3,000 of 384.

Its price: no aliases, no `not` in expressions (`milvus_filter.py` does without), and an import of setuptools' `pkg_resources`.
"""

from __future__ import annotations

import logging
import os
import socket
import warnings
from dataclasses import replace

import grpc
from pymilvus import MilvusClient, MilvusException

from bgeserve.errors import StoreError
from bgeserve.store_settings import MilvusLiteSettings
from bgeserve.stores.folder import StoreFolder, sync_folder
from bgeserve.stores.milvus import MilvusCollections
from bgeserve.stores.milvus_collection import MilvusCollection
from bgeserve.stores.milvus_engine import Engine

# Exact: Lite keeps its rows in memory anyway, and searches 20,000 in 12 ms. The client repeats what failed until the time is over.
ENGINE = Engine(dense_index="FLAT", has_not=False, timeout_s=30)

log = logging.getLogger(__name__)

_PREFIX = "bge_serve_"
_FILE = "milvus.db"


class MilvusLiteStore(MilvusCollections):
    """Raises StoreError when the folder cannot be owned or what lies in it cannot be opened."""

    def __init__(self, settings: MilvusLiteSettings) -> None:
        self._settings = settings
        self._folder = StoreFolder(settings.path, "milvus_lite", settings.create)
        self._file = str(settings.path.absolute() / _FILE)
        try:
            client = _start(self._file)
            super().__init__(client, replace(ENGINE, folder=settings.path), _PREFIX, settings.language)
            self._aliases = self._folder.aliases()
        except BaseException:
            self._stop()
            raise

    def ensure_writable(self) -> None:
        self._folder.ensure_room(self._settings.min_free_bytes)

    def flush(self) -> None:
        # SQLite commits by deleting its journal, and does not sync that: a name that a power cut brings back would undo the last write.
        sync_folder(self._settings.path)

    def close(self) -> None:
        super().close()
        self._stop()

    def _keep_alias(self, alias: str, collection: str | None) -> None:
        self._folder.keep_alias(alias, collection)

    def _collection(self, name: str) -> MilvusCollection:
        if name in self._collections and not _answers(self._file):
            self._start_again()
        return super()._collection(name)

    def _start_again(self) -> None:
        """What was acknowledged is in the file, and this is still its owner: a process that died need not take the replica with it."""
        log.warning("Milvus Lite has died; it is started again with what %s holds", self._file)
        super().close()
        _release(self._file)
        self._client = _start(self._file)
        self._collections = self._find()

    def _stop(self) -> None:
        _release(self._file)
        self._folder.close()


def _answers(file: str) -> bool:
    from milvus_lite.server_manager import server_manager_instance

    # Of what was started before it only tells where it listens.
    address = str(server_manager_instance.start_and_get_uri(file)).removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


def _release(file: str) -> None:
    # The client leaves the process that it started running.
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(file)


def _start(file: str) -> MilvusClient:
    # Its process inherits this. It would write some 700 bytes of every search to a log in /tmp that nobody empties.
    os.environ.setdefault("GLOG_minloglevel", "2")  # errors
    with warnings.catch_warnings():
        # milvus-lite asks setuptools' `pkg_resources` for its version, which says at import that it is deprecated.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return MilvusClient(file)
        except (MilvusException, grpc.RpcError) as error:
            raise StoreError(f"store.path: Milvus Lite cannot open {file}: {error}", field="path") from error
