"""One collection of a Vespa: chunks of a document type that it shares with collections of the same shape. Knows no connection.

A collection is a namespace of document ids, for removing it, and a keyword in each document, for queries. A document's chunk 0 is written
last, and a document counts as stored when all its chunks carry one hash.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice

from bgeserve.filters import Filter
from bgeserve.max_sim import as_float16
from bgeserve.stores.batches import batches
from bgeserve.stores.bm25 import WordSplitter
from bgeserve.stores.documents import hashes_of_whole, in_order
from bgeserve.stores.exporting import embeddings_of
from bgeserve.stores.keys import CHUNK_BITS, chunk_key, cursor, document_key
from bgeserve.stores.ties import best_first, best_in_one_order
from bgeserve.stores.validation import check_query, check_write, token_vectors_of
from bgeserve.stores.vespa_client import Fields, VespaClient
from bgeserve.stores.vespa_documents import chunk_of, fields_of, place_of, stored_vectors
from bgeserve.stores.vespa_filter import EVERYTHING, all_of, any_of, expression
from bgeserve.stores.vespa_legs import literal_tokens, operator, query_parameters
from bgeserve.stores.vespa_package import Shape
from bgeserve.types import Chunk, Embeddings, FindingLeg, Query
from bgeserve.vector_store import CollectionSchema, ScoredId

PAGE = 1024
"""Chunks per query."""
VECTORS_PAGE = 32
"""Chunks per query whose vectors come too: token vectors are megabytes."""

_FIRST_CHUNKS = "n = 0"
_ORDER = "order by place asc, n asc"
_UNRANKED = {"ranking.profile": "unranked", "sorting.degrading": False}
"""With degrading, Vespa would sort but the beginning of many."""


class VespaCollection:
    def __init__(self, client: VespaClient, namespace: str, schema: CollectionSchema, exact: bool) -> None:
        """`exact`: whether searches look at all that could be found, in place of Vespa's shortcuts."""
        self._client = client
        self._namespace = namespace
        self.schema = schema
        self._exact = exact
        self._shape = Shape.of(schema)
        self._type = self._shape.document_type
        self._keyword = namespace_keyword(namespace)
        self._mine = any_of("collection", [self._keyword])
        self._splitter = WordSplitter(schema.language)

    def drop(self) -> None:
        self._client.remove_all(self._type, self._namespace)

    def upsert(self, chunks: Sequence[Chunk], embeddings: Embeddings) -> None:
        check_write(self.schema, chunks, embeddings)
        documents = {
            chunk_key(chunk): fields_of(chunk, embeddings, row, self._shape, self._keyword, self._splitter)
            for row, chunk in enumerate(chunks)
        }
        for first in (False, True):
            some = {key: fields for key, fields in documents.items() if (fields["n"] == 0) == first}
            self._client.put(self._type, self._namespace, some)
        # Chunks that longer versions of these documents had beyond the present end.
        stored = self._of_documents({chunk.document_id for chunk in chunks}, "keys", PAGE)
        self._remove(fields["key"] for fields in stored if fields["key"] not in documents)

    def delete(self, document_ids: Sequence[str]) -> int:
        found = {fields["key"]: fields["document_key"] for fields in self._of_documents(document_ids, "keys", PAGE)}
        self._remove(found)
        return len(set(found.values()))

    def matching(self, filter: Filter) -> list[str]:
        return list({chunk_of(fields).document_id: None for fields in self._all(expression(filter), "chunks", PAGE)})

    def get(self, document_ids: Sequence[str]) -> list[Chunk]:
        return in_order(document_ids, map(chunk_of, self._of_documents(document_ids, "chunks", PAGE)))

    def export(self, document_ids: Sequence[str]) -> tuple[list[Chunk], Embeddings]:
        found = {fields["key"]: fields for fields in self._of_documents(document_ids, "vectors", VECTORS_PAGE)}
        chunks = in_order(document_ids, map(chunk_of, found.values()))
        return chunks, embeddings_of(self.schema, [stored_vectors(found[chunk_key(chunk)]) for chunk in chunks])

    def content_hashes(self, document_ids: Sequence[str]) -> dict[str, str]:
        return hashes_of_whole((chunk.document_id, chunk.n, chunk.content_hash) for chunk in self.get(document_ids))

    def scroll(self, limit: int, after: str | None) -> tuple[list[str], str | None]:
        # A cursor is where the next page begins; one more than the page is what it takes to know that there is one.
        found = list(islice(self._all(_FIRST_CHUNKS, "chunks", min(limit + 1, PAGE), cursor(after)), limit + 1))
        return [chunk_of(fields).document_id for fields in found[:limit]], found[limit]["key"] if len(found) > limit else None

    def search(self, leg: FindingLeg, query: Query, limit: int, filter: Filter | None) -> list[ScoredId]:
        check_query(self.schema, leg, query)
        words = list(dict.fromkeys(self._splitter.words(query.text))) if leg == "full_text" else []
        finds_nothing = {"full_text": not words, "sparse": query.sparse is not None and not query.sparse.indices.size}
        if finds_nothing.get(leg):
            return []
        where = EVERYTHING if filter is None else expression(filter)
        parameters = query_parameters(leg, query)

        def best(count: int) -> list[ScoredId]:
            return self._ranked([operator(leg, words, count, self._exact), where], leg, count, parameters)

        return best_in_one_order(best, limit)

    def rescore(self, query: Query, keys: Sequence[str]) -> list[ScoredId]:
        vectors = token_vectors_of(self.schema, query)
        parameters = {"input.query(multi_vector)": literal_tokens(as_float16(vectors))}
        found = [hit for some in _pieces(keys) for hit in self._ranked([any_of("key", some)], "multi_vector", len(some), parameters)]
        # Vespa's score is the sum over the query's vectors.
        return best_first(ScoredId(hit.key, hit.score / len(vectors)) for hit in found)

    def fetch(self, hits: Sequence[ScoredId]) -> list[Chunk]:
        pieces = _pieces([hit.key for hit in hits])
        found = {fields["key"]: fields for some in pieces for fields in self._all(any_of("key", some), "chunks", PAGE)}
        return [chunk_of(found[hit.key]) for hit in hits]

    def count(self) -> int:
        answer = self._client.query(self._type, all_of([self._mine, _FIRST_CHUNKS]), "keys", 0, _UNRANKED)
        return answer.number_documents_retrieved

    def _of_documents(self, ids: Iterable[str], summary: str, page: int) -> Generator[Fields]:
        for some in batches(sorted({document_key(id) for id in ids})):
            yield from self._all(any_of("document_key", some), summary, page)

    def _all(self, where: str, summary: str, page: int, start: str | None = None) -> Generator[Fields]:
        """Everything that a filter selects, in the order of keys, from a key on."""
        met: set[str] = set()
        while True:
            selected = all_of([self._mine, where, EVERYTHING if start is None else _from(start)])
            hits = self._client.query(self._type, f"{selected} {_ORDER}", summary, page, _UNRANKED).hits
            found: list[Fields] = [hit["fields"] for hit in hits]
            # The next page begins where the last one ended, as two chunks may have one place.
            yield from (fields for fields in found if fields["key"] not in met)
            if len(found) < page:
                return
            met = {fields["key"] for fields in found}
            start = found[-1]["key"]

    def _ranked(self, where: Sequence[str], profile: str, limit: int, parameters: Mapping[str, str]) -> list[ScoredId]:
        ranking = {"ranking.profile": profile, **parameters}
        hits = self._client.query(self._type, all_of([*where, self._mine]), "keys", limit, ranking).hits
        return [ScoredId(hit["fields"]["key"], hit["relevance"]) for hit in hits]

    def _remove(self, keys: Iterable[str]) -> None:
        self._client.remove(self._type, self._namespace, keys)


def namespace_keyword(namespace: str) -> str:
    """Hashed, since Vespa's keywords do not tell cases apart."""
    return blake2b(namespace.encode(), digest_size=16).hexdigest()


def _from(key: str) -> str:
    place, n = place_of(key), int(key[-CHUNK_BITS // 4 :], 16)
    return f"(place > {place}L or (place = {place}L and n >= {n}L))"


def _pieces(keys: Sequence[str]) -> Generator[Sequence[str]]:
    for start in range(0, len(keys), PAGE):
        yield keys[start : start + PAGE]
