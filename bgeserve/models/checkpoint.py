"""What a model's own files say about it.

Knows file names and JSON. Does not load weights and does not know settings. What is wrong is a CheckpointError that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from safetensors import SafetensorError, safe_open

from bgeserve.catalog import Family, Pooling, RerankerKind
from bgeserve.errors import CheckpointError
from bgeserve.models.hub import MULTI_VECTOR_HEAD, SPARSE_HEAD, locate
from bgeserve.models.packing import PositionScheme
from bgeserve.types import Role

_KINDS: Mapping[str, RerankerKind] = {"LayerWiseMiniCPMForCausalLM": "layerwise", "CostWiseGemmaForCausalLM": "lightweight"}

_POOLINGS: Mapping[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}
_LEGACY_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
ADAPTER_CONFIG = "adapter_config.json"
_UNSTATED_TOKENS = 10**9
"""Tokenizer files say 10^30 where they mean no limit."""
_SOFT_CAPPED: Mapping[Family, float] = {"gemma2": 50.0, "cost_wise_gemma": 50.0}
"""Families that bend attention scores, with what holds where config.json is silent."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    folder: Path
    adapter: Path | None
    """Folder of a LoRA adapter over these weights."""
    config: Mapping[str, Any]
    family: Family
    architecture: str
    """transformers' class that the weights were saved from; empty where config.json is silent."""
    positions: PositionScheme
    weight_files: tuple[Path, ...]
    pooling: Pooling | None
    """As its sentence-transformers files say; None where it has none."""
    max_tokens: int
    """What its files recommend, special tokens included."""
    most_tokens: int
    """What it has positions for."""
    query_prompt: str | None
    """Of its sentence-transformers files; None where they have none."""

    @staticmethod
    def read(folder: Path, row_max_tokens: int | None = None) -> Checkpoint:
        """What the folder's files say; `row_max_tokens`, of the catalogue, counts more than the tokenizer's files, which often say nothing
        sensible, and less than sentence_bert_config.json. Of a LoRA adapter: its base's files."""
        if (folder / ADAPTER_CONFIG).is_file():
            return replace(Checkpoint.read(_base_of(folder), row_max_tokens), adapter=folder)
        config: dict[str, Any] = _read_json(folder / "config.json", dict)
        if absent := [key for key in ("hidden_size", "max_position_embeddings", "vocab_size") if not isinstance(config.get(key), int)]:
            raise CheckpointError(f"{folder / 'config.json'} lacks {absent}")
        family = _family(folder, config)
        positions = PositionScheme(int(config.get("pad_token_id", 1)) if family == "xlm-roberta" else None)
        most_tokens = int(config["max_position_embeddings"]) - positions.first
        return Checkpoint(
            folder=folder,
            adapter=None,
            config=config,
            family=family,
            architecture=_architecture(config),
            positions=positions,
            weight_files=weight_files_of(folder),
            pooling=pooling_of(folder),
            max_tokens=min(max_tokens_of(folder, row_max_tokens) or most_tokens, most_tokens),
            most_tokens=most_tokens,
            query_prompt=query_prompt_of(folder),
        )

    @property
    def hidden_size(self) -> int:
        return int(self.config["hidden_size"])

    @property
    def soft_caps_attention(self) -> bool:
        default = _SOFT_CAPPED.get(self.family)
        return default is not None and self.config.get("attn_logit_softcapping", default) is not None

    @property
    def is_causal(self) -> bool:
        """Whether its tokens see only those before them, so that the last one says most."""
        return self.family not in ("bert", "xlm-roberta")

    @property
    def reranker_kind(self) -> RerankerKind:
        """As the class says that the weights were saved from."""
        return _reranker_kind(self.architecture)

    @property
    def tokenizer_folder(self) -> Path:
        own = self.adapter is not None and (self.adapter / "tokenizer.json").is_file()
        return self.adapter if own and self.adapter is not None else self.folder

    @property
    def content_files(self) -> tuple[Path, ...]:
        """What makes its numbers: weights, heads beside them, and an adapter's weights."""
        adapter = () if self.adapter is None else tuple(sorted(self.adapter.glob("adapter_model.*")))
        return (*self.weight_files, *head_files_of(self.folder), *adapter)


def head_files_of(folder: Path) -> tuple[Path, ...]:
    """Those of BGE-M3's two heads that are there."""
    return tuple(file for name in (SPARSE_HEAD, MULTI_VECTOR_HEAD) if (file := folder / name).is_file())


