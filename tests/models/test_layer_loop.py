"""A cut skips the layers above it, and compression shortens what the layers after it compute: counted in rows per layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bgeserve.models.layer_loop import Depths, LayerLoop
from bgeserve.models.layer_reranker import LayerReranker
from bgeserve.types import RerankerOptions
from tests.checkpoints import TEXTS
from tests.models.folders import LAYERED, Folders
from tests.models.loaded import Reranker


class Counted:
    """A reranker, and how many rows each of its layers was given in the last forward."""

    def __init__(self, folder: Path) -> None:
        self.model = Reranker(folder)
        assert isinstance(self.model.scorer, LayerReranker)
        (loop,) = self.model.scorer._encoder._transformer.layers
        assert isinstance(loop, LayerLoop)
        self._calls: list[tuple[int, int]] = []
        for i, layer in enumerate(loop.layers):
            layer.register_forward_pre_hook(lambda _module, inputs, i=i: self._calls.append((i, inputs[0].shape[1])))

    def items(self, passages: Sequence[str], **options: Any) -> list[Any]:
        return self.model.items(TEXTS[0], passages, RerankerOptions(**options))

    def rows(self, items: Sequence[Any]) -> dict[int, int]:
        """Rows by layer; a layer that was not called is not there."""
        self._calls.clear()
        self.model.forward(items)
        assert len(dict(self._calls)) == len(self._calls)  # one call a layer
        return dict(self._calls)


@pytest.fixture(scope="module", params=LAYERED)
def counted(request: pytest.FixtureRequest, folders: Folders) -> Counted:
    return Counted(folders[request.param])


@pytest.fixture(scope="module")
def lightweight_counted(lightweight: Path) -> Counted:
    return Counted(lightweight)


@pytest.mark.parametrize("cutoff", range(2, 7))
def test_a_cut_skips_the_layers_from_it_on(counted: Counted, cutoff: int) -> None:
    items = counted.items(TEXTS, cutoff_layers=[cutoff])
    total = sum(item.cost for item in items)
    assert counted.rows(items) == dict.fromkeys(range(cutoff), total)


def test_without_cutoffs_every_layer_runs(counted: Counted) -> None:
    assert list(counted.rows(counted.items(TEXTS))) == list(range(6))


def test_several_cutoffs_cost_what_the_deepest_costs(counted: Counted) -> None:
    deepest = counted.rows(counted.items(TEXTS, cutoff_layers=[5]))
    assert counted.rows(counted.items(TEXTS, cutoff_layers=[5, 2, 3])) == deepest


def test_pairs_that_are_finished_leave_the_batch(counted: Counted) -> None:
    shallow = counted.items(TEXTS[:5], cutoff_layers=[2])
    middle = counted.items(TEXTS[5:8], cutoff_layers=[2, 4])
    deep = counted.items(TEXTS[8:], cutoff_layers=[6])
    left = {0: [shallow, middle, deep], 2: [middle, deep], 4: [deep]}
    rows = {layer: sum(item.cost for group in left[layer // 2 * 2] for item in group) for layer in range(6)}
    assert counted.rows([*deep[:2], *shallow, *middle, *deep[2:]]) == rows


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_compression_shortens_the_passage_alone(lightweight_counted: Counted, ratio: int) -> None:
    passages = ["", "a", *TEXTS]
    items = lightweight_counted.items(passages, compress_layers=[2, 4], compress_ratio=ratio)
    once = [-(-item.pair.passage_tokens // ratio) for item in items]
    twice = [-(-tokens // ratio) for tokens in once]
    others = sum(item.cost - item.pair.passage_tokens for item in items)
    whole = sum(item.cost for item in items)
    expected = {0: whole, 1: whole, 2: others + sum(once), 3: others + sum(once), 4: others + sum(twice), 5: others + sum(twice)}
    assert lightweight_counted.rows(items) == expected


def test_a_ratio_of_1_compresses_nothing(lightweight_counted: Counted) -> None:
    items = lightweight_counted.items(TEXTS, compress_layers=[2], compress_ratio=1)
    assert set(lightweight_counted.rows(items).values()) == {sum(item.cost for item in items)}


def test_no_layers_to_compress_at_are_none(lightweight_counted: Counted) -> None:
    items = lightweight_counted.items(TEXTS, compress_layers=[], compress_ratio=4)
    assert {item.depths.compress_at for item in items} == {frozenset()}
    unsaid = lightweight_counted.items(TEXTS, compress_ratio=4)
    assert {item.depths.compress_at for item in unsaid} == {frozenset([8])}


@pytest.mark.parametrize(
    ("passage", "ratio", "averaged"),
    [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (3, 8, [3]), (8, 8, [8]), (9, 4, [4, 4, 1]), (1, 4, [1]), (0, 4, [])],
)
def test_runs_of_a_passage(passage: int, ratio: int, averaged: list[int]) -> None:
    depths = Depths(2, passage, 3, (6,), frozenset({1}), ratio)
    assert depths.averaged_tokens(1).tolist() == [1, 1, *averaged, 1, 1, 1]
    assert depths.averaged_tokens(2).tolist() == [1] * depths.tokens
    assert depths.compressed().tokens == 5 + len(averaged)


class _Marked(torch.nn.Module):
    """A layer that only adds its number's power of ten."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.amount = 10.0**number

    def forward(self, hidden: torch.Tensor, **_: Any) -> torch.Tensor:
        return hidden + self.amount


def test_states_come_pair_by_pair_in_the_order_of_their_cutoffs() -> None:
    """With layers whose sums tell which ran: depth 2 has had 11, depth 3 has had 111 added."""
    from bgeserve.models.packing import Boundaries

    depths = [Depths(1, 1, 1, (1, 3)), Depths(1, 2, 1, (2,)), Depths(1, 2, 2, (1, 2, 3))]
    lengths = np.array([asked.tokens for asked in depths])
    hidden = torch.arange(float(lengths.sum()))[None, :, None] * 1000
    tables = (torch.zeros(1, int(lengths.sum()), 1),) * 2
    bounds = Boundaries.of(lengths, torch.device("cpu"))
    found = LayerLoop([_Marked(i) for i in range(4)])(hidden, position_embeddings=tables, boundaries=bounds, depths=depths)
    last = [2000, 6000, 11000]
    assert found.flatten().tolist() == [last[0] + 1, last[0] + 111, last[1] + 11, last[2] + 1, last[2] + 11, last[2] + 111]
