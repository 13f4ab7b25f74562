"""Whether a loaded model gives the numbers that it should: its outputs on fixed inputs against FlagEmbedding's own class, against a
recording, or against what BAAI publishes.

Knows models and numbers. Does not know the command line. The numbers of one run are plain JSON values, so that they can be kept in a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Any, cast

from bgeserve.catalog import find_embedder, find_reranker
from bgeserve.models.checkpoint import role_of
from bgeserve.models.embedder import Row
from bgeserve.models.embedding import EmbeddingModel, load_embedding_model
from bgeserve.models.hub import locate
from bgeserve.models.published import Published
from bgeserve.models.reranker import load_reranker
from bgeserve.models.runtime import choose_device, choose_dtype
from bgeserve.models.scoring import OptionRules, PairScore, Scorer
from bgeserve.models.vector_scoring import pair_scores
from bgeserve.settings import EmbedderSettings, ModelSettings, RerankerSettings
from bgeserve.types import InputType, RerankerOptions, Role

TEXTS = (
    "what is panda?",
    "The giant panda (Ailuropoda melanoleuca) is a bear species endemic to China.",
    "大熊猫是中国特有的熊科动物。",
    "الباندا العملاقة نوع من الدببة",
    "विशाल पांडा चीन का एक भालू है",
    "แพนด้ายักษ์เป็นหมีชนิดหนึ่ง",
    "🐼 pandas, 1,864 of them (2014) — naïve café",
    "a",
    "bamboo " * 150,
)
QUERIES = (TEXTS[0], TEXTS[2])

Numbers = Mapping[str, Sequence[Any]]
"""By output, one value per input: a number, a vector, a list of vectors, or lexical weights by token id."""


@dataclass(frozen=True, slots=True)
class Comparison:
    output: str
    largest_difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.largest_difference <= self.tolerance


def settings_for(model: str, **more: Any) -> EmbedderSettings | RerankerSettings:
    """Settings of the role that the model's row, or else its files, say. Raises CheckpointError."""
    return RerankerSettings(model=model, **more) if _role(model) == "reranker" else EmbedderSettings(model=model, **more)


def numbers_of(settings: EmbedderSettings | RerankerSettings) -> tuple[Numbers, int]:
    """What the model makes of TEXTS, and at how many tokens it cuts. Raises CheckpointError, SettingsError."""
    if isinstance(settings, EmbedderSettings):
        model = load_embedding_model(settings)
        return _embeddings(model), model.info.max_tokens
    scorer, rules = load_reranker(settings)
    return _scores(scorer, rules), scorer.info.max_tokens


def compare(ours: Numbers, theirs: Numbers, settings: ModelSettings) -> list[Comparison]:
    """Of each output that both have; an output of one alone counts as infinitely different."""
    half = choose_dtype(settings.dtype, choose_device(settings)).itemsize < 4
    vectors, logits = (2e-2, 0.5) if half else (1e-5, 1e-4)
    tolerance = logits if isinstance(settings, RerankerSettings) else vectors
    names = dict.fromkeys([*ours, *theirs])
    return [Comparison(name, largest_difference(ours.get(name), theirs.get(name)), tolerance) for name in names]


def compare_published(settings: EmbedderSettings | RerankerSettings, numbers: Sequence[Published]) -> list[Comparison]:
    """Raises CheckpointError, SettingsError."""
    if isinstance(settings, EmbedderSettings):
        model = load_embedding_model(settings)
        return [each for one in numbers for each in _compare_stated(_pair_scores(model, one), one)]
    scorer, rules = load_reranker(settings)
    found: list[Comparison] = []
    for one in numbers:
        raw = [pair.score for pair in _forward(scorer, rules, one.pairs, one.options)]
        found += _compare_stated({"score": raw, "normalized": [scorer.normalize(score) for score in raw]}, one)
    return found


def _compare_stated(scores: Mapping[str, list[float]], one: Published) -> list[Comparison]:
    return [Comparison(name, largest_difference(scores[name], list(stated)), one.tolerance) for name, stated in one.scores.items()]


def largest_difference(ours: Any, theirs: Any) -> float:
    """Of any two numbers in the same place; weights that only one side has are compared with 0. Other shapes, and NaN: infinite."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        a, b = cast("Mapping[str, float]", ours), cast("Mapping[str, float]", theirs)
        return max((abs(a.get(key, 0.0) - b.get(key, 0.0)) for key in a.keys() | b.keys()), default=0.0)
    if isinstance(ours, list) and isinstance(theirs, list):
        a, b = cast("list[Any]", ours), cast("list[Any]", theirs)
        return max(map(largest_difference, a, b), default=0.0) if len(a) == len(b) else inf
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)) and not isnan(ours - theirs):
        return abs(ours - theirs)
    return inf


def _role(model: str) -> Role:
    if find_embedder(model) or find_reranker(model):
        return "embedder" if find_embedder(model) else "reranker"
    return role_of(locate(model))


def _embeddings(model: EmbeddingModel) -> Numbers:
    numbers: dict[str, list[Any]] = {}
    kinds: tuple[InputType, ...] = ("document", "query")
    for kind in kinds:
        for row in model.forward(model.tokenize(TEXTS, kind), [model.info.outputs] * len(TEXTS)):
            for name, value in _plain(row).items():
                numbers.setdefault(f"{name}, {kind}", []).append(value)
    return numbers


def _plain(row: Row) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    if row.dense is not None:
        plain["dense"] = row.dense.tolist()
    if row.sparse is not None:
        plain["sparse"] = dict(zip(map(str, row.sparse.indices.tolist()), row.sparse.values.tolist(), strict=True))
    if row.multi_vector is not None:
        plain["multi_vector"] = row.multi_vector.tolist()
    return plain


def _scores(scorer: Scorer[Any], rules: OptionRules) -> Numbers:
    pairs = [(query, passage) for query in QUERIES for passage in TEXTS]
    cutoffs = tuple(scorer.info.cutoffs)
    ways: dict[str, RerankerOptions | None] = {"score": None}
    if cutoffs:
        ways["every layer"] = RerankerOptions(cutoff_layers=cutoffs)
    if "compress_ratio" in scorer.info.options:
        ways["compressed by 2"] = RerankerOptions(cutoff_layers=cutoffs, compress_layers=cutoffs[:1], compress_ratio=2)
    return {
        name: [list(pair.parts.values()) or pair.score for pair in _forward(scorer, rules, pairs, options)]
        for name, options in ways.items()
    }


def _forward(scorer: Scorer[Any], rules: OptionRules, pairs: Sequence[tuple[str, str]], options: RerankerOptions | None) -> list[PairScore]:
    resolved = rules.resolve(options)
    return scorer.forward([item for query, passage in pairs for item in scorer.tokenize(query, [passage], resolved)])


def _pair_scores(model: EmbeddingModel, one: Published) -> Mapping[str, list[float]]:
    queries = model.forward(model.tokenize([query for query, _ in one.pairs], "query"), [model.info.outputs] * len(one.pairs))
    passages = model.forward(model.tokenize([passage for _, passage in one.pairs]), [model.info.outputs] * len(one.pairs))
    scores = [pair_scores(query, passage) for query, passage in zip(queries, passages, strict=True)]
    return {name: [each[name] for each in scores] for name in scores[0]}