def role_of(folder: Path) -> Role:
    """What a checkpoint without a row is for: language models and classifiers score, bare transformers embed."""
    if (folder / ADAPTER_CONFIG).is_file():
        folder = _base_of(folder)
    architecture = _architecture(_read_json(folder / "config.json", dict))
    return "reranker" if architecture.endswith(("ForCausalLM", "ForSequenceClassification")) else "embedder"


def reranker_kind_of(folder: Path) -> RerankerKind:
    return _reranker_kind(_architecture(_read_json(folder / "config.json", dict)))


def _architecture(config: Mapping[str, Any]) -> str:
    return (config.get("architectures") or [""])[0]


def _reranker_kind(architecture: str) -> RerankerKind:
    return _KINDS.get(architecture, "llm") if architecture.endswith("ForCausalLM") else "cross_encoder"


def _family(folder: Path, config: Mapping[str, Any]) -> Family:
    family = config.get("model_type")
    if family not in get_args(Family):
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {family!r}; known here: {', '.join(get_args(Family))}")
    if (position_type := config.get("position_embedding_type", "absolute")) != "absolute":
        raise CheckpointError(f"{folder / 'config.json'}: position_embedding_type is {position_type!r}; only absolute is known here")
    return cast(Family, family)


def weight_files_of(folder: Path) -> tuple[Path, ...]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map: dict[str, str] = _read_json(index, dict).get("weight_map", {})
            files = tuple(folder / shard for shard in sorted(set(weight_map.values())))
        elif (folder / name).is_file():
            files = (folder / name,)
        else:
            continue
        for file in files:
            _check_whole(file)
        return files
    raise CheckpointError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, nor an index of either")


def _check_whole(file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: the index of the weights names it")
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="numpy"):  # checks the header against the file's length
                pass
        except SafetensorError as error:
            raise CheckpointError(f"{file} is not whole: {error}") from error


def pooling_of(folder: Path) -> Pooling | None:
    if not (folder / "modules.json").is_file():
        return None
    pooling: Pooling | None = None
    for module in cast(list[dict[str, str]], _read_json(folder / "modules.json", list)):
        kind = module.get("type", "").rpartition(".")[2]
        if kind == "Pooling":
            pooling = _read_pooling(folder / module.get("path", "") / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise CheckpointError(f"{folder / 'modules.json'}: module {kind!r} is not known here (Transformer, Pooling, Normalize are)")
    return pooling


def _read_pooling(file: Path) -> Pooling:
    config: dict[str, Any] = _read_json(file, dict)
    modes = config.get("pooling_mode") or [mode for key, mode in _LEGACY_POOLING_KEYS.items() if config.get(key)]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise CheckpointError(f"{file}: pooling is {modes}; exactly one of {sorted(_POOLINGS)} is known here")
    return _POOLINGS[modes[0]]


def max_tokens_of(folder: Path, row_max_tokens: int | None) -> int | None:
    # sentence_bert_config.json first: tokenizer files of published models disagree with it, and it is what users of the model get.
    by_tokenizer = _optional_json(folder / "tokenizer_config.json").get("model_max_length")
    if by_tokenizer is not None and by_tokenizer > _UNSTATED_TOKENS:
        by_tokenizer = None
    return _optional_json(folder / "sentence_bert_config.json").get("max_seq_length") or row_max_tokens or by_tokenizer


def _base_of(adapter: Path) -> Path:
    base = _read_json(adapter / ADAPTER_CONFIG, dict).get("base_model_name_or_path")
    if not isinstance(base, str):
        raise CheckpointError(f"{adapter / ADAPTER_CONFIG} lacks base_model_name_or_path")
    try:
        return locate(base)
    except CheckpointError as error:
        raise CheckpointError(f"{adapter / ADAPTER_CONFIG}: its base {base!r} cannot be had: {error.message}") from error


def query_prompt_of(folder: Path) -> str | None:
    return _optional_json(folder / "config_sentence_transformers.json").get("prompts", {}).get("query")


def _optional_json(file: Path) -> dict[str, Any]:
    return _read_json(file, dict) if file.is_file() else {}


def _read_json(file: Path, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, kind):
        raise CheckpointError(f"{file} holds a JSON {type(content).__name__}; expected a {kind.__name__}")
    return content
