"""Mistakes in the rerankers that are cut and compressed between their layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bgeserve.models import layer_loop, layer_reranker, layer_scorer
from bgeserve.models.layer_loop import Depths, _Rows
from bgeserve.models.layer_reranker import LayerReranker

# --- MiniCPM's three factors ------------------------------------------------------------------------------------------------


def _without_multiplier(name: str) -> Any:
    def mutant(patch: pytest.MonkeyPatch) -> None:
        right = layer_scorer._granite_config

        def granite_config(config: Any) -> Any:
            found = right(config)
            setattr(found, name, 1.0)
            return found

        patch.setattr(layer_scorer, "_granite_config", granite_config)

    mutant.__name__ = f"drop_{name}"
    return mutant


drop_residual_multiplier = _without_multiplier("residual_multiplier")
drop_embedding_multiplier = _without_multiplier("embedding_multiplier")
drop_attention_multiplier = _without_multiplier("attention_multiplier")

# --- heads ------------------------------------------------------------------------------------------------------------------


def first_head_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LayerReranker, "_heads_of", lambda self, layers: self._heads[np.zeros_like(layers)])


def head_of_the_place_in_the_list(patch: pytest.MonkeyPatch) -> None:
    """As upstream's lightweight class does: head i for the i-th of the asked layers."""

    def heads_of(self: LayerReranker, layers: np.ndarray) -> Tensor:
        starts = np.flatnonzero(np.diff(layers, prepend=layers[0]) <= 0)
        place = np.arange(len(layers)) - np.repeat(starts, np.diff(starts, append=len(layers)))
        return self._heads[place]

    patch.setattr(LayerReranker, "_heads_of", heads_of)


def skip_cap_of_logits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layer_reranker, "soft_capped", lambda logits, _: logits)


def skip_last_norm(patch: pytest.MonkeyPatch) -> None:
    right = layer_reranker.load_layer_scorer

    def load(*args: Any) -> Any:
        model: Any = right(*args)
        model.model.norm = torch.nn.Identity()
        return model

    patch.setattr(layer_reranker, "load_layer_scorer", load)


# --- reading out ------------------------------------------------------------------------------------------------------------


def read_one_layer_early(patch: pytest.MonkeyPatch) -> None:
    right = _Rows.read
    patch.setattr(_Rows, "read", lambda self, depth: right(self, depth + 1))


def read_last_but_one_row(patch: pytest.MonkeyPatch) -> None:
    def read(self: _Rows, depth: int) -> tuple[list[int], Tensor]:
        ends = np.cumsum([asked.tokens for _, asked in self.pairs])
        here = [i for i, (_, asked) in enumerate(self.pairs) if depth in asked.cutoffs]
        return [self.pairs[i][0] for i in here], self.hidden[self._on_device(ends[here] - 2)]

    patch.setattr(_Rows, "read", read)


def readouts_in_order_of_depth(patch: pytest.MonkeyPatch) -> None:
    """Not brought back to the order of pairs."""
    patch.setattr(layer_loop, "sorted", lambda items, key: list(items), raising=False)


# --- compression ------------------------------------------------------------------------------------------------------------


def _other_depths(change: Any, name: str) -> Any:
    def mutant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(layer_reranker, "Depths", lambda *args: Depths(*change(*args)))

    mutant.__name__ = name
    return mutant


compress_one_layer_late = _other_depths(
    lambda q, passage, p, cutoffs, at, ratio: (q, passage, p, cutoffs, frozenset(layer + 1 for layer in at), ratio),
    "compress_one_layer_late",
)
compress_query_too = _other_depths(lambda q, passage, p, *more: (0, q + passage, p, *more), "compress_query_too")
compress_prompt_too = _other_depths(lambda q, passage, p, *more: (q, passage + p - 1, 1, *more), "compress_prompt_too")
compress_at_first_layer_alone = _other_depths(
    lambda q, passage, p, cutoffs, at, ratio: (q, passage, p, cutoffs, frozenset(sorted(at)[:1]), ratio), "compress_at_first_layer_alone"
)
never_compress = _other_depths(lambda q, passage, p, cutoffs, at, ratio: (q, passage, p, cutoffs, at, 1), "never_compress")


def forget_last_shorter_run(patch: pytest.MonkeyPatch) -> None:
    """What is left over joins the run before it."""

    def runs(self: Depths) -> np.ndarray:
        whole = np.full(self.passage_tokens // self.ratio, self.ratio)
        if len(whole):
            whole[-1] += self.passage_tokens % self.ratio
        return whole if len(whole) or not self.passage_tokens else np.array([self.passage_tokens])

    def compressed(self: Depths) -> Depths:
        return Depths(self.query_tokens, len(runs(self)), self.prompt_tokens, self.cutoffs, self.compress_at, self.ratio)

    def averaged_tokens(self: Depths, depth: int) -> np.ndarray:
        if depth not in self.compress_at or self.ratio == 1:
            return np.ones(self.tokens, np.int64)
        return np.concatenate([np.ones(self.query_tokens, np.int64), runs(self), np.ones(self.prompt_tokens, np.int64)])

    patch.setattr(Depths, "compressed", compressed)
    patch.setattr(Depths, "averaged_tokens", averaged_tokens)


def keep_positions(patch: pytest.MonkeyPatch) -> None:
    """After compression, each row keeps the position of its first token."""
    right = _Rows.without_finished

    def without_finished(self: _Rows, depth: int, rotations: Any) -> _Rows:
        after = right(self, depth, rotations)
        if after is self or not after.pairs:
            return after
        ends = np.cumsum([asked.tokens for _, asked in self.pairs])
        starts = {place: end - asked.tokens for (place, asked), end in zip(self.pairs, ends, strict=True)}
        before = dict(self.pairs)
        merged = [(place, before[place].averaged_tokens(depth)) for place, _ in after.pairs]
        first = self._on_device(np.concatenate([starts[place] + np.cumsum(counts) - counts for place, counts in merged]))
        kept = tuple(table[:, first] for table in self.rotations)
        return _Rows(after.hidden, kept, after.boundaries, after.pairs)

    patch.setattr(_Rows, "without_finished", without_finished)
