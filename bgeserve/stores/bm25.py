"""BM25 weights of a text, for the full-text leg of any model. The inverse document frequency is the engine's part: it knows the collection.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), as `qdrant_edge.Bm25` computes it.
"""

from __future__ import annotations

from collections.abc import Iterable

from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, SparseVector, StopwordsSet, TokenizerType

from bgeserve.errors import StoreError

_COUNTING_K = 1000.0


class Bm25Encoder:
    """Sparse vectors of documents and queries. `average_tokens`: mean length of the collection's documents, after stop words."""

    def __init__(self, language: str | None, average_tokens: float) -> None:
        self._bm25 = _bm25(language, average_tokens=average_tokens)

    def document(self, text: str) -> SparseVector:
        return self._bm25.embed_document(text)

    def query(self, text: str) -> SparseVector:
        return self._bm25.embed_query(text)


def mean_tokens(language: str | None, texts: Iterable[str]) -> float:
    """Mean number of tokens that BM25 sees in these texts; at least 1, so that it can divide."""
    # The library does not tell lengths. Without length normalisation a weight is tf (k + 1) / (tf + k): solved for tf and summed, it does.
    bm25 = _bm25(language, k=_COUNTING_K, b=0.0)
    lengths = [sum(w * _COUNTING_K / (_COUNTING_K + 1 - w) for w in bm25.embed_document(text).values) for text in texts]
    return max(1.0, sum(lengths) / len(lengths)) if lengths else 1.0


def _bm25(language: str | None, *, average_tokens: float | None = None, k: float | None = None, b: float | None = None) -> Bm25:
    split = TokenizerType.Multilingual
    if language is None:
        return Bm25(Bm25Config(k, b, average_tokens, split, stemmer=DisabledStemmer(), stopwords=StopwordsSet()))
    try:
        return Bm25(Bm25Config(k, b, average_tokens, split, language=language))
    except ValueError as error:
        raise StoreError(
            f"store.language is {language!r}: BM25 has no stemming and stop words for it ({error})", field="language"
        ) from error
