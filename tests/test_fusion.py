from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgeserve.fusion import Fusion, fuse
from bgeserve.types import LEGS, Leg

DENSE = [("a", 0.9), ("b", 0.8), ("c", 0.1)]
LEXICAL = [("c", 12.0), ("a", 4.0)]


def test_rrf_sums_reciprocal_ranks_from_one() -> None:
    fused = fuse({"dense": DENSE, "full_text": LEXICAL}, Fusion(rrf_k=60))
    assert [(f.key, f.score) for f in fused] == [
        ("a", pytest.approx(1 / 61 + 1 / 62)),
        ("c", pytest.approx(1 / 63 + 1 / 61)),
        ("b", pytest.approx(1 / 62)),
    ]
    assert fused[0].ranks == {"dense": 1, "full_text": 2}
    assert fused[1].scores == {"dense": 0.1, "full_text": 12.0}
    assert fused[2].ranks == {"dense": 2}


def test_rrf_weights() -> None:
    fused = fuse({"dense": DENSE, "full_text": LEXICAL}, Fusion(weights={"full_text": 3.0}))
    assert [f.key for f in fused] == ["c", "a", "b"]
    assert fused[0].score == pytest.approx(1 / 63 + 3 / 61)


def test_weighted_scales_each_leg_to_its_own_range() -> None:
    fused = fuse({"dense": DENSE, "full_text": LEXICAL}, Fusion("weighted", {"dense": 3.0}))
    assert {f.key: f.score for f in fused} == {
        "a": pytest.approx((3 * 1 + 0) / 4),
        "b": pytest.approx(3 * 0.875 / 4),
        "c": pytest.approx(1 / 4),
    }


def test_weighted_with_equal_scores_gives_them_all() -> None:
    fused = fuse({"dense": [("b", 0.5), ("a", 0.5)]}, Fusion("weighted"))
    assert [(f.key, f.score) for f in fused] == [("a", 1.0), ("b", 1.0)]


@pytest.mark.parametrize("method", ["rrf", "weighted"])
def test_by_one_leg_the_others_find_and_do_not_count(method: Any) -> None:
    fusion = Fusion(method, {"dense": 3.0}, rrf_k=5).by("full_text")
    fused = fuse({"dense": DENSE, "full_text": [("c", 12.0), ("b", 5.0), ("a", 4.0)]}, fusion)
    assert [f.key for f in fused] == ["c", "b", "a"]
    assert fused[0].score == pytest.approx(1 / 6 if method == "rrf" else 1)
    assert fused[0].scores == {"dense": 0.1, "full_text": 12.0}


def test_nothing_found() -> None:
    assert fuse({"dense": [], "full_text": []}, Fusion()) == []
    assert fuse({}, Fusion("weighted")) == []


SCORED = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1e6, 1e6), max_size=8).map(
    lambda found: sorted(found.items(), key=lambda item: -item[1])
)


@given(legs=st.dictionaries(st.sampled_from(LEGS), SCORED), method=st.sampled_from(["rrf", "weighted"]))
def test_every_key_once_and_in_one_order(legs: Mapping[Leg, Sequence[tuple[str, float]]], method: str) -> None:
    fusion = Fusion(method)  # type: ignore[arg-type]
    fused = fuse(legs, fusion)
    assert sorted(f.key for f in fused) == sorted({key for found in legs.values() for key, _ in found})
    assert [f.key for f in fused] == [f.key for f in sorted(fused, key=lambda f: (-f.score, f.key))]
    for f in fused:
        for leg, rank in f.ranks.items():
            assert legs[leg][rank - 1] == (f.key, f.scores[leg])
        if method == "weighted":
            assert 0 <= f.score <= 1 + 1e-9
