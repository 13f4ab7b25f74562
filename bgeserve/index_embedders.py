"""Which of a service's embedders made a collection's vectors: the one that must embed its queries and what is written to it.

Knows fingerprints, and remembers what it found, so that a search asks nobody. What it remembers may be outdated (an alias was pointed
elsewhere, a model replaced): then the owner of the collections refuses the vectors, and whoever was refused forgets and asks again, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bgeserve.errors import NotFound, StoreError
from bgeserve.protocols import Embedder, Retriever
from bgeserve.types import CollectionInfo


class IndexEmbedders:
    """`default` makes the collections for which nobody chose another."""

    def __init__(self, default: Embedder, retriever: Retriever, others: Sequence[Embedder] = ()) -> None:
        self.default = default
        self._retriever = retriever
        self._others = others
        self._known: dict[str, Embedder] = {}

    async def of(self, name: str) -> tuple[str, Embedder]:
        """The collection to use for a collection or alias, and its embedder.

        After a look that is the collection that an alias named then, so that what follows cannot meet another that it names since. The
        default embedder also stands for a collection that is not there, and for one whose embedder is none of ours: the owner says so.
        """
        if not self._others:
            return name, self.default
        if name in self._known:
            return name, self._known[name]
        try:
            info = await self._retriever.describe(name)
        except NotFound:
            return name, self.default
        embedder = None if info.fingerprint is None else await self.with_fingerprint(info.fingerprint)
        if embedder is None:
            return info.name, self.default
        self._known[name] = embedder
        return info.name, embedder

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    async def with_fingerprint(self, fingerprint: str) -> Embedder | None:
        """Asks the default first: another may have to be started for it."""
        for embedder in (self.default, *self._others):
            if (await embedder.info()).fingerprint == fingerprint:
                return embedder
        return None


async def require_embedders(collections: Sequence[CollectionInfo], embedders: Mapping[str, Embedder]) -> None:
    """Asks the embedders in their order, and none that does not have to be asked.

    Raises StoreError when a collection holds vectors of a model that is none of theirs.
    """
    missing = {info.fingerprint: info.name for info in collections if info.fingerprint is not None}
    asked: dict[str, str] = {}
    for name, embedder in embedders.items():
        if not missing:
            return
        asked[name] = (await embedder.info()).fingerprint or ""
        missing.pop(asked[name], None)
    for fingerprint, collection in missing.items():
        known = ", ".join(f"{name} is {of}" for name, of in asked.items())
        raise StoreError(f"collection {collection!r} holds vectors of {fingerprint}; of the embedders, {known}", field="path")
