"""`engine: flagembedding`: FlagEmbedding's own classes behind the surface of the packed models, for families that have no packed form and
to compare with. The packed path never imports this file.

Knows FlagEmbedding's constructors and calls. It pads, sorts and truncates by itself; tokens are counted here only for the queue.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bgeserve.catalog import EmbedderRow, find_embedder, find_reranker
from bgeserve.errors import CheckpointError, SettingsError
from bgeserve.models.checkpoint import head_files_of, max_tokens_of, pooling_of, query_prompt_of, reranker_kind_of, weight_files_of
from bgeserve.models.embedder import EmbedderInfo, Row, check_outputs, refuse_query_options
from bgeserve.models.fingerprint import fingerprint
from bgeserve.models.hub import SPARSE_HEAD, locate
from bgeserve.models.prompted_pairs import QUERY_INSTRUCTION
from bgeserve.models.query_prompt import QueryPrompt
from bgeserve.models.runtime import choose_device, choose_dtype
from bgeserve.models.scoring import PairScore, RerankerInfo, sigmoid
from bgeserve.models.tokenizing import Tokenizer
from bgeserve.settings import EmbedderSettings, ModelSettings, RerankerSettings
from bgeserve.types import OUTPUTS, EmbedderOptions, Example, InputType, Output, RerankerOptions, SparseVector

DEFAULT_MAX_TOKENS = 512
"""FlagEmbedding's own, where neither the settings nor the catalogue nor the files say more."""

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class FlagText:
    text: str
    cost: int
    truncated: bool
    prompt: QueryPrompt | None
    """None: a document."""


class FlagEmbedder:
    """The surface of `embedder.PackedEmbedder`, for one thread at a time."""

    def __init__(self, info: EmbedderInfo, tokenizer: Tokenizer, model: Any, prompt: QueryPrompt) -> None:
        self.info = info
        self._tokenizer = tokenizer
        self._model = model
        self._prompt = prompt

    def tokenize(
        self, texts: Sequence[str], input_type: InputType = "document", truncate: bool = True, options: EmbedderOptions | None = None
    ) -> list[FlagText]:
        if input_type == "document":
            refuse_query_options(options)
        prompt = None if input_type == "document" else self._prompt.with_options(options or EmbedderOptions(), self.info.model)
        counted = self._tokenizer.encode(texts, truncate=truncate)
        return [FlagText(text, tokens.cost, tokens.truncated, prompt) for text, tokens in zip(texts, counted, strict=True)]

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.spans(text)

    def forward(self, items: Sequence[FlagText], outputs: Sequence[Collection[Output]]) -> list[Row]:
        rows: list[Row] = [Row()] * len(items)
        for places in _groups([(repr(item.prompt), tuple(sorted(asked))) for item, asked in zip(items, outputs, strict=True)]):
            texts, prompt, asked = [items[i].text for i in places], items[places[0]].prompt, outputs[places[0]]
            for i, row in zip(places, self._encode(texts, prompt, asked), strict=True):
                rows[i] = row
        return rows

    def check_outputs(self, outputs: Collection[Output]) -> None:
        check_outputs(self.info, outputs)

    def _encode(self, texts: list[str], prompt: QueryPrompt | None, outputs: Collection[Output]) -> list[Row]:
        kinds = {"return_dense": "dense" in outputs, "return_sparse": "sparse" in outputs, "return_colbert_vecs": "multi_vector" in outputs}
        more: dict[str, Any] = kinds if "sparse" in self.info.outputs else {}
        encode = self._model.encode_corpus
        if prompt is not None:
            encode = self._model.encode_queries
            self._model.query_instruction_for_retrieval = prompt.instruction or None
            if prompt.example_format:
                self._model.prefix = prompt.shown_examples()
        found = encode(texts, batch_size=len(texts) + 1, max_length=self.info.max_tokens, **more)
        if not more:
            return [Row(dense=np.asarray(vector, np.float32)) for vector in found]
        return [_m3_row(found, i) for i in range(len(texts))]


def _m3_row(found: dict[str, Any], i: int) -> Row:
    dense, weights, vectors = (None if values is None else values[i] for values in found.values())
    sparse = None
    if weights is not None:
        by_id = sorted((int(token), float(weight)) for token, weight in weights.items())
        sparse = SparseVector(np.array([t for t, _ in by_id], np.uint32), np.array([w for _, w in by_id], np.float32))
    return Row(
        dense=None if dense is None else np.asarray(dense, np.float32),
        sparse=sparse,
        multi_vector=None if vectors is None else np.asarray(vectors, np.float32),
    )


@dataclass(frozen=True, slots=True)
class FlagPair:
    query: str
    passage: str
    cost: int
    truncated: bool
    options: RerankerOptions


