"""The arguments of the graphs, as they stand under `args:` in a Serve config: one typed object each, unknown keys refused by name.

Numbers carry their unit in their name. A field that is None is decided at start, from the machine or the checkpoint.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from bgeserve.replica_settings import IngressReplicas, ModelReplicas
from bgeserve.store_settings import StoreSettings
from bgeserve.strict import Name, Strict
from bgeserve.types import Leg, Output

CPU_MAX_BATCH_TOKENS = 700
"""Where throughput levels off on CPU; more only makes a batch slower and short queries wait longer (measured, benchmarks/)."""
CUDA_MAX_BATCH_TOKENS = 16_384


SurgePercent = Annotated[int, Field(ge=0, le=100)]


class ModelSettings(Strict):
    """What embedders and rerankers share."""

    model: str
    """A hub name (BAAI/bge-m3), a folder (of a LoRA adapter too), or `package:NAME` for a model that a Python package carries."""
    revision: str | None = None
    like: str | None = None
    """The published model whose catalogue row holds for this checkpoint too. None: the row of its own name, if there is one."""
    engine: Literal["packed", "flagembedding"] = "packed"
    """flagembedding: FlagEmbedding's own class computes, padded and in one thread; for families without a packed form, and to compare."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda when `gpus` is above 0, else cpu. `cuda` without CUDA is refused at start."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on GPUs and on CPUs that compute it in hardware, float32 elsewhere. Heads and scores are always float32."""
    cpus: PositiveFloat = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    replicas: ModelReplicas = ModelReplicas()
    max_surge_percent: SurgePercent = 0
    """How many more replicas there may be, in percent of them, while a new version takes over: they start before old ones stop, and while
    there is no room for them the old ones serve on. 0: an old one stops first, and where it was the only one, requests wait for the new."""
    max_tokens: PositiveInt | None = None
    """Tokens per text (a reranker: per pair). None: the model's own limit."""
    max_batch_tokens: PositiveInt | None = None
    """Tokens per forward. None: 700 on CPU, 16,384 on CUDA."""
    workers: Annotated[int, Field(ge=1, le=4)] | None = None
    """Batches computed at a time. None: on CPU one one-thread worker per core of `cpus` (at most 4); on CUDA 2: one prepares, one runs."""
    reserved_workers: Annotated[int, Field(ge=0)] = 0
    """Of the workers, how many leave bulk work to the others, so that a query finds one free even while jobs run."""
    max_queue_s: PositiveFloat = 2
    """Seconds of queued work (at the measured speed) that one replica accepts."""
    bulk_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the computed tokens that bulk work gets at least, while interactive work is waiting too."""
    wedged_after_s: PositiveFloat = 60
    """A forward that has not ended after this is taken for wedged, and its replica is replaced."""

    @property
    def resolved_device(self) -> Literal["cpu", "cuda"]:
        if self.device == "auto":
            return "cuda" if self.gpus > 0 else "cpu"
        return self.device

    @property
    def resolved_max_batch_tokens(self) -> int:
        default = CUDA_MAX_BATCH_TOKENS if self.resolved_device == "cuda" else CPU_MAX_BATCH_TOKENS
        return self.max_batch_tokens or default

    @property
    def resolved_workers(self) -> int:
        if self.engine == "flagembedding":
            return 1  # it is not made for several threads
        if self.workers is not None:
            return self.workers
        return 2 if self.resolved_device == "cuda" else max(1, min(4, int(self.cpus)))

    @model_validator(mode="after")
    def _device_fits_gpus(self) -> ModelSettings:
        if self.device == "cpu" and self.gpus > 0:
            raise ValueError(f"device is cpu but gpus is {self.gpus}: set device to cuda, or gpus to 0")
        if self.device == "cuda" and self.gpus == 0:
            raise ValueError("device is cuda but gpus is 0: state the share of a GPU that each replica gets, such as gpus: 0.5")
        return self

    @model_validator(mode="after")
    def _backlog_fits_queue(self) -> ModelSettings:
        if self.replicas.min < self.replicas.max and self.replicas.target_backlog_s >= self.max_queue_s:
            raise ValueError(
                f"replicas.target_backlog_s is {self.replicas.target_backlog_s} and max_queue_s is {self.max_queue_s}: "
                "a replica refuses past max_queue_s, so a backlog has to be allowed less than that"
            )
        return self

    @model_validator(mode="after")
    def _a_worker_is_left_for_bulk(self) -> ModelSettings:
        if self.reserved_workers >= self.resolved_workers:
            raise ValueError(
                f"reserved_workers is {self.reserved_workers} of {self.resolved_workers} workers: at least one must be left for bulk work"
            )
        return self


class ExampleSettings(Strict):
    """As `types.Example`."""

    query: str
    response: str
    instruction: str | None = None


class EmbedderSettings(ModelSettings):
    query_instruction: str | None = None
    """Put before every query. None: the catalogue row's; an empty string: none."""
    examples: tuple[ExampleSettings, ...] = ()
    """Put before every query of a model that learns from examples in its input (bge-en-icl)."""
    token_states: bool = False
    """Whether a model without a head for token vectors gives its hidden states, scaled to length 1, as `multi_vector`, as `scoring:
    late_interaction` compares them. It was not trained to: see whether `bge-serve eval` is better for it."""

    @model_validator(mode="after")
    def _packed_gives_token_states(self) -> EmbedderSettings:
        if self.token_states and self.engine == "flagembedding":
            raise ValueError("token_states is true, which engine: flagembedding does not give: set engine to packed")
        return self


