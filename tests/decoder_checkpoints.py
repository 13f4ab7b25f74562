"""Makes tiny random checkpoints on disk, in the file layout of BGE's decoder models, for tests that load them by the real code.

Nothing but numpy, tokenizers and the two weight formats writes them: `config.json` is a literal, and every weight comes from SHAKE-256 of
its own name, so they are the same on every machine and under every torch and transformers. That is what lets golden scores, made once in
an old environment (tests/golden/make_golden.py), hold here. Weights are scaled so that results differ: logits of different pairs have a
standard deviation of at least 1 at every layer, vectors of different texts a cosine below 0.9, and soft caps and windows bind.

    python -m tests.decoder_checkpoints FOLDER    # all of them, each in a folder of its own
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.checkpoints import TEXTS

YES_NO_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a prediction of either "
    "'Yes' or 'No'."
)
PREDICT_PROMPT = "Predict whether passage B contains an answer to query A."
_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query."

Weights = dict[str, NDArray[np.float32]]

_HIDDEN = 48
_NO_MAXIMUM = 1000000000000000019884624838656  # transformers' "unlimited", which published decoders state as model_max_length
_QWEN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def make_gemma_reranker(path: Path, *, max_tokens: int = 1024, seed: int = 0) -> Path:
    """Like bge-reranker-v2-gemma: the "Yes" logit of a causal language model, whose head is its embedding."""
    config = _config("gemma", "GemmaForCausalLM", _gemma_tokens(), max_tokens, num_key_value_heads=1, head_dim=16, hidden_act="gelu")
    weights = _decoder_weights(config, "model.", seed, embedding=0.3)
    return _save(path, config, weights, _gemma_tokens(), _GEMMA)


def make_minicpm_layerwise(path: Path, *, layers: int = 6, start_layer: int = 2, max_tokens: int = 1024, seed: int = 0) -> Path:
    """Like bge-reranker-v2-minicpm-layerwise: a head of one value per layer. `rope_scaling` is null there too; heads are not grouped."""
    own = {"start_layer": start_layer, "head_multi": True, "head_type": "simple", "scale_emb": 12, "dim_model_base": 16, "scale_depth": 1.4}
    config = _config(
        "minicpm", "LayerWiseMiniCPMForCausalLM", _llama_tokens(), max_tokens, num_hidden_layers=layers, num_key_value_heads=4,
        rope_scaling=None, pretraining_tp=1, rms_norm_eps=1e-5, tie_word_embeddings=False, **own,
    )  # fmt: skip
    weights = _decoder_weights(config, "model.", seed, embedding=0.1) | _layer_heads(config, seed)
    return _save(path, config, weights, _llama_tokens(), _LLAMA)


def make_gemma2_lightweight(path: Path, *, layers: int = 6, start_layer: int = 2, max_tokens: int = 1024, seed: int = 0) -> Path:
    """Like bge-reranker-v2.5-gemma2-lightweight: Gemma2 with a head of one value per layer, whose passage may be compressed."""
    own = {"start_layer": start_layer, "layer_sep": 1, "layer_wise": True, "num_hidden_layers": layers, **_GEMMA2}
    config = _config("cost_wise_gemma", "CostWiseGemmaForCausalLM", _gemma_tokens(), max_tokens, **own)
    weights = _decoder_weights(config, "model.", seed, embedding=0.15) | _layer_heads(config, seed)
    return _save(path, config, weights, _gemma_tokens(), _GEMMA)


def make_gemma2_embedder(path: Path, *, max_tokens: int = 1024, seed: int = 0) -> Path:
    """Like bge-multilingual-gemma2, in two shards as the large ones are: <bos> text <eos>, pooled at <eos>."""
    config = _config("gemma2", "Gemma2Model", _gemma_tokens(), max_tokens, **_GEMMA2)
    _save(path, config, _decoder_weights(config, "", seed, embedding=0.15), _gemma_tokens(), _GEMMA | {"add_eos_token": True}, shards=2)
    return _save_sentence_transformers(path, max_tokens, {"web_search_query": f"<instruct>{_WEB_SEARCH}\n<query>"})


def make_mistral_embedder(path: Path, *, max_tokens: int = 1024, seed: int = 0) -> Path:
    """Like bge-en-icl, with a window that binds, as pytorch_model.bin: <s> text </s>, pooled at </s>."""
    config = _config("mistral", "MistralModel", _llama_tokens(), max_tokens, sliding_window=24)
    tokenizer_config = _LLAMA | {"add_eos_token": True}
    _save(path, config, _decoder_weights(config, "", seed), _llama_tokens(), tokenizer_config, pickled=True)
    return _save_sentence_transformers(path, max_tokens, None)


def make_qwen2_embedder(path: Path, *, max_tokens: int = 1024, seed: int = 0) -> Path:
    """Like bge-code-v1: biased projections, byte-level tokens, pooled at <|endoftext|>, which only the post-processor appends."""
    config = _config("qwen2", "Qwen2Model", _qwen_tokens(), max_tokens, **_NO_WINDOW)
    _save(path, config, _decoder_weights(config, "", seed), _qwen_tokens(), _QWEN)
    return _save_sentence_transformers(path, None, {"query": f"<instruct>{_WEB_SEARCH}\n<query>"})


def make_qwen3_embedder(path: Path, *, max_tokens: int = 1024, seed: int = 0) -> Path:
    """Like bge-reasoner-embed-qwen3 and Qwen3-Embedding: normed queries and keys, and a head size of its own."""
    config = _config("qwen3", "Qwen3Model", _qwen_tokens(), max_tokens, head_dim=16, **_NO_WINDOW)
    _save(path, config, _decoder_weights(config, "", seed), _qwen_tokens(), _QWEN)
    return _save_sentence_transformers(path, None, {"query": f"Instruct: {_WEB_SEARCH}\nQuery: ", "document": ""})


MAKERS = (
    make_gemma_reranker, make_minicpm_layerwise, make_gemma2_lightweight, make_gemma2_embedder, make_mistral_embedder,
    make_qwen2_embedder, make_qwen3_embedder,
)  # fmt: skip

_GEMMA2: dict[str, Any] = {
    "head_dim": 16, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 30.0, "sliding_window": 16,
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "cache_implementation": "hybrid",
}  # fmt: skip

_NO_WINDOW: dict[str, Any] = {"use_sliding_window": False, "sliding_window": None, "rms_norm_eps": 1e-6}


def _config(model_type: str, architecture: str, tokens: Tokenizer, max_tokens: int, **own: Any) -> dict[str, Any]:
    """As transformers 4 wrote it, as the published ones are: `rope_theta` and `torch_dtype` at the top."""
    ids = {f"{name}_token_id": tokens.token_to_id(token) for name, token in _special(tokens).items()}
    return {
        "architectures": [architecture], "model_type": model_type, "vocab_size": tokens.get_vocab_size(), "hidden_size": _HIDDEN,
        "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
        "max_position_embeddings": max_tokens, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "attention_bias": False,
        "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True, "torch_dtype": "float32",
        "transformers_version": "4.46.3", **ids, **own,
    }  # fmt: skip


def _decoder_weights(config: Mapping[str, Any], prefix: str, seed: int, *, embedding: float = 1.0) -> Weights:
    """Of every parameter of the family; queries and keys are large, so that attention is uneven and its soft cap binds."""
    gemma = "gemma" in config["model_type"]  # whose norms multiply by 1 + weight
    sharpness = 2.0 if gemma else 1.3  # where nothing caps attention, more of it makes rounding errors grow past the tests' tolerance
    weights: Weights = {}
    for name, shape in _parameters(config):
        std, centre = 0.3, 0.0
        if name.endswith("norm.weight"):
            centre = 0.0 if gemma else 1.3 if "self_attn" in name else 1.0
        elif name == "embed_tokens.weight":
            std = embedding
        elif not name.endswith("bias"):
            std = (sharpness if "q_proj" in name or "k_proj" in name else 1.5) / math.sqrt(shape[1])
        weights[prefix + name] = _values(f"{seed} {prefix}{name}", shape, std, centre)
    return weights


def _parameters(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner, kind = config["hidden_size"], config["intermediate_size"], config["model_type"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind in ("gemma2", "cost_wise_gemma"):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    yield "embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in (f"layers.{i}." for i in range(config["num_hidden_layers"])):
        yield from ((f"{layer}{norm}.weight", (hidden,)) for norm in norms)
        for letter, size in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{layer}self_attn.{letter}_proj.weight", (size, hidden)
            if kind == "qwen2":
                yield f"{layer}self_attn.{letter}_proj.bias", (size,)
        yield f"{layer}self_attn.o_proj.weight", (hidden, queries)
        if kind == "qwen3":
            yield from ((f"{layer}self_attn.{letter}_norm.weight", (head,)) for letter in "qk")
        yield from ((f"{layer}mlp.{name}_proj.weight", (inner, hidden)) for name in ("gate", "up"))
        yield f"{layer}mlp.down_proj.weight", (hidden, inner)
    yield "norm.weight", (hidden,)


def _layer_heads(config: Mapping[str, Any], seed: int) -> Weights:
    names = [f"lm_head.{i}.linear_head.weight" for i in range(config["num_hidden_layers"] + 1 - config["start_layer"])]
    return {name: _values(f"{seed} {name}", (1, config["hidden_size"]), std=0.6) for name in names}


def _values(key: str, shape: tuple[int, ...], std: float, centre: float = 0.0) -> NDArray[np.float32]:
    """Nearly normal: sums of four 16-bit integers (standard deviation 37,837), exact in every floating-point unit."""
    count = math.prod(shape)
    integers = np.frombuffer(hashlib.shake_256(key.encode()).digest(8 * count), "<u2").reshape(count, 4)
    sums = integers.sum(axis=1, dtype=np.int64) - 2 * 65_535
    return (centre + sums * (std / 37_837)).astype(np.float32).reshape(shape)


def _save(
    path: Path, config: Mapping[str, Any], weights: Weights, tokens: Tokenizer, tokenizer_config: Mapping[str, Any],
    *, shards: int = 1, pickled: bool = False,
) -> Path:  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    _write(path / "config.json", config)
    names = list(weights)
    if pickled:
        torch.save({name: torch.from_numpy(weights[name]) for name in names}, path / "pytorch_model.bin")
    elif shards == 1:
        save_file(weights, path / "model.safetensors", {"format": "pt"})
    else:
        files = {name: f"model-{i * shards // len(names) + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
        for file in sorted(set(files.values())):
            save_file({name: weights[name] for name in names if files[name] == file}, path / file, {"format": "pt"})
        total = sum(array.nbytes for array in weights.values())
        _write(path / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": files})
    _save_tokens(path, tokens, tokenizer_config)
    return path


def _save_tokens(path: Path, tokens: Tokenizer, tokenizer_config: Mapping[str, Any]) -> None:
    """`add_bos_token` and `add_eos_token` are there only where the class obeys them, and say what tokenizer.json says."""
    saved = Tokenizer.from_str(tokens.to_str())
    special = _special(tokens)
    if tokenizer_config.get("add_bos_token"):
        saved.post_processor = _template(tokens, special["bos"], special["eos"] if tokenizer_config["add_eos_token"] else None)
    saved.save(str(path / "tokenizer.json"))
    named = {f"{name}_token": token for name, token in special.items()}
    added = {
        str(i): {"content": token.content, "special": True, **dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)}
        for i, token in saved.get_added_tokens_decoder().items()
    }
    common = {"added_tokens_decoder": added, "model_max_length": _NO_MAXIMUM, "clean_up_tokenization_spaces": False}
    _write(path / "special_tokens_map.json", named)
    _write(path / "tokenizer_config.json", {**common, **named, **tokenizer_config})


def _save_sentence_transformers(path: Path, max_tokens: int | None, prompts: Mapping[str, str] | None) -> Path:
    kinds = enumerate((("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")))
    modules = [{"idx": i, "name": str(i), "path": at, "type": f"sentence_transformers.models.{kind}"} for i, (at, kind) in kinds]
    _write(path / "modules.json", modules)
    (path / "1_Pooling").mkdir(exist_ok=True)
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    pooling = {f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes}
    _write(path / "1_Pooling" / "config.json", {"word_embedding_dimension": _HIDDEN, **pooling, "include_prompt": True})
    if max_tokens is not None:
        _write(path / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    if prompts is not None:
        _write(path / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    return path


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


_GEMMA: dict[str, Any] = {"tokenizer_class": "GemmaTokenizer", "padding_side": "left", "add_bos_token": True, "add_eos_token": False}
_LLAMA: dict[str, Any] = {
    "tokenizer_class": "LlamaTokenizer", "padding_side": "left", "add_bos_token": True, "add_eos_token": False, "legacy": True,
}  # fmt: skip
_QWEN: dict[str, Any] = {"tokenizer_class": "Qwen2Tokenizer", "padding_side": "left", "errors": "replace", "split_special_tokens": False}
_CORPUS = [*TEXTS, *[YES_NO_PROMPT, PREDICT_PROMPT, _WEB_SEARCH, "A: \nB: ", "Yes", "No", "<instruct>\n<query>\n<response>"] * 4]


def _special(tokens: Tokenizer) -> dict[str, str]:
    if tokens.token_to_id("<|endoftext|>") is not None:
        return {"eos": "<|endoftext|>", "pad": "<|endoftext|>"}
    if tokens.token_to_id("<bos>") is not None:
        return {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>"}
    return {"bos": "<s>", "eos": "</s>", "pad": "<unk>", "unk": "<unk>"}


@cache
def _gemma_tokens() -> Tokenizer:
    return _byte_fallback(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"), prefix=[], strip=[])


@cache
def _llama_tokens() -> Tokenizer:
    return _byte_fallback(("<unk>", "<s>", "</s>"), prefix=[normalizers.Prepend("▁")], strip=[decoders.Strip(" ", 1, 0)])


def _byte_fallback(special: Sequence[str], prefix: list[Any], strip: list[Any]) -> Tokenizer:
    """SentencePiece's order: special tokens, bytes, pieces. Learned word by word, as SentencePiece does, but nothing splits afterwards."""
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    words = [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Punctuation("isolated")]
    learned.pre_tokenizer = pre_tokenizers.Sequence(words)
    learned.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=800, show_progress=False))
    model = json.loads(learned.to_str())["model"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in model["merges"]]
    tokens = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokens.add_special_tokens(list(special))
    space = normalizers.Replace(" ", "▁")
    tokens.normalizer = normalizers.Sequence([*prefix, space]) if prefix else space
    tokens.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return tokens


@cache
def _qwen_tokens() -> Tokenizer:
    tokens = Tokenizer(models.BPE())
    tokens.normalizer = normalizers.NFC()
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"), bytes_])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokens.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False))
    tokens.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])  # above the others, as Qwen's are
    tokens.decoder = decoders.ByteLevel()
    tokens.post_processor = _template(tokens, None, "<|endoftext|>")
    return tokens


def _template(tokens: Tokenizer, before: str | None, after: str | None) -> processors.TemplateProcessing:
    around = [(token, tokens.token_to_id(token)) for token in (before, after) if token is not None]
    single = " ".join(filter(None, (before, "$A", after)))
    pair = " ".join(filter(None, (single, f"{before}:1" if before else None, "$B:1", f"{after}:1" if after else None)))
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=around)


if __name__ == "__main__":
    for make in MAKERS:
        make(Path(sys.argv[1]) / make.__name__.removeprefix("make_"))
