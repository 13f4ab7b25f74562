"""Checkpoints with random weights in the shapes of published models, for machines that a model hub is out of reach of: what a forward costs
does not depend on the weights' values.

    python -m benchmarks.random_checkpoints bge-m3 FOLDER [--width 512] [--layers 6]    # writes FOLDER/bge-m3

`--width`: as many layers and as large a vocabulary, but fewer heads and narrower layers in the same proportions, where the real one does
not fit. Weights are written one shard at a time, so making a checkpoint needs the memory of a shard.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.random_tokens import TokenizerKind, save_tokenizer
from bgeserve.catalog import find_embedder, find_reranker
from bgeserve.models.hub import MULTI_VECTOR_HEAD, SPARSE_HEAD, locate
from bgeserve.models.layer_scorer import scorer_class

RANDOM = "random:"
SHARD_BYTES = 10**9
"""A tensor that is larger makes a shard of its own."""

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How a checkpoint differs from the published one; None: it does not."""

    width: int | None = None
    layers: int | None = None


@contextmanager
def located(model: str, keep: Path | None = None, size: Size | None = None) -> Iterator[str]:
    """The folder of a model; of `random:NAME` one that is made, in `keep` (where a second call finds it) or for the time of the context."""
    if not model.startswith(RANDOM):
        yield str(locate(model))
    elif keep is not None:
        yield str(make_checkpoint(model.removeprefix(RANDOM), keep, size))
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield str(make_checkpoint(model.removeprefix(RANDOM), Path(folder), size))


def make_checkpoint(name: str, parent: Path, size: Size | None = None, shard_bytes: int = SHARD_BYTES) -> Path:
    """`parent`/name, by which the catalogue knows it. One that is there and of the same configuration is left as it is."""
    row = find_embedder(name) or find_reranker(name)
    if row is None or name not in _SHAPES:
        raise SystemExit(f"no shape of {name!r} is known; these are: {', '.join(_SHAPES)}")
    folder = parent / name
    folder.mkdir(parents=True, exist_ok=True)
    shape = _SHAPES[name]
    config = _sized(shape, size or Size())
    config |= save_tokenizer(folder, _TOKENIZERS.get(shape["model_type"], "bytes"), row.max_tokens)
    file = folder / "config.json"
    if not file.is_file() or json.loads(file.read_text()) != config:
        file.unlink(missing_ok=True)
        _save_weights(folder, config, shard_bytes)
        if (row := find_embedder(name)) is not None:
            _save_modules(folder, row.pooling, row.max_tokens, config["hidden_size"])
            if "sparse" in row.outputs:
                _save_linear(folder / SPARSE_HEAD, 1, config["hidden_size"])
                _save_linear(folder / MULTI_VECTOR_HEAD, config["hidden_size"], config["hidden_size"])
        file.write_text(json.dumps(config))  # last: it says that the rest is there
    return folder


def _sized(shape: Mapping[str, Any], size: Size) -> Config:
    config = dict(shape)
    if size.layers is not None:
        config["num_hidden_layers"] = size.layers
    if size.width is not None:
        part = size.width / config["hidden_size"]
        for count in ("num_attention_heads", "num_key_value_heads"):
            if count in config:
                config[count] = max(1, round(config[count] * part))
        config |= {"hidden_size": size.width, "intermediate_size": round(config["intermediate_size"] * part)}
    return config


def _save_weights(folder: Path, config: Config, shard_bytes: int) -> None:
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    shards: list[list[tuple[str, torch.Size]]] = [[]]
    filled = 0
    for name, shape in _parameters(folder, config):
        size = 4 * shape.numel()
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += size
    generator = torch.Generator().manual_seed(0)
    files: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: _random(name, shape, generator) for name, shape in shard}, folder / file, {"format": "pt"})
        files |= {name: file for name, _ in shard}
    if len(shards) > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def _parameters(folder: Path, config: Config) -> list[tuple[str, torch.Size]]:
    """Names and shapes as the model's own class has them; nothing is allocated."""
    architecture: str = config["architectures"][0]
    with torch.device("meta"):
        if config["model_type"] in ("minicpm", "cost_wise_gemma"):
            kind, own = scorer_class(folder, config)
            model = kind(own)
        else:
            auto: Any = AutoModel
            if architecture.endswith("ForCausalLM"):
                auto = AutoModelForCausalLM
            elif architecture.endswith("ForSequenceClassification"):
                auto = AutoModelForSequenceClassification
            model = auto.from_config(AutoConfig.for_model(**{"num_labels": 1, **config}))
    return [(name, parameter.shape) for name, parameter in model.named_parameters()]  # a tied head is not named twice


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5)


