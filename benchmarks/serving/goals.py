"""What was set out for (issue 5 of the project), and how a figure is said to stand to it: `0.80 (≥ 0.92 MISSED)`."""

from __future__ import annotations

from math import isnan

SERVED_OVER_ENGINE = {1: 0.85, 8: 0.92, 64: 0.95}
"""By texts a request."""
SERVED_OVER_UVICORN = 0.92
OVER_PEER = {"Infinity torch": 3.5, "Infinity ONNX": 2.0, "SIE": 4.0, "FlagEmbedding": 10.0}
"""At equal dtype, with an equal or better p99."""
AUTO_OVER_PEER = {"Infinity torch": 6.0, "Infinity ONNX": 6.0}
"""With `dtype: auto`, where the CPU computes bfloat16."""
OVER_FORWARD_MS = 4.0
QUERY_OVER_LONGEST_BATCH = 1.2
BULK_OVER_ALONE = 0.8
RESERVED_OVER_IDLE = 3.0
GOODPUT_OVER_PEAK = 0.9
REFUSAL_P95_MS = 20.0
RETRY_AFTER_HONEST = 0.9
"""Share of refusals whose Retry-After is within a factor of two of the truth."""
RESIDENT_END_OVER_WARM = 1.05
RERANK_OVER_ENGINE = 0.85


def at_least(figure: float, goal: float | None, digits: int = 2) -> str:
    return _stated(figure, goal, digits, "≥", goal is None or figure >= goal)


def at_most(figure: float, goal: float | None, digits: int = 2) -> str:
    return _stated(figure, goal, digits, "≤", goal is None or figure <= goal)


def _stated(figure: float, goal: float | None, digits: int, sign: str, is_met: bool) -> str:
    if isnan(figure):
        return "-"
    stated = f"{figure:,.{digits}f}"
    if goal is None:
        return stated
    return f"{stated} ({sign} {goal:,.{digits}f}{'' if is_met else ' MISSED'})"
