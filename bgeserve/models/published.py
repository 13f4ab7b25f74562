"""Numbers that BAAI publishes for its models, to be met by whoever has the weights: pair scores from the models' cards and from the
examples in FlagEmbedding's repository (examples/inference/, "Expected Output"). They were computed in float16, hence the tolerances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bgeserve.types import RerankerOptions

Pairs = tuple[tuple[str, str], ...]

_PANDA = (
    ("what is panda?", "hi"),
    (
        "what is panda?",
        "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species endemic to China.",
    ),
)
_FRANCE, _CHINA = "What is the capital of France?", "What is the population of China?"
_PARIS, _PEOPLE = "Paris is the capital of France.", "The population of China is over 1.4 billion people."
_CAPITALS = ((_FRANCE, _PARIS), (_FRANCE, _PEOPLE), (_CHINA, _PARIS), (_CHINA, _PEOPLE))
_M3 = (
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms appearing in each document",
)
_M3_PAIRS = tuple((query, passage) for query in ("What is BGE M3?", "Defination of BM25") for passage in _M3)


@dataclass(frozen=True, slots=True)
class Published:
    model: str
    pairs: Pairs
    scores: Mapping[str, tuple[float, ...]]
    """By what is compared: `score` and `normalized` of a reranker, or `dense`, `sparse` and `multi_vector` of an embedder's two texts."""
    tolerance: float
    options: RerankerOptions | None = None
    note: str = ""


PUBLISHED: tuple[Published, ...] = (
    Published("BAAI/bge-reranker-v2-m3", _PANDA, {"normalized": (0.00027803096387751553, 0.9948403768236574)}, 0.001),
    Published("BAAI/bge-reranker-v2-m3", _PANDA, {"score": (-8.1875, 5.26171875)}, 0.05),
    Published("BAAI/bge-reranker-large", _CAPITALS, {"score": (7.9765625, -6.859375, -7.15625, 5.44921875)}, 0.05),
    Published("BAAI/bge-reranker-v2-gemma", _CAPITALS, {"score": (9.171875, -4.49609375, -5.5234375, 10.2109375)}, 0.15),
    Published(
        "BAAI/bge-reranker-v2-minicpm-layerwise",
        _CAPITALS,
        {"score": (1.939453125, -12.71875, -11.78125, 2.189453125)},
        0.15,
        RerankerOptions(cutoff_layers=(28,)),
    ),
    Published(
        "BAAI/bge-reranker-v2.5-gemma2-lightweight",
        _CAPITALS,
        {"score": (25.375, 8.734375, 9.8359375, 26.15625)},
        0.25,
        RerankerOptions(cutoff_layers=(28,), compress_layers=(24, 40), compress_ratio=2),
        note="FlagEmbedding 1.4.2 scores a lone cutoff with the first layer's head, and its attention drops the soft cap under sdpa; "
        "here each layer has its own head, and scores are capped",
    ),
    Published(
        "BAAI/bge-m3",
        _M3_PAIRS,
        {
            "dense": (0.6259765625, 0.347412109375, 0.349853515625, 0.67822265625),
            "sparse": (0.195556640625, 0.00879669189453125, 0.0, 0.1802978515625),
            "multi_vector": (0.7796499729156494, 0.4621465802192688, 0.4523794651031494, 0.7898575067520142),
        },
        0.003,
    ),
    Published("BAAI/bge-small-en-v1.5", _CAPITALS, {"dense": (0.7944, 0.4492, 0.58, 0.801)}, 0.003),
)


def published(model: str) -> list[Published]:
    return [one for one in PUBLISHED if one.model == model]