def _save_linear(file: Path, out_features: int, in_features: int) -> None:
    torch.save({"weight": torch.randn(out_features, in_features) * in_features**-0.5, "bias": torch.zeros(out_features)}, file)


def _save_modules(folder: Path, pooling: str, max_tokens: int, hidden_size: int) -> None:
    """What sentence-transformers reads."""
    kinds = enumerate((("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")))
    modules = [{"idx": i, "name": str(i), "path": at, "type": f"sentence_transformers.models.{kind}"} for i, (at, kind) in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooled = {"embedding_dimension": hidden_size, "pooling_mode": pooling.replace("last_token", "lasttoken")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooled))


def _bert(layers: int, hidden: int, heads: int, vocabulary: int) -> Config:
    return {
        "model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": layers, "hidden_size": hidden,
        "num_attention_heads": heads, "intermediate_size": 4 * hidden, "vocab_size": vocabulary, "max_position_embeddings": 512,
    }  # fmt: skip


def _xlm_roberta(layers: int, hidden: int, tokens: int, architecture: str = "XLMRobertaModel") -> Config:
    config = _bert(layers, hidden, hidden // 64, 250_002)
    own = {"max_position_embeddings": tokens + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return config | own | {"model_type": "xlm-roberta", "architectures": [architecture]}


def _decoder(model_type: str, architecture: str, layers: int, hidden: int, heads: tuple[int, int], inner: int, words: int) -> Config:
    return {
        "model_type": model_type, "architectures": [architecture], "num_hidden_layers": layers, "hidden_size": hidden,
        "num_attention_heads": heads[0], "num_key_value_heads": heads[1], "intermediate_size": inner, "vocab_size": words,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "attention_bias": False,
    }  # fmt: skip


_TOKENIZERS: Mapping[str, TokenizerKind] = {"bert": "wordpiece", "xlm-roberta": "unigram"}
_CLASSIFIER = "XLMRobertaForSequenceClassification"
_SIZES = {"small": (12, 384, 12), "base": (12, 768, 12), "large": (24, 1024, 16)}
_SIZES_ZH = {**_SIZES, "small": (4, 512, 8)}
_SHAPES: Mapping[str, Config] = {
    "bge-m3": _xlm_roberta(24, 1024, 8192),
    "bge-m3-unsupervised": _xlm_roberta(24, 1024, 8192),
    **{f"bge-{size}-en{version}": _bert(*shape, 30_522) for size, shape in _SIZES.items() for version in ("", "-v1.5")},
    **{f"bge-{size}-zh{version}": _bert(*shape, 21_128) for size, shape in _SIZES_ZH.items() for version in ("", "-v1.5")},
    "llm-embedder": _bert(*_SIZES["base"], 30_522),
    "bge-reranker-base": _xlm_roberta(12, 768, 512, _CLASSIFIER),
    "bge-reranker-large": _xlm_roberta(24, 1024, 512, _CLASSIFIER),
    "bge-reranker-v2-m3": _xlm_roberta(24, 1024, 8192, _CLASSIFIER),
    "bge-code-v1": _decoder("qwen2", "Qwen2Model", 28, 1536, (12, 2), 8960, 151_936),
    "bge-reranker-v2-gemma": _decoder("gemma", "GemmaForCausalLM", 18, 2048, (8, 1), 16_384, 256_000)
    | {"head_dim": 256, "hidden_act": "gelu_pytorch_tanh"},
    "bge-reranker-v2-minicpm-layerwise": _decoder("minicpm", "LayerWiseMiniCPMForCausalLM", 40, 2304, (36, 36), 5760, 122_753)
    | {"start_layer": 8, "head_multi": True, "head_type": "simple", "scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4},
    "bge-reranker-v2.5-gemma2-lightweight": _decoder("cost_wise_gemma", "CostWiseGemmaForCausalLM", 42, 3584, (16, 8), 14_336, 256_000)
    | {"head_dim": 256, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    | {"sliding_window": 4096, "start_layer": 8, "layer_sep": 1, "layer_wise": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=_SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, help="hidden size; default: the published one")
    parser.add_argument("--layers", type=int, help="default: as many as published")
    arguments = parser.parse_args()
    print(make_checkpoint(arguments.name, arguments.folder, Size(arguments.width, arguments.layers)))


if __name__ == "__main__":
    main()
