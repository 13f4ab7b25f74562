"""The retrieval benchmark on a handful of chunks: its parts run, and what it searches in is the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.retrieval import in_process
from benchmarks.retrieval.corpus import Corpus
from bgeserve.cli.progress import Bars


def test_a_corpus_is_the_same_each_time_and_normalised() -> None:
    corpus = Corpus(600, 16, ("dense", "sparse", "multi_vector"), tokens=3)
    for (chunks, made), (again, remade) in zip(corpus.pieces(), corpus.pieces(), strict=True):
        assert chunks == again
        assert made.dense is not None
        assert made.multi_vector is not None
        np.testing.assert_array_equal(made.dense, remade.dense)
        np.testing.assert_allclose(np.linalg.norm(made.dense, axis=1), 1, rtol=1e-5)
        assert {vectors.shape for vectors in made.multi_vector} == {(3, 16)}
    assert [len(chunks) for chunks, _ in corpus.pieces()] == [512, 88]
    assert len({query.text for query in corpus.queries(5)}) == 5


def test_the_store_alone_and_ours_are_both_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "DIMENSIONS", 16)
    with Bars(visible=False) as bars:
        section = in_process.hybrid(["qdrant_edge"], [200], 3, bars)
    (row,) = section.rows
    assert len(row) == len(section.columns)
    ours_ms, bare_ms = float(row[2]), float(row[4])
    assert ours_ms > 0
    assert bare_ms >= 0
