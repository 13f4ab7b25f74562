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


class WordSplitter:
    """The words that BM25 sees in a text, for an engine that weighs them itself: cut, stemmed, without stop words, each as a short code."""

    def __init__(self, language: str | None) -> None:
        self._bm25 = _bm25(language, k=_COUNTING_K, b=0.0)

    def words(self, text: str) -> list[str]:
        """As often as the text has them, not in its order."""
        found = self._bm25.embed_document(text)
        return [f"{index:x}" for index, weight in zip(found.indices, found.values, strict=True) for _ in range(round(_count(weight)))]


def mean_tokens(language: str | None, texts: Iterable[str]) -> float:
    """Mean number of tokens that BM25 sees in these texts; at least 1, so that it can divide."""
    bm25 = _bm25(language, k=_COUNTING_K, b=0.0)
    lengths = [sum(map(_count, bm25.embed_document(text).values)) for text in texts]
    return max(1.0, sum(lengths) / len(lengths)) if lengths else 1.0


def _count(weight: float) -> float:
    # The library does not tell counts. Without length normalisation a weight is tf (k + 1) / (tf + k), which is solved for tf.
    return weight * _COUNTING_K / (_COUNTING_K + 1 - weight)


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
