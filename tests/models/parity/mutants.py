"""Mistakes in what every model shares: attention, positions, pooling, texts. Those of layer-cutoff rerankers are in `layer_mutants.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from bgeserve.models import attention, heads, llm_reranker, prompted_pairs
from bgeserve.models.attention import RUNS, Rule
from bgeserve.models.embedder import PackedEmbedder
from bgeserve.models.packing import Boundaries, PositionScheme, Run
from bgeserve.models.prompted_pairs import PairPrompter
from bgeserve.models.query_prompt import QueryPrompt
from bgeserve.models.tokenizing import Tokenizer

# --- attention and positions ------------------------------------------------------------------------------------------------


def shift_positions(patch: pytest.MonkeyPatch) -> None:
    """By one, as far as there are positions: where only distances count, the first token still comes too near."""
    right = PositionScheme.positions
    patch.setattr(PositionScheme, "positions", lambda *args: np.maximum(right(*args) - 1, 0))


def count_pad_tokens(patch: pytest.MonkeyPatch) -> None:
    def positions(self: PositionScheme, ids: Any, starts: Any, lengths: Any) -> Any:
        return np.arange(len(ids)) - np.repeat(starts, lengths) + self.first

    patch.setattr(PositionScheme, "positions", positions)


def mix_neighbours(patch: pytest.MonkeyPatch) -> None:
    """Attention looks into the next text where two have one length."""

    def forward(*args: Any, boundaries: Boundaries, **keywords: Any) -> Any:
        runs = tuple(Run(r.start, 1, r.length * r.sequences) for r in boundaries.runs)
        return right(*args, boundaries=Boundaries(boundaries.cu_seqlens, boundaries.max_length, runs), **keywords)

    right = attention.attend_runs
    patch.setitem(attention.AttentionInterface._global_mapping, RUNS, forward)


def _another_rule(change: Callable[[Rule], dict[str, Any]]) -> Callable[[pytest.MonkeyPatch], None]:
    def mutant(patch: pytest.MonkeyPatch) -> None:
        right = Rule.of

        def of(*args: Any) -> Rule:
            rule = right(*args)
            return replace(rule, **change(rule))

        patch.setattr(Rule, "of", staticmethod(of))

    return mutant


def _named(name: str, mutant: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
    mutant.__name__ = name
    return mutant


ignore_scaling = _named("ignore_scaling", _another_rule(lambda rule: {"scaling": 1.0}))
scale_by_head_size = _named("scale_by_head_size", _another_rule(lambda rule: {"scaling": None}))
see_later_tokens = _named("see_later_tokens", _another_rule(lambda rule: {"causal": False}))
skip_soft_cap = _named("skip_soft_cap", _another_rule(lambda rule: {"softcap": None}))
skip_window = _named("skip_window", _another_rule(lambda rule: {"window": None}))
widen_window = _named("widen_window", _another_rule(lambda rule: {"window": rule.window and rule.window + 1}))
narrow_window = _named("narrow_window", _another_rule(lambda rule: {"window": rule.window and rule.window - 1}))


def group_heads_by_turns(patch: pytest.MonkeyPatch) -> None:
    """Heads 0, 2 share keys, and 1, 3: instead of neighbours."""
    for name in ("_attend_fused", "_attend_in_blocks"):
        right = getattr(attention, name)

        def attend(q: Tensor, k: Tensor, v: Tensor, rule: Rule, right: Any = right) -> Tensor:
            groups = q.shape[1] // k.shape[1]
            return right(q, k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1), rule)

        patch.setattr(attention, name, attend)


# --- heads ------------------------------------------------------------------------------------------------------------------


def pool_last_token(patch: pytest.MonkeyPatch) -> None:
    right = heads.pool
    patch.setattr(heads, "pool", lambda rows, pooling: right(rows, "last_token"))


def pool_cls(patch: pytest.MonkeyPatch) -> None:
    right = heads.pool
    patch.setattr(heads, "pool", lambda rows, pooling: right(rows, "cls"))


def read_one_token_early(patch: pytest.MonkeyPatch) -> None:
    right = heads.TokenRows.at
    patch.setattr(heads.TokenRows, "at", lambda self, tokens: right(self, np.maximum(tokens - 1, 0)))


def read_the_rows_first_token(patch: pytest.MonkeyPatch) -> None:
    """Every sequence gets the first token of the packed row."""
    right = heads.TokenRows.at
    patch.setattr(heads.TokenRows, "at", lambda self, tokens: right(self, np.zeros_like(tokens)))


def keep_special_weights(patch: pytest.MonkeyPatch) -> None:
    right = heads.lexical_weights
    patch.setattr(heads, "lexical_weights", lambda rows, linear, ignored: right(rows, linear, []))


def smallest_weight(patch: pytest.MonkeyPatch) -> None:
    class Minimum:
        reduceat = np.minimum.reduceat

    class Numpy:
        maximum = Minimum

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    patch.setattr(heads, "np", Numpy())


def hidden_states_for_vectors(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(heads, "multi_vector", lambda rows, linear: heads.token_vectors(rows))


def drop_end_vector(patch: pytest.MonkeyPatch) -> None:
    right = heads.multi_vector
    patch.setattr(heads, "multi_vector", lambda rows, linear: [vectors[:-1] for vectors in right(rows, linear)])


def answer_no(patch: pytest.MonkeyPatch) -> None:
    """The row of another answer than "Yes"."""
    patch.setattr(llm_reranker, "ANSWER", "No")


# --- texts ------------------------------------------------------------------------------------------------------------------


def treat_queries_as_documents(patch: pytest.MonkeyPatch) -> None:
    right = PackedEmbedder.tokenize
    patch.setattr(PackedEmbedder, "tokenize", lambda self, texts, *_, **__: right(self, texts, "document"))


def drop_instruction(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(QueryPrompt, "prefix", "")


def ignore_request(patch: pytest.MonkeyPatch) -> None:
    """Instruction and examples of a request count for nothing."""
    patch.setattr(QueryPrompt, "with_options", lambda self, *_: self)


def drop_examples(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(QueryPrompt, "shown_examples", lambda self: "")


def one_instruction_for_all_examples(patch: pytest.MonkeyPatch) -> None:
    right = QueryPrompt.shown_examples
    patch.setattr(
        QueryPrompt,
        "shown_examples",
        lambda self: right(replace(self, examples=[replace(one, instruction=None) for one in self.examples])),
    )


def drop_suffix(patch: pytest.MonkeyPatch) -> None:
    right = QueryPrompt.of
    patch.setattr(QueryPrompt, "of", staticmethod(lambda *args: replace(right(*args), suffix="")))


def cut_one_early(patch: pytest.MonkeyPatch) -> None:
    right = Tokenizer.__init__
    patch.setattr(Tokenizer, "__init__", lambda self, folder, max_tokens: right(self, folder, max_tokens - 1))


def cut_at_half(patch: pytest.MonkeyPatch) -> None:
    """The query at half of its limit, and the passage."""
    right = Tokenizer.body_ids
    patch.setattr(Tokenizer, "body_ids", lambda self, texts, limit, field: [ids[: limit // 2] for ids in right(self, texts, limit, field)])


def _forget_option(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def mutant(patch: pytest.MonkeyPatch) -> None:
        right = PairPrompter.pairs
        patch.setattr(PairPrompter, "pairs", lambda *args, **options: right(*args, **{**options, name: None}))

    return mutant


ignore_prompt = _named("ignore_prompt", _forget_option("prompt"))
ignore_pair_instruction = _named("ignore_pair_instruction", _forget_option("instruction"))


def drop_separator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(prompted_pairs, "SEPARATOR", "")


def drop_begin_of_text(patch: pytest.MonkeyPatch) -> None:
    right = PairPrompter.__init__

    def init(self: PairPrompter, *args: Any, **keywords: Any) -> None:
        right(self, *args, **keywords)
        self._bos = []

    patch.setattr(PairPrompter, "__init__", init)