class RerankerSettings(ModelSettings):
    """Options that a request may state for itself are as in `types.RerankerOptions`; here they are what holds when it does not."""

    scoring: Literal["own", "late_interaction", "hybrid"] = "own"
    """own: as the checkpoint was trained to. The others compare an embedder's vectors, when no reranker is at hand: late_interaction its
    token vectors (MaxSim), hybrid the weighted dense, sparse and multi-vector scores of BGE-M3."""
    weights: dict[Output, NonNegativeFloat] | None = None
    """Of `scoring: hybrid`. None: all equal."""
    instruction: str | None = None
    prompt: str | None = None
    cutoff_layers: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """None: the last layer. BAAI recommends 28 for bge-reranker-v2-minicpm-layerwise."""
    compress_layers: tuple[int, ...] | None = None
    compress_ratio: int | None = None


class FusionSettings(Strict):
    method: Literal["rrf", "weighted"] = "rrf"
    weights: dict[Leg, PositiveFloat] = Field(default_factory=dict)
    """Per leg, 1 where not stated."""
    rrf_k: PositiveInt = 60


class ChunkSettings(Strict):
    """Long documents are embedded, found and reranked chunk by chunk; short ones are one chunk."""

    max_tokens: PositiveInt = 256
    overlap_tokens: Annotated[int, Field(ge=0)] = 32
    """The last sentences of a chunk that the next one begins with, if they have no more tokens than this."""

    @model_validator(mode="after")
    def _something_is_new(self) -> ChunkSettings:
        if self.overlap_tokens >= self.max_tokens:
            raise ValueError(f"overlap_tokens is {self.overlap_tokens}, which must be less than max_tokens ({self.max_tokens})")
        return self


