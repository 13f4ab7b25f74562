"""Our numbers against FlagEmbedding's and sentence-transformers' own, on the same checkpoints; and mutants that this must catch.

What is compared is in `parity/`; `python -m tests.models.parity_table` prints the differences.
"""

from __future__ import annotations

import pytest

from tests.models.folders import CROSS_ENCODERS, LAYERED, M3_OF_8192, Folders
from tests.models.loaded import Reranker, embedder
from tests.models.parity import CASES, encoders, layered, pairs
from tests.models.parity.case import Case, Mutant

MUTANTS = [pytest.param(case, mutant, id=f"{case}-{mutant.__name__}") for case in CASES for mutant in case.mutants]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_our_numbers_are_flagembeddings(case: Case, folders: Folders) -> None:
    too_far = {output: far for output, far in case.differences(folders[case.model]).items() if far > case.tolerance}
    assert not too_far


@pytest.mark.parametrize(("case", "mutant"), MUTANTS)
def test_parity_catches(case: Case, mutant: Mutant, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folders[case.model]
    case.values(folder)  # theirs, before anything is broken
    mutant(monkeypatch)
    assert case.fails(folder)


@pytest.mark.parametrize("name", CROSS_ENCODERS)
def test_most_pairs_are_compared_and_many_are_cut(name: str, folders: Folders) -> None:
    kept = pairs.pairs_that_survive(folders[name])
    assert len(kept) >= 0.6 * len(pairs.PAIRS)
    lengths = [item.cost for item in Reranker(folders[name], max_tokens=pairs.MAX_PAIR_TOKENS).items_of(kept)]
    assert lengths.count(pairs.MAX_PAIR_TOKENS) >= 10


def test_a_text_of_all_positions_is_compared(folders: Folders) -> None:
    model = embedder(folders[M3_OF_8192])
    assert model.tokenize(encoders.LONG_TEXTS)[0].cost == model.info.max_tokens == 8192


@pytest.mark.parametrize("name", LAYERED)
def test_ids_are_those_that_flagembedding_built(name: str, folders: Folders) -> None:
    model = Reranker(folders[name], max_tokens=96)
    golden = layered.golden(name.rpartition("-")[2])
    for prompt, expected in golden["input_ids"].items():
        options = layered.options_of({"prompt": prompt, "cutoff_layers": [2]}, name.rpartition("-")[2])
        items = model.items_of(golden["pairs"], options)
        assert [item.pair.sequence.ids.tolist() for item in items] == expected
