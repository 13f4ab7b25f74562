"""Makes tiny random checkpoints on disk, in the file layout of the published models, for tests that load them by the real code.

Their weights are scaled so that results differ (tests/models/test_checkpoints.py asserts it): logits have a standard deviation of at
least 1, vectors of different texts a cosine below 0.9. With transformers' own initial scale every vector is nearly the same, and a wrong
position or pooling would go unseen.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

from bgeserve.models.verification import TEXTS as VERIFIED

TEXTS = (
    "how do I parse command line arguments",
    "The quick brown fox jumps over the lazy dog.",
    "Read and write gzip compressed files, one at a time or many.",
    "A temporary directory that is deleted afterwards (even when the program fails).",
    "Embeddings map texts to vectors; rerankers score pairs of texts.",
    "今天天气很好，我们去公园散步。",
    "向量检索和重排序是搜索系统的两个阶段。",
    "النص العربي يُكتب من اليمين إلى اليسار",
    "खोज इंजन दस्तावेज़ों को क्रम देता है",
    "ภาษาไทยเขียนโดยไม่มีช่องว่างระหว่างคำ",
    "Пример текста на русском языке",
    "日本語の文章を検索する",
    "naïve café, 20.5 % of 1,000 items & more!",
    "👩‍👩‍👧‍👦 emoji 🙂 and symbols ∑ ≈ €",
    "def compress(data, level=9): return zlib.compress(data, level)",
)
"""What the tokenizers' pieces are from; also a handy set of different texts."""

_SIZE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "initializer_range": 0.25,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


def make_bert(path: Path, *, pooling: str | None = "cls", max_tokens: int = 512, seed: int = 0) -> Path:
    """A BERT embedder with a WordPiece tokenizer, like bge-*-en and -zh. `pooling`: cls, mean, lasttoken; None leaves its files out."""
    tokenizer = _wordpiece()
    _save_model(path, BertModel, BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=max_tokens, **_SIZE), seed)
    _save_wordpiece(path, tokenizer, max_tokens)
    if pooling is not None:
        _save_sentence_transformers(path, pooling, max_tokens)
    return path


def make_xlm_roberta(path: Path, *, pooling: str | None = "cls", max_tokens: int = 512, seed: int = 0) -> Path:
    """An XLM-RoBERTa embedder with a Unigram tokenizer, like multilingual-e5 or bce-embedding."""
    tokenizer = _unigram()
    _save_model(path, XLMRobertaModel, _xlm_roberta_config(tokenizer, max_tokens), seed)
    _save_unigram(path, tokenizer, max_tokens)
    if pooling is not None:
        _save_sentence_transformers(path, pooling, max_tokens)
    return path


def make_bge_m3(path: Path, *, max_tokens: int = 1024, seed: int = 0) -> Path:
    """An XLM-RoBERTa encoder with BGE-M3's two heads, sparse_linear.pt and colbert_linear.pt."""
    make_xlm_roberta(path, max_tokens=max_tokens, seed=seed)
    hidden = _SIZE["hidden_size"]
    _save_linear(path / "sparse_linear.pt", 1, hidden, seed + 5)  # one that finds most tokens worth a weight
    _save_linear(path / "colbert_linear.pt", hidden, hidden, seed + 2)
    return path


def make_reranker(path: Path, *, max_tokens: int = 512, seed: int = 0) -> Path:
    """An XLM-RoBERTa sequence classifier with one label, like bge-reranker-base, -large and -v2-m3."""
    # FlagEmbedding goes from ids to text and back, so all characters of `bge-serve verify`'s texts must be in the vocabulary.
    tokenizer = _unigram((*TEXTS, *VERIFIED))
    config = _xlm_roberta_config(tokenizer, max_tokens, num_labels=1)
    _save_model(path, XLMRobertaForSequenceClassification, config, seed)
    _save_unigram(path, tokenizer, max_tokens)
    return path


def make_bert_reranker(path: Path, *, max_tokens: int = 512, seed: int = 0) -> Path:
    """A BERT sequence classifier with one label: its passages have token type 1."""
    tokenizer = _wordpiece()
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=max_tokens, num_labels=1, **_SIZE)
    _save_model(path, BertForSequenceClassification, config, seed)
    _save_wordpiece(path, tokenizer, max_tokens)
    return path


