"""What travels between the pieces: texts in, vectors, hits and scores out.

Knows only the standard library and numpy, so that the client, a store and a GPU replica can all import it. These types
cross deployment handles: fields are only ever added, with a default, so that two versions of the service can talk during a rollout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bgeserve.travels import travels

Float16Array = NDArray[np.float16]
Float32Array = NDArray[np.float32]
Uint32Array = NDArray[np.uint32]
TokenVectors = Float16Array | Float32Array
"""[vectors, dimensions]"""

Lane = Literal["interactive", "bulk"]
"""Who waits for the answer: a person (interactive) or a job (bulk)."""
Role = Literal["embedder", "reranker"]
Output = Literal["dense", "sparse", "multi_vector"]
InputType = Literal["query", "document"]
FindingLeg = Literal["dense", "sparse", "full_text"]
Leg = Literal["dense", "sparse", "full_text", "multi_vector"]
Mode = Literal["dense", "sparse", "full_text", "multi_vector", "hybrid"]

MetadataValue = str | int | float | bool
Metadata = Mapping[str, MetadataValue | Sequence[MetadataValue]]

LANES: tuple[Lane, ...] = ("interactive", "bulk")
OUTPUTS: tuple[Output, ...] = ("dense", "sparse", "multi_vector")
FINDING_LEGS: tuple[FindingLeg, ...] = ("dense", "sparse", "full_text")
LEGS: tuple[Leg, ...] = (*FINDING_LEGS, "multi_vector")  # which finds nothing by itself: it ranks what the others found
MODES: tuple[Mode, ...] = (*LEGS, "hybrid")


@travels
class SparseVector:
    """Lexical weights: `indices` are vocabulary ids (uint32 [n], unique, ascending), `values` their weights (float32 [n], > 0)."""

    indices: Uint32Array
    values: Float32Array


@travels
class Example:
    """One query and what answers it, shown to an embedder that learns from examples in its input (bge-en-icl)."""

    query: str
    response: str
    instruction: str | None = None
    """None: the instruction of the query that it stands before."""


@travels
class EmbedderOptions:
    """What a request may say to an embedder beside its queries. None: as the deployment's settings say."""

    instruction: str | None = None
    """Put before every query, in the model's own format; an empty string: none."""
    examples: Sequence[Example] | None = None


@travels
class RerankerOptions:
    """What a request may say to a reranker beside its texts. None: as the deployment's settings say; not every model takes each."""

    instruction: str | None = None
    """Put before the query in place of the model's own ("A: ")."""
    prompt: str | None = None
    """The question about query and passage that an LLM reranker answers."""
    cutoff_layers: Sequence[int] | None = None
    """Layers whose heads score each pair; nothing above the last of them is computed."""
    compress_layers: Sequence[int] | None = None
    """Layers before which the passage's tokens are averaged in runs of `compress_ratio`."""
    compress_ratio: int | None = None
    weights: Mapping[Output, float] | None = None
    """Of each kind of vector in a hybrid score; those left out count 0."""


@travels
class Embeddings:
    """The vectors of n texts, in the order in which the texts came; an output that was not asked for is None.

    dense: float32 [n, dimensions], L2-normalised. multi_vector: per text [vectors, dimensions], rows L2-normalised; float16 for a store.
    `fingerprint` says which model made them (see `fingerprint.py`): vectors of different fingerprints cannot be compared.
    """

    fingerprint: str
    tokens: Sequence[int]
    """Tokens computed per text, special tokens included, after truncation."""
    truncated: Sequence[bool]
    dense: Float32Array | None = None
    sparse: Sequence[SparseVector] | None = None
    multi_vector: Sequence[TokenVectors] | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    """Where the time went on the replica: `tokenize`, `wait`, `forward`; of several calls the longest of each."""

    def __len__(self) -> int:
        return len(self.tokens)


@travels
class Scores:
    """Raw scores of one query against n passages (float32 [n], in the passages' order); `normalized` maps them to [0, 1]."""

    raw: Float32Array
    normalized: Float32Array
    tokens: Sequence[int]
    truncated: Sequence[bool]
    parts: Mapping[str, Float32Array] = field(default_factory=dict[str, Float32Array])
    """Raw scores that `raw` is one of (several cutoff layers: `layer_28`; `raw` is the last) or is made of (`dense`, `sparse`, ...)."""
    timings_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    version: str = ""  # of the reranker's settings: scores of two versions cannot be compared