class SearchSettings(Strict):
    """Defaults of a search; a request can choose other values within the limits."""

    embedder: Name | None = None
    """Which of the embedders makes the index. None: the only one."""
    chunking: ChunkSettings | None = None
    """None: every document is one chunk, of which the model sees what its limit allows."""
    legs: Annotated[tuple[Leg, ...], Field(min_length=1)] = ("dense", "full_text")
    """What `mode: hybrid` searches, and what is stored for it. `sparse` needs a model with lexical weights (bge-m3). `multi_vector` ranks
    what the other legs found by token vectors: those of bge-m3, or of an embedder with `token_states`."""
    fusion: FusionSettings = FusionSettings()
    candidates: Annotated[int, Field(ge=1, le=1000)] = 100
    """Found per leg before fusion."""
    reranker: Name | None = None
    """Reranks unless the request says otherwise. None: no reranking unless the request names a reranker."""
    rerank_top: Annotated[int, Field(ge=1, le=1000)] = 50
    """How many of the fused hits are reranked."""
    rerank_weight: Annotated[float, Field(gt=0, le=1)] = 1
    """1: reranked hits are ordered by the reranker alone. Below: its score is blended with the fused one."""
    rerank_within_s: PositiveFloat | None = None
    """What becomes of a search whose reranker is down: has no replica, no room, or no answer. None: it fails (503, 429 or 504). A number:
    after so long at most, and in time for its own deadline, it is answered as it was retrieved, and says `degraded: ["rerank"]`. One with
    a `min_score` fails all the same: its bound is about the reranker's scores."""

    @model_validator(mode="after")
    def _a_leg_finds(self) -> SearchSettings:
        if set(self.legs) == {"multi_vector"}:
            raise ValueError("legs has only multi_vector, which ranks what other legs find: name one of them too, such as dense")
        return self


class IngressSettings(Strict):
    cpus: PositiveFloat = 0.5
    replicas: IngressReplicas = IngressReplicas()
    max_surge_percent: SurgePercent = 100
    """As of models. An ingress takes little room, and a change of any model's settings replaces it."""
    timeout_s: PositiveFloat = 30
    """After which a request is answered with 504 unless it states its own `x-timeout-ms`."""
    body_timeout_s: PositiveFloat = 20
    """A body that has not arrived whole after this is refused with 408: what a slow client sends counts as in progress all the while."""
    max_body_bytes: PositiveInt = 16 * 2**20
    max_inflight_bytes: PositiveInt = 64 * 2**20
    """Of the bodies of all requests in progress at one replica; past it they are refused with 429."""
    max_texts: PositiveInt = 2048
    """Texts, passages or documents per request."""
    max_top_k: PositiveInt = 1000

    @model_validator(mode="after")
    def _one_body_fits(self) -> IngressSettings:
        if self.max_body_bytes > self.max_inflight_bytes:
            raise ValueError(
                f"max_body_bytes is {self.max_body_bytes}, of which max_inflight_bytes ({self.max_inflight_bytes}) lets none in"
            )
        return self


class EmbedSettings(Strict):
    """Arguments of `graphs.embed:build`."""

    embedders: Annotated[dict[Name, EmbedderSettings], Field(min_length=1)]
    ingress: IngressSettings = IngressSettings()


class RerankSettings(Strict):
    """Arguments of `graphs.rerank:build`."""

    rerankers: Annotated[dict[Name, RerankerSettings], Field(min_length=1)]
    ingress: IngressSettings = IngressSettings()


class SearchGraphSettings(Strict):
    """Arguments of `graphs.search:build`."""

    embedders: Annotated[dict[Name, EmbedderSettings], Field(min_length=1)]
    rerankers: dict[Name, RerankerSettings] = Field(default_factory=dict)
    store: StoreSettings
    search: SearchSettings = SearchSettings()
    ingress: IngressSettings = IngressSettings()

    @model_validator(mode="after")
    def _names_exist(self) -> SearchGraphSettings:
        search = self.search
        if search.embedder is None and len(self.embedders) > 1:
            raise ValueError(f"search.embedder must say which of {sorted(self.embedders)} makes the index")
        if search.embedder is not None and search.embedder not in self.embedders:
            raise ValueError(f"search.embedder is {search.embedder!r}, which is not one of embedders: {sorted(self.embedders)}")
        if search.reranker is not None and search.reranker not in self.rerankers:
            raise ValueError(f"search.reranker is {search.reranker!r}, which is not one of rerankers: {sorted(self.rerankers)}")
        if both := set(self.embedders) & set(self.rerankers):
            raise ValueError(f"{sorted(both)} name both an embedder and a reranker: a request chooses by name, so names must differ")
        return self

    @property
    def index_embedder(self) -> str:
        return self.search.embedder or next(iter(self.embedders))
