"""Documents as the chunks that a store has of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bgeserve.types import Chunk


def in_order(document_ids: Sequence[str], chunks: Iterable[Chunk]) -> list[Chunk]:
    """In the order of the ids, each document's chunks in theirs."""
    place = {id: i for i, id in enumerate(document_ids)}
    return sorted(chunks, key=lambda chunk: (place[chunk.document_id], chunk.n))


def hashes_of_whole(chunks: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """From each chunk's document, number and hash: the hash of the documents that are stored whole, all of whose chunks carry it."""
    stored: dict[str, dict[int, str]] = {}
    for document_id, n, content_hash in chunks:
        stored.setdefault(document_id, {})[n] = content_hash
    return {id: hashes[0] for id, hashes in stored.items() if 0 in hashes and len(set(hashes.values())) == 1}
