"""One row per published model: what its files do not say, or do not always say.

Knows names and facts, no code: a fine-tuned checkpoint of a known family needs no row. The rows agree with FlagEmbedding's
`inference/embedder/model_mapping.py` and `inference/reranker/model_mapping.py`; instructions are those of the models' own cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bgeserve.types import Output

Family = Literal["bert", "xlm-roberta", "gemma", "gemma2", "mistral", "qwen2", "qwen3", "minicpm", "cost_wise_gemma"]
"""`model_type` of config.json."""
Pooling = Literal["cls", "mean", "last_token"]
RerankerKind = Literal["cross_encoder", "llm", "layerwise", "lightweight"]


@dataclass(frozen=True, slots=True)
class EmbedderRow:
    name: str
    """On the Hugging Face hub."""
    family: Family
    pooling: Pooling
    dimensions: int
    max_tokens: int
    parameters: float
    """Millions of them."""
    languages: str
    licence: str
    outputs: tuple[Output, ...] = ("dense",)
    query_instruction: str = ""
    query_format: str = "{}{}"
    """Takes the instruction, then the text."""
    document_instruction: str = ""
    """Put before every document as it is."""
    example_format: str = ""
    """Takes the instruction, the query and the response of an in-context example; empty: the model takes none."""
    query_suffix: str = ""


@dataclass(frozen=True, slots=True)
class RerankerRow:
    name: str
    family: Family
    kind: RerankerKind
    max_tokens: int
    """Of query and passage together; an LLM's separators and prompt come on top."""
    parameters: float
    """Millions of them."""
    languages: str
    licence: str
    base_model: str


def find_embedder(model: str) -> EmbedderRow | None:
    """The row of a hub name, or of a folder that carries a model's name (as FlagEmbedding finds it)."""
    return _EMBEDDERS.get(_last_part(model))


def find_reranker(model: str) -> RerankerRow | None:
    return _RERANKERS.get(_last_part(model))


_YES_OR_NO = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a prediction of "
    "either 'Yes' or 'No'."
)
PROMPTS: Mapping[RerankerKind, str] = {
    "llm": _YES_OR_NO,
    "layerwise": _YES_OR_NO,
    "lightweight": "Predict whether passage B contains an answer to query A.",
}
"""What the LLM rerankers were trained to answer."""

_FOR_PASSAGES_EN = "Represent this sentence for searching relevant passages: "
_FOR_PASSAGES_ZH = "为这个句子生成表示以用于检索相关文章："
_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_TAGGED = "<instruct>{}\n<query>{}"
_LABELLED = "Instruct: {}\nQuery: {}"
_SIZES = (("small", 384, 33), ("base", 768, 109), ("large", 1024, 335))
_SIZES_ZH = (("small", 512, 24), ("base", 768, 102), ("large", 1024, 326))

