from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bgeserve.models.packing import PackedBatch, PositionScheme
from bgeserve.models.tokenizing import TokenSequence

CPU = torch.device("cpu")
PAD = 1


def sequence(ids: list[int]) -> TokenSequence:
    return TokenSequence(np.array(ids, np.int32))


id_lists = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=20)


@settings(deadline=None)
@given(id_lists)
def test_a_packed_row_holds_every_sequence_once_in_the_stated_order(lists: list[list[int]]) -> None:
    batch = PackedBatch.pack([sequence(ids) for ids in lists], PositionScheme(), CPU)
    bounds = batch.boundaries.cu_seqlens.tolist()
    row = batch.input_ids[0].tolist()
    assert [row[a:b] for a, b in pairwise(bounds)] == [lists[i] for i in batch.order]
    assert sorted(batch.order.tolist()) == list(range(len(lists)))
    assert len(row) == sum(map(len, lists)) == len(batch.ids)
    assert batch.boundaries.max_length == max(map(len, lists))


@settings(deadline=None)
@given(id_lists)
def test_runs_tile_the_row_with_equal_lengths(lists: list[list[int]]) -> None:
    batch = PackedBatch.pack([sequence(ids) for ids in lists], PositionScheme(), CPU)
    end = 0
    lengths: list[int] = []
    for run in batch.boundaries.runs:
        assert run.start == end
        end += run.sequences * run.length
        lengths += [run.length] * run.sequences
    assert lengths == sorted(map(len, lists))
    assert len({run.length for run in batch.boundaries.runs}) == len(batch.boundaries.runs)


@settings(deadline=None)
@given(id_lists)
def test_positions_are_those_of_the_models_own_code(lists: list[list[int]]) -> None:
    from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

    batch = PackedBatch.pack([sequence(ids) for ids in lists], PositionScheme(PAD), CPU)
    expected = [XLMRobertaEmbeddings.create_position_ids_from_input_ids(torch.tensor([lists[i]]), PAD)[0].tolist() for i in batch.order]
    assert batch.position_ids[0].tolist() == [p for positions in expected for p in positions]
    counted = PackedBatch.pack([sequence(ids) for ids in lists], PositionScheme(), CPU)
    assert counted.position_ids[0].tolist() == [p for i in counted.order for p in range(len(lists[i]))]


def test_token_types_are_kept_only_where_some_are_not_zero() -> None:
    plain, pair = sequence([1, 2, 3]), TokenSequence(np.array([4, 5], np.int32), type_ids=np.array([0, 1], np.int32))
    assert PackedBatch.pack([plain], PositionScheme(), CPU).token_type_ids is None
    types = PackedBatch.pack([plain, pair], PositionScheme(), CPU).token_type_ids
    assert types is not None
    assert types.tolist() == [[0, 1, 0, 0, 0]]


@pytest.mark.parametrize("lengths", [[1] * 64, list(range(1, 65)), [512, *[1] * 63]])
def test_size_depends_on_tokens_alone(lengths: list[int]) -> None:
    batch = PackedBatch.pack([sequence([7] * n) for n in lengths], PositionScheme(), CPU)
    assert batch.input_ids.numel() == batch.position_ids.numel() == sum(lengths)
