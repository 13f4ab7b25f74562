"""Says that a collection has outgrown what its store was measured for, and what to do then: to whoever asks, and once in the log."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Outgrown:
    def __init__(self, measured_documents: int | None) -> None:
        """None: nothing is too much."""
        self._measured_documents = measured_documents
        self._logged: set[str] = set()

    def warning(self, collection: str, documents: int) -> str | None:
        if self._measured_documents is None or documents <= self._measured_documents:
            return None
        warning = (
            f"{documents:,} documents are more than the {self._measured_documents:,} up to which an embedded store was measured: "
            f"move them to a server with `bge-serve export {collection} FILE` here and `bge-serve import FILE` at a service over it"
        )
        if collection not in self._logged:
            self._logged.add(collection)
            log.warning("collection %r: %s", collection, warning)
        return warning
