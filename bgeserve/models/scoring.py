"""What every reranker in this folder is to its engine: pairs in, scores out, and which options of a request it takes.

Knows options and numbers. Does not know how a score comes about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar, cast

from bgeserve.errors import InvalidRequest, SettingsError
from bgeserve.settings import RerankerSettings
from bgeserve.types import RerankerOptions

COMPRESS_RATIOS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class RerankerInfo:
    model: str
    family: str
    kind: str
    max_tokens: int
    options: tuple[str, ...] = ()
    """Fields of RerankerOptions that it takes."""
    cutoffs: range = range(0)
    """Layers that it can be cut at."""


@dataclass(frozen=True, slots=True)
class PairScore:
    score: float
    """What passages are ordered by."""
    parts: Mapping[str, float] = field(default_factory=dict[str, float])
    """As `types.Scores.parts`."""


class Tokenized(Protocol):
    """What tokenising made of one input, and what is queued."""

    @property
    def cost(self) -> int:
        """In tokens."""
        ...

    @property
    def truncated(self) -> bool: ...


ItemT = TypeVar("ItemT", bound=Tokenized)


class Scorer(Protocol[ItemT]):
    """Both methods may be called from any thread."""

    @property
    def info(self) -> RerankerInfo: ...

    def tokenize(self, query: str, passages: Sequence[str], options: RerankerOptions, truncate: bool = True) -> list[ItemT]:
        """One item per passage. Raises InvalidRequest: over the limit with truncate=False; a lone surrogate; an option's value."""
        ...

    def forward(self, items: Sequence[ItemT]) -> list[PairScore]:
        """In the items' order; items of different queries and options may share a batch."""
        ...

    def normalize(self, score: float) -> float:
        """To [0, 1]."""
        ...


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


class OptionRules:
    """Fills in what a request leaves out from the settings, and refuses what the model does not take, by name."""

    def __init__(self, info: RerankerInfo, settings: RerankerSettings) -> None:
        """Raises SettingsError when the settings state an option that the model does not take."""
        self._info = info
        self._defaults = RerankerOptions(**{one.name: getattr(settings, one.name) for one in fields(RerankerOptions)})
        try:
            self._check_all(self._defaults)
        except InvalidRequest as error:
            raise SettingsError(f"{settings.model}: {error.message}", field=error.field) from None

    def resolve(self, asked: RerankerOptions | None) -> RerankerOptions:
        """Raises InvalidRequest."""
        return self._defaults if asked is None else replace(self._defaults, **self._check_all(asked))

    def _check_all(self, options: RerankerOptions) -> dict[str, Any]:
        """Those that are stated."""
        stated = {one.name: getattr(options, one.name) for one in fields(options) if getattr(options, one.name) is not None}
        for name, value in stated.items():
            self._check(name, value)
        return stated

    def _check(self, name: str, value: Any) -> None:
        info = self._info
        if name not in info.options:
            takes = f"takes {', '.join(info.options)}" if info.options else "takes no options"
            sent = list(cast("Sequence[int]", value)) if isinstance(value, tuple) else value
            raise InvalidRequest(f"{name} is {sent!r}, but {info.model} ({info.kind}) {takes}", field=name)
        if name == "cutoff_layers" and not value:
            raise InvalidRequest("cutoff_layers is empty; leave it out for the last layer", field=name)
        if name == "cutoff_layers" and (wrong := [layer for layer in value if layer not in info.cutoffs]):
            between = f"{info.cutoffs[0]} to {info.cutoffs[-1]}"
            raise InvalidRequest(f"cutoff_layers has {wrong}; {info.model} can be cut at layers {between}", field=name)
        if name == "compress_layers" and (wrong := [layer for layer in value if not 0 < layer < info.cutoffs[-1]]):
            last = info.cutoffs[-1] - 1
            raise InvalidRequest(f"compress_layers has {wrong}; {info.model} can compress before layers 1 to {last}", field=name)
        if name == "compress_ratio" and not any(value == ratio for ratio in COMPRESS_RATIOS):
            raise InvalidRequest(f"compress_ratio must be one of {COMPRESS_RATIOS} (1: off), not {value!r}", field=name)
        if name == "weights" and not sum(value.values()) > 0:
            raise InvalidRequest(f"weights must have at least one above 0, not {dict(value)!r}", field=name)
