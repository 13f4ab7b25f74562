"""Tokenizers for random checkpoints: of the published models' kinds, learned from the docstrings, so that texts have as many tokens as with
the real ones (a docstring about a quarter of its characters) and tokenising costs what it costs there.

Their vocabularies are smaller than the published ones, which only the checkpoint's embedding and head have in full.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from benchmarks.texts import load_texts

TokenizerKind = Literal["wordpiece", "unigram", "bytes"]

LEARNED_TOKENS = 8_000

_WORDPIECE = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_UNIGRAM = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "cls": "<s>", "mask": "<mask>"}
_BYTES = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}


def save_tokenizer(folder: Path, kind: TokenizerKind, max_tokens: int) -> dict[str, int]:
    """Writes the files; returns the ids for config.json."""
    learn, special, named = {
        "wordpiece": (_wordpiece, _WORDPIECE, "BertTokenizer"),
        "unigram": (_unigram, _UNIGRAM, "XLMRobertaTokenizer"),
        "bytes": (_bytes, _BYTES, "PreTrainedTokenizerFast"),
    }[kind]
    tokens = learn()
    tokens.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": named, "model_max_length": max_tokens, **{f"{k}_token": v for k, v in special.items()}}
    if kind == "bytes":
        config["padding_side"] = "left"  # as the published LLM rerankers have it
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return {f"{name}_token_id": tokens.token_to_id(special[name]) for name in ("bos", "eos", "pad") if name in special}


@cache
def _wordpiece() -> Tokenizer:
    """BERT's."""
    tokens = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokens.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokens.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = list(_WORDPIECE.values())
    tokens.train_from_iterator(
        load_texts(), trainers.WordPieceTrainer(vocab_size=LEARNED_TOKENS, special_tokens=special, show_progress=False)
    )
    tokens.post_processor = _template(tokens, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("[CLS]", "[SEP]"))
    return tokens


@cache
def _unigram() -> Tokenizer:
    """XLM-RoBERTa's."""
    tokens = Tokenizer(models.Unigram())
    tokens.normalizer = normalizers.NFKC()
    tokens.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=LEARNED_TOKENS, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokens.train_from_iterator(load_texts(), trainer)
    tokens.add_special_tokens(["<mask>"])
    tokens.post_processor = _template(tokens, "<s> $A </s>", "<s> $A </s> </s> $B </s>", ("<s>", "</s>"))
    return tokens


@cache
def _bytes() -> Tokenizer:
    """Byte-level pieces, as decoders have them; begin-of-text is the caller's to add, as LLM rerankers do."""
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED_TOKENS,
        special_tokens=list(_BYTES.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokens.train_from_iterator(load_texts(), trainer)
    return tokens


def _template(tokens: Tokenizer, single: str, pair: str, special: tuple[str, str]) -> processors.TemplateProcessing:
    ids = [(token, tokens.token_to_id(token)) for token in special]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