def _xlm_roberta_config(tokenizer: Tokenizer, max_tokens: int, **more: Any) -> XLMRobertaConfig:
    return XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=max_tokens + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **_SIZE,
        **more,
    )


def _save_model(path: Path, kind: type[PreTrainedModel], config: Any, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        _spread(model)
    model.save_pretrained(path)


@torch.no_grad()
def _spread(model: PreTrainedModel) -> None:
    """Make texts differ more than chance initial weights let them, and every kind of parameter matter."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.1)
        elif "LayerNorm" in name:
            parameter.uniform_(0.5, 1.5)
        elif "word_embeddings" in name:
            parameter.mul_(3)
        elif name in ("classifier.weight", "classifier.out_proj.weight"):
            parameter.mul_(2)
        elif ".output.dense" in name:
            parameter.sub_(parameter.mean(dim=1, keepdim=True))  # or GELU's positive mean gives all tokens one common direction


def _save_linear(file: Path, out_features: int, in_features: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator) * 0.04
    torch.save({"weight": weight, "bias": torch.randn(out_features, generator=generator) * 0.02}, file)


def _save_sentence_transformers(path: Path, pooling: str, max_tokens: int) -> None:
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    listed = [
        {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for i, (folder, kind) in enumerate(modules)
    ]  # fmt: skip
    _write(path / "modules.json", listed)
    _write(path / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    keys = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "lasttoken": "pooling_mode_lasttoken"}
    modes = {key: mode == pooling for mode, key in keys.items()}
    (path / "1_Pooling").mkdir()
    _write(path / "1_Pooling" / "config.json", {"word_embedding_dimension": _SIZE["hidden_size"], **modes})


def _save_wordpiece(path: Path, tokenizer: Tokenizer, max_tokens: int) -> None:
    tokenizer.save(str(path / "tokenizer.json"))
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (path / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    _write(path / "special_tokens_map.json", special)
    _write(
        path / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": max_tokens, **special},
    )


def _save_unigram(path: Path, tokenizer: Tokenizer, max_tokens: int) -> None:
    tokenizer.save(str(path / "tokenizer.json"))
    special = {
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>",
        "pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>",
    }  # fmt: skip
    _write(path / "special_tokens_map.json", special)
    _write(path / "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": max_tokens, **special})


@cache
def _wordpiece() -> Tokenizer:
    normalizer, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = [word for text in TEXTS for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text))]
    counts = _pieces_of(words)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # As every piece may go on a word or begin one, each is there in both forms.
    vocabulary = {token: i for i, token in enumerate([*special, *counts, *(f"##{piece}" for piece in counts)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, split, decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    # As all-MiniLM-L6-v2's tokenizer.json has it: a loader that does not switch both off computes padding and cuts too early.
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128, pad_token="[PAD]")
    return tokenizer


@cache
def _unigram(texts: tuple[str, ...] = TEXTS) -> Tokenizer:
    """Vocabulary in XLM-RoBERTa's order: <s> 0, <pad> 1, </s> 2, <unk> 3, pieces, <mask>."""
    # Without a normalizer: transformers 5 builds XLM-R's tokenizer anew and keeps none but SentencePiece's own, which nothing here trains.
    counts = _pieces_of([f"▁{word}" for text in texts for word in text.split()])
    total = sum(counts.values())
    vocabulary = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary += [(piece, math.log(count / total)) for piece, count in counts.items()]
    pieces = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    pieces.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    pieces.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    pieces.decoder = decoders.Metaspace()
    pieces.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return pieces


def _pieces_of(words: Sequence[str]) -> dict[str, int]:
    """Characters, and what is there twice: counted, in an order that is the same in every process, as that of a trainer is not."""
    counts = Counter(word[i:j] for word in words for i in range(len(word)) for j in range(i + 1, min(len(word), i + 6) + 1))
    return {piece: counts[piece] for piece in sorted(counts) if len(piece) == 1 or counts[piece] > 1}


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
