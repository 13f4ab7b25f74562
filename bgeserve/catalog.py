"""One row per published model: what its files do not say, or do not always say.

Knows names and facts, no code: a fine-tuned checkpoint of a known family needs no row. The rows agree with FlagEmbedding's
`inference/embedder/model_mapping.py` and `inference/reranker/model_mapping.py`; instructions are those of the models' own cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bgeserve.types import Output

Family = Literal["bert", "xlm-roberta"]
Pooling = Literal["cls", "mean", "last_token"]


@dataclass(frozen=True, slots=True)
class EmbedderRow:
    name: str
    """On the Hugging Face hub."""
    family: Family
    pooling: Pooling
    dimensions: int
    max_tokens: int
    languages: str
    licence: str
    outputs: tuple[Output, ...] = ("dense",)
    query_instruction: str = ""
    query_instruction_format: str = "{}{}"
    """Takes the instruction, then the text."""
    document_instruction: str = ""
    """Put before every document as it is."""


@dataclass(frozen=True, slots=True)
class RerankerRow:
    name: str
    family: Family
    max_tokens: int
    """Of query and passage together."""
    languages: str
    licence: str


def find_embedder(model: str) -> EmbedderRow | None:
    """The row of a hub name, or of a folder that carries a model's name (as FlagEmbedding finds it)."""
    return _EMBEDDERS.get(_last_part(model))


def find_reranker(model: str) -> RerankerRow | None:
    return _RERANKERS.get(_last_part(model))


_FOR_PASSAGES_EN = "Represent this sentence for searching relevant passages: "
_FOR_PASSAGES_ZH = "为这个句子生成表示以用于检索相关文章："
_E5_TASK = "Given a web search query, retrieve relevant passages that answer the query"
_SIZES = (("small", 384), ("base", 768), ("large", 1024))
_SIZES_ZH = (("small", 512), ("base", 768), ("large", 1024))

EMBEDDERS: tuple[EmbedderRow, ...] = (
    EmbedderRow("BAAI/bge-m3", "xlm-roberta", "cls", 1024, 8192, "multilingual", "MIT", outputs=("dense", "sparse", "multi_vector")),
    EmbedderRow("BAAI/bge-m3-unsupervised", "xlm-roberta", "cls", 1024, 8192, "multilingual", "MIT"),
    *(
        EmbedderRow(f"BAAI/bge-{size}-en{version}", "bert", "cls", dimensions, 512, "en", "MIT", query_instruction=_FOR_PASSAGES_EN)
        for version in ("", "-v1.5")
        for size, dimensions in _SIZES
    ),
    *(
        EmbedderRow(f"BAAI/bge-{size}-zh{version}", "bert", "cls", dimensions, 512, "zh", "MIT", query_instruction=_FOR_PASSAGES_ZH)
        for version in ("", "-v1.5")
        for size, dimensions in _SIZES_ZH
    ),
    EmbedderRow("sentence-transformers/all-MiniLM-L6-v2", "bert", "mean", 384, 256, "en", "Apache-2.0"),
    *(
        EmbedderRow(
            f"intfloat/e5-{size}{version}", "bert", "mean", dimensions, 512, "en", "MIT",
            query_instruction="query: ", document_instruction="passage: ",
        )
        for version in ("", "-v2")
        for size, dimensions in _SIZES
    ),
    *(
        EmbedderRow(
            f"intfloat/multilingual-e5-{size}", family, "mean", dimensions, 512, "multilingual", "MIT",
            query_instruction="query: ", document_instruction="passage: ",
        )
        for (size, dimensions), family in zip(_SIZES, ("bert", "xlm-roberta", "xlm-roberta"), strict=True)
    ),
    EmbedderRow(
        "intfloat/multilingual-e5-large-instruct", "xlm-roberta", "mean", 1024, 512, "multilingual", "MIT",
        query_instruction=_E5_TASK, query_instruction_format="Instruct: {}\nQuery: {}",
    ),
    *(EmbedderRow(f"thenlper/gte-{size}", "bert", "mean", dimensions, 512, "en", "MIT") for size, dimensions in _SIZES),
    *(EmbedderRow(f"thenlper/gte-{size}-zh", "bert", "cls", dimensions, 512, "zh", "MIT") for size, dimensions in _SIZES_ZH),
    EmbedderRow("maidalun1020/bce-embedding-base_v1", "xlm-roberta", "cls", 768, 512, "en, zh", "Apache-2.0"),
)  # fmt: skip

RERANKERS: tuple[RerankerRow, ...] = (
    RerankerRow("BAAI/bge-reranker-base", "xlm-roberta", 512, "en, zh", "MIT"),
    RerankerRow("BAAI/bge-reranker-large", "xlm-roberta", 512, "en, zh", "MIT"),
    RerankerRow("BAAI/bge-reranker-v2-m3", "xlm-roberta", 8192, "multilingual", "Apache-2.0"),
    RerankerRow("maidalun1020/bce-reranker-base_v1", "xlm-roberta", 512, "en, zh, ja, ko", "Apache-2.0"),
)


def _last_part(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]


_EMBEDDERS = {_last_part(row.name): row for row in EMBEDDERS}
_RERANKERS = {_last_part(row.name): row for row in RERANKERS}
