"""One ranked list from several legs. Fusing here, not in the store, gives the same result on every engine and keeps each leg's score.

RRF: Cormack, Clarke, Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods" (SIGIR 2009);
ranks count from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bgeserve.travels import travels
from bgeserve.types import LEGS, Leg


@travels
class Fusion:
    method: Literal["rrf", "weighted"] = "rrf"
    weights: Mapping[Leg, float] = field(default_factory=dict[Leg, float])
    """1 for a leg that is not named."""
    rrf_k: int = 60

    def by(self, leg: Leg) -> Fusion:
        """The same, of which only this leg's part counts."""
        return replace(self, weights={each: float(each == leg) for each in LEGS})


@dataclass(frozen=True, slots=True)
class Fused:
    key: str
    score: float
    scores: Mapping[Leg, float]
    ranks: Mapping[Leg, int]


def fuse(legs: Mapping[Leg, Sequence[tuple[str, float]]], fusion: Fusion) -> list[Fused]:
    """Fuse each leg's (key, score) list (best first) into one, best first; ties go to the smaller key, so equal input gives equal order.

    rrf: sum over legs of weight / (rrf_k + rank). weighted: sum over legs of weight x the leg's score scaled to [0, 1] within its list,
    over the sum of the weights; a chunk that a leg did not find gets 0 from it.
    """
    ranks: dict[str, dict[Leg, int]] = {}
    scores: dict[str, dict[Leg, float]] = {}
    fused: dict[str, float] = {}
    total_weight = sum(fusion.weights.get(leg, 1.0) for leg in legs)
    for leg, found in legs.items():
        weight = fusion.weights.get(leg, 1.0)
        scaled = _scale_to_unit([score for _, score in found]) if fusion.method == "weighted" else []
        for i, (key, score) in enumerate(found):
            ranks.setdefault(key, {})[leg] = i + 1
            scores.setdefault(key, {})[leg] = score
            gain = weight * scaled[i] / total_weight if fusion.method == "weighted" else weight / (fusion.rrf_k + i + 1)
            fused[key] = fused.get(key, 0.0) + gain
    ordered = sorted(fused, key=lambda key: (-fused[key], key))
    return [Fused(key, fused[key], scores[key], ranks[key]) for key in ordered]


def _scale_to_unit(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]