@travels
class Document:
    """What a caller stores: its own id, the text that is embedded, and metadata that filters can name."""

    id: str
    text: str
    metadata: Metadata = field(default_factory=dict[str, MetadataValue])
    title: str = ""
    """Goes before the text, and before each of its chunks, wherever the text is embedded, searched for words or reranked."""


def titled(title: str, text: str) -> str:
    """What the models and the index of words see."""
    return f"{title}\n{text}" if title else text


@travels
class Chunk:
    """The unit that is embedded and stored: characters [start, end) of a document; n = 0 covers a document that is kept whole."""

    document_id: str
    n: int
    start: int
    end: int
    text: str
    metadata: Metadata
    content_hash: str
    """Hash of text, title and metadata: equal hashes under one fingerprint mean that nothing has to be embedded again."""
    title: str = ""


@travels
class Chunking:
    """How long documents are cut: at sentence ends, into chunks of at most `max_tokens` that share at most `overlap_tokens`."""

    max_tokens: int
    overlap_tokens: int


@travels
class EmbeddedChunks:
    """Whole documents as they are stored: their chunks, each document's together, and the vectors of each in the same order."""

    chunks: Sequence[Chunk]
    embeddings: Embeddings


@travels
class Query:
    """One query, ready for the legs: each vector is needed only by the leg that is named after it."""

    text: str
    dense: Float32Array | None = None
    sparse: SparseVector | None = None
    multi_vector: Float32Array | None = None
    """[vectors, dimensions], each row L2-normalised."""


@travels
class Hit:
    """One found chunk. `score` is what the list is ordered by; `scores` and `ranks` explain it.

    scores: per leg its own score, then "fused" and, after reranking, "rerank" (in [0, 1]). ranks: per leg, counted from 1.
    """

    id: str
    text: str
    score: float
    metadata: Metadata
    scores: Mapping[str, float]
    ranks: Mapping[str, int]
    chunk: int = 0
    start: int = 0
    end: int = 0
    title: str = ""


@travels
class SearchAnswer:
    """One list of hits per query (best first), with the time that each stage took and the tokens that it cost."""

    results: Sequence[Sequence[Hit]]
    timings_ms: Mapping[str, float]
    tokens: Mapping[str, int]
    truncated: Mapping[str, bool]
    """Per stage that has tokens: whether any of its texts was cut at the model's limit."""
    degraded: Sequence[str] = ()
    """Stages that were left out, since what they need was down: the results are those of the stage before."""


@travels
class WriteResult:
    """What became of n documents: each is stored durably when this is returned."""

    upserted: int
    unchanged: int
    tokens: int
    truncated: Sequence[str] = ()
    """Ids of the documents whose text was cut at the model's limit before it was embedded (the stored text is whole)."""


@travels
class CollectionInfo:
    """State of a collection: `fingerprint` is None until the first write decides it."""

    name: str
    count: int
    fingerprint: str | None
    state: Literal["ready", "indexing"]
    legs: Sequence[Leg]
    aliases: Sequence[str] = ()
    """The other names that it is searched and written by."""
    warning: str | None = None
    """What should be done about it, if anything."""


@travels
class ModelInfo:
    """What a deployed model is and takes."""

    name: str
    role: Role
    model: str
    max_tokens: int
    outputs: Sequence[Output] = ()
    dimensions: int | None = None
    fingerprint: str | None = None
    replicas: int = 0
    family: str = ""
    """Architecture, as in the catalogue."""
    kind: str = ""
    """How it scores or pools: `cross_encoder`, `layerwise`, ...; an embedder's pooling."""
    options: Sequence[str] = ()
    """Which fields of EmbedderOptions or RerankerOptions it takes."""
    layers: tuple[int, int] | None = None
    """First and last cutoff layer, of a reranker that can be cut."""
    like: str | None = None
    """The published model whose catalogue row holds for it. None: the row of `model`, if there is one."""


@travels
class ModelStatus:
    """Whether a deployed model can answer now, as far as can be told without asking it."""

    name: str
    role: Role
    model: str
    available: bool
    """A replica runs, or none does on purpose and the next call starts one."""
    replicas: Mapping[str, int]
    """How many there are in each state: STARTING, RUNNING, ..."""
    protocol: str
    """`retriever` or `reranker`: which of the calls at `/inference` it answers."""
