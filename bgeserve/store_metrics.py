"""What is measured of the collections beside durations: how full they are, what is left of their disk, and writes that failed.

Knows the metrics' names. Looks only after writes, and seldom: counting takes the store's one thread.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from bgeserve.errors import RequestError
from bgeserve.observe import Observer

LOOK_EVERY_S = 15.0


class StoreMetrics:
    def __init__(self, observer: Observer, measured_documents: int | None, folder: Path | None) -> None:
        """measured_documents: up to which the store was measured; folder: where it is on this machine. None: a server's."""
        self._observe = observer
        self._measured_documents = measured_documents
        self._folder = folder
        self._looked: dict[str, float] = {}

    @contextmanager
    def write(self) -> Generator[None]:
        """Around what stores something. A request that cannot be stored is no failure, and neither is one whose caller has gone."""
        try:
            yield
        except RequestError:
            raise
        except Exception:
            self._observe.count("failed_writes_total")
            raise

    def is_due(self, collection: str) -> bool:
        """Whether it is time to count this collection's documents again."""
        return monotonic() - self._looked.get(collection, -LOOK_EVERY_S) >= LOOK_EVERY_S

    def counted(self, collection: str, documents: int) -> None:
        self._looked[collection] = monotonic()
        self._observe.gauge("store_documents", documents, collection=collection)
        if self._measured_documents is not None:
            self._observe.gauge("store_fill_ratio", documents / self._measured_documents, collection=collection)
        if self._folder is not None:
            disk = shutil.disk_usage(self._folder)
            self._observe.gauge("store_disk_free_ratio", disk.free / disk.total)