EMBEDDERS: tuple[EmbedderRow, ...] = (
    EmbedderRow("BAAI/bge-m3", "xlm-roberta", "cls", 1024, 8192, 568, "multilingual", "MIT", outputs=("dense", "sparse", "multi_vector")),
    EmbedderRow("BAAI/bge-m3-unsupervised", "xlm-roberta", "cls", 1024, 8192, 568, "multilingual", "MIT"),
    *(
        EmbedderRow(f"BAAI/bge-{size}-en{version}", "bert", "cls", width, 512, parameters, "en", "MIT", query_instruction=_FOR_PASSAGES_EN)
        for version in ("", "-v1.5")
        for size, width, parameters in _SIZES
    ),
    *(
        EmbedderRow(f"BAAI/bge-{size}-zh{version}", "bert", "cls", width, 512, parameters, "zh", "MIT", query_instruction=_FOR_PASSAGES_ZH)
        for version in ("", "-v1.5")
        for size, width, parameters in _SIZES_ZH
    ),
    # Its card has an instruction for each of six tasks; this pair is the one for question answering.
    EmbedderRow(
        "BAAI/llm-embedder", "bert", "cls", 768, 512, 109, "en", "MIT",
        query_instruction="Represent this query for retrieving relevant documents: ",
        document_instruction="Represent this document for retrieval: ",
    ),
    EmbedderRow(
        "BAAI/bge-multilingual-gemma2", "gemma2", "last_token", 3584, 8192, 9242, "multilingual", "Gemma",
        query_instruction=f"{_WEB_SEARCH}.", query_format=_TAGGED,
    ),
    EmbedderRow(
        "BAAI/bge-en-icl", "mistral", "last_token", 4096, 32768, 7111, "en", "Apache-2.0",
        query_instruction=f"{_WEB_SEARCH}.", query_format=_TAGGED, example_format=f"{_TAGGED}\n<response>{{}}", query_suffix="\n<response>",
    ),
    EmbedderRow(
        "BAAI/bge-reasoner-embed-qwen3-8b-0923", "qwen3", "last_token", 4096, 32768, 7568, "multilingual", "Apache-2.0",
        query_instruction=_WEB_SEARCH, query_format=_LABELLED,
    ),
    # Its card names a different instruction for each task of code retrieval and none for all of them.
    EmbedderRow("BAAI/bge-code-v1", "qwen2", "last_token", 1536, 32768, 1544, "en, zh, code", "Apache-2.0", query_format=_TAGGED),
    *(
        EmbedderRow(
            f"Qwen/Qwen3-Embedding-{size}", "qwen3", "last_token", dimensions, 32768, parameters, "multilingual", "Apache-2.0",
            query_instruction=_WEB_SEARCH, query_format="Instruct: {}\nQuery:{}",
        )
        for size, dimensions, parameters in (("0.6B", 1024, 596), ("4B", 2560, 4022), ("8B", 4096, 7568))
    ),
    *(
        EmbedderRow(
            name, "mistral", "last_token", 4096, max_tokens, 7111, "en", licence, query_instruction=_WEB_SEARCH, query_format=_LABELLED
        )
        for name, max_tokens, licence in (
            ("intfloat/e5-mistral-7b-instruct", 4096, "MIT"),
            ("Salesforce/SFR-Embedding-Mistral", 4096, "CC-BY-NC-4.0"),
            ("Salesforce/SFR-Embedding-2_R", 4096, "CC-BY-NC-4.0"),
            ("Linq-AI-Research/Linq-Embed-Mistral", 4096, "CC-BY-NC-4.0"),
        )
    ),
    EmbedderRow("sentence-transformers/all-MiniLM-L6-v2", "bert", "mean", 384, 256, 23, "en", "Apache-2.0"),
    *(
        EmbedderRow(
            f"intfloat/e5-{size}{version}", "bert", "mean", dimensions, 512, parameters, "en", "MIT",
            query_instruction="query: ", document_instruction="passage: ",
        )
        for version in ("", "-v2")
        for size, dimensions, parameters in _SIZES
    ),
    EmbedderRow(
        "intfloat/multilingual-e5-small", "bert", "mean", 384, 512, 118, "multilingual", "MIT",
        query_instruction="query: ", document_instruction="passage: ",
    ),
    *(
        EmbedderRow(
            f"intfloat/multilingual-e5-{size}", "xlm-roberta", "mean", dimensions, 512, parameters, "multilingual", "MIT",
            query_instruction="query: ", document_instruction="passage: ",
        )
        for size, dimensions, parameters in (("base", 768, 278), ("large", 1024, 560))
    ),
    EmbedderRow(
        "intfloat/multilingual-e5-large-instruct", "xlm-roberta", "mean", 1024, 512, 560, "multilingual", "MIT",
        query_instruction=_WEB_SEARCH, query_format=_LABELLED,
    ),
    *(EmbedderRow(f"thenlper/gte-{size}", "bert", "mean", width, 512, parameters, "en", "MIT") for size, width, parameters in _SIZES),
    *(
        EmbedderRow(f"thenlper/gte-{size}-zh", "bert", "cls", width, 512, parameters, "zh", "MIT")
        for size, width, parameters in _SIZES_ZH
    ),
    EmbedderRow("maidalun1020/bce-embedding-base_v1", "xlm-roberta", "cls", 768, 512, 278, "en, zh", "Apache-2.0"),
)  # fmt: skip

RERANKERS: tuple[RerankerRow, ...] = (
    RerankerRow("BAAI/bge-reranker-base", "xlm-roberta", "cross_encoder", 512, 278, "en, zh", "MIT", "xlm-roberta-base"),
    RerankerRow("BAAI/bge-reranker-large", "xlm-roberta", "cross_encoder", 512, 560, "en, zh", "MIT", "xlm-roberta-large"),
    RerankerRow("BAAI/bge-reranker-v2-m3", "xlm-roberta", "cross_encoder", 8192, 568, "multilingual", "Apache-2.0", "bge-m3"),
    # The LLM rerankers' cards cut at 1,024 tokens; they have positions for more.
    RerankerRow("BAAI/bge-reranker-v2-gemma", "gemma", "llm", 1024, 2506, "multilingual", "Apache-2.0", "gemma-2b"),
    RerankerRow(
        "BAAI/bge-reranker-v2-minicpm-layerwise", "minicpm", "layerwise", 1024, 2725, "multilingual", "Apache-2.0",
        "MiniCPM-2B-dpo-bf16",
    ),
    RerankerRow(
        "BAAI/bge-reranker-v2.5-gemma2-lightweight", "cost_wise_gemma", "lightweight", 1024, 9242, "multilingual", "Gemma", "gemma-2-9b"
    ),
    RerankerRow(
        "maidalun1020/bce-reranker-base_v1", "xlm-roberta", "cross_encoder", 512, 278, "en, zh, ja, ko", "Apache-2.0", "xlm-roberta-base"
    ),
)  # fmt: skip


def _last_part(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]


_EMBEDDERS = {_last_part(row.name): row for row in EMBEDDERS}
_RERANKERS = {_last_part(row.name): row for row in RERANKERS}