class FlagScorer:
    """A `scoring.Scorer` for one thread at a time."""

    def __init__(self, info: RerankerInfo, tokenizer: Tokenizer, model: Any) -> None:
        self.info = info
        self._tokenizer = tokenizer
        self._model = model

    def tokenize(self, query: str, passages: Sequence[str], options: RerankerOptions, truncate: bool = True) -> list[FlagPair]:
        counted = self._tokenizer.encode_pairs(query, passages, truncate=truncate)
        return [FlagPair(query, passage, tokens.cost, tokens.truncated, options) for passage, tokens in zip(passages, counted, strict=True)]

    def forward(self, items: Sequence[FlagPair]) -> list[PairScore]:
        scores: list[PairScore] = [PairScore(0.0)] * len(items)
        for places in _groups([(item.options.prompt, item.options.instruction) for item in items]):
            options = items[places[0]].options
            more = {"prompt": options.prompt} if "prompt" in self.info.options else {}
            if "instruction" in self.info.options:
                self._model.query_instruction_for_rerank = QUERY_INSTRUCTION if options.instruction is None else options.instruction
            pairs = [(items[i].query, items[i].passage) for i in places]
            found = self._model.compute_score(pairs, batch_size=len(pairs) + 1, max_length=self.info.max_tokens, **more)
            for i, score in zip(places, found, strict=True):
                scores[i] = PairScore(float(score))
        return scores

    def normalize(self, score: float) -> float:
        return sigmoid(score)


def _groups(keys: Sequence[Hashable]) -> Iterator[list[int]]:
    """Places with equal keys: FlagEmbedding takes one prompt for a whole call."""
    places: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    yield from places.values()


def load_flag_embedder(settings: EmbedderSettings) -> FlagEmbedder:
    """Raises CheckpointError, SettingsError."""
    folder = locate(settings.model, settings.revision)
    row = find_embedder(settings.like or settings.model)
    examples = [Example(one.query, one.response, one.instruction) for one in settings.examples]
    prompt = QueryPrompt.of(row, settings.query_instruction, query_prompt_of(folder), examples)
    pooling = pooling_of(folder) or (row.pooling if row else "cls")
    max_tokens = settings.max_tokens or max_tokens_of(folder, row.max_tokens if row else None) or DEFAULT_MAX_TOKENS
    class_name = _embedder_class(folder, row, pooling)
    document_prefix = row.document_instruction if row else ""
    formats = {"query_instruction_format": prompt.query_format, "passage_instruction_for_retrieval": document_prefix}
    model = _construct(class_name, folder, settings, pooling_method=pooling, passage_instruction_format="{}{}", **formats)
    probe = model.encode_corpus(["a"])
    dimensions = int((probe["dense_vecs"] if class_name == "BGEM3FlagModel" else probe).shape[-1])
    content = (*weight_files_of(folder), *head_files_of(folder))
    info = EmbedderInfo(
        model=settings.model,
        family="flagembedding",
        pooling=pooling,
        dimensions=dimensions,
        outputs=OUTPUTS if class_name == "BGEM3FlagModel" else ("dense",),
        max_tokens=max_tokens,
        fingerprint=fingerprint(content, pooling=pooling, dimensions=dimensions, prefixes=(prompt.prefix, document_prefix)),
        options=("instruction", "examples") if prompt.example_format else ("instruction",),
    )
    return FlagEmbedder(info, Tokenizer(folder, max_tokens), model, prompt)


def _embedder_class(folder: Path, row: EmbedderRow | None, pooling: str) -> str:
    if (folder / SPARSE_HEAD).is_file():
        return "BGEM3FlagModel"
    if row is not None and row.example_format:
        return "FlagICLModel"
    return "FlagLLMModel" if pooling == "last_token" else "FlagModel"


def load_flag_scorer(settings: RerankerSettings) -> FlagScorer:
    """Raises CheckpointError, SettingsError."""
    folder = locate(settings.model, settings.revision)
    row = find_reranker(settings.like or settings.model)
    kind = reranker_kind_of(folder)
    if kind in ("layerwise", "lightweight"):
        raise SettingsError(f"{settings.model}: FlagEmbedding's {kind} class needs transformers 4; use engine: packed", field="engine")
    max_tokens = settings.max_tokens or max_tokens_of(folder, row.max_tokens if row else None) or DEFAULT_MAX_TOKENS
    model = _construct("FlagLLMReranker" if kind == "llm" else "FlagReranker", folder, settings)
    options = ("instruction", "prompt") if kind == "llm" else ()
    return FlagScorer(RerankerInfo(settings.model, "flagembedding", kind, max_tokens, options), Tokenizer(folder, max_tokens), model)


def _construct(class_name: str, folder: Path, settings: ModelSettings, **more: Any) -> Any:
    device = choose_device(settings)
    dtype = choose_dtype(settings.dtype, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import FlagEmbedding

        try:
            return getattr(FlagEmbedding, class_name)(
                str(folder),
                use_fp16=dtype == torch.float16,
                use_bf16=dtype == torch.bfloat16,
                devices=str(device),
                trust_remote_code=False,
                **more,
            )
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{folder}: FlagEmbedding's {class_name} cannot load it: {error}") from error
