"""Which vector store keeps the index, and where: the `store:` of a search graph, one typed object per kind.

Knows no engine, so that a config can be checked where none is installed. Secrets are named, never written: `api_key_env` and `token_env`
are the names of the environment variables that hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from bgeserve.strict import Strict

Prefix = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
MEASURED_DOCUMENTS = 100_000
"""Of one chunk: what an embedded store searches, exactly, in some tens of milliseconds."""

EnvironmentVariable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class CommonStoreSettings(Strict):
    """What every store has. Whichever it is, all writes go through the one Retriever replica, which gives them their order."""

    language: str | None = "english"
    """Of the full-text leg: decides stemming and stop words. None: neither, words are split by script."""
    cpus: PositiveFloat = 0.5
    """Of the Retriever replica; a remote store's own work is not counted."""

    @property
    def measured_documents(self) -> int | None:
        """Up to how many in a collection it was measured to be good. None: as many as its servers hold."""
        return None

    @property
    def commit_interval_s(self) -> float:
        """How long a write waits for others, to share a sync to disk with them. 0: the server has its own log."""
        return 0


class EmbeddedStoreSettings(CommonStoreSettings):
    """A store in a folder that one replica owns."""

    path: Path
    create: bool = False
    """Whether a missing folder is made. Off, a replica on the wrong node refuses to start instead of serving an empty index."""
    commit_interval_ms: Annotated[float, Field(gt=0, le=1000)] = 20
    """Writes of one interval share one sync to disk; a write is acknowledged after its sync."""
    min_free_bytes: PositiveInt = 256 * 2**20
    """Writes are refused while the disk has less than this left: no engine is at its best on a full disk, and one does not survive it."""
    node_resource: str | None = None
    """A custom Ray resource that only the node with this folder has, so that the owner always comes back to its data."""

    @property
    def measured_documents(self) -> int | None:
        return MEASURED_DOCUMENTS

    @property
    def commit_interval_s(self) -> float:
        return self.commit_interval_ms / 1000


class RemoteStoreSettings(CommonStoreSettings):
    """A server or cluster; any node reaches it, so its Retriever is pinned to none."""

    timeout_s: PositiveFloat = 10
    """Of one call; a search or write that takes longer fails."""
    collection_prefix: Prefix = "bge_serve_"
    """Of the names of the collections on the server; what begins otherwise is someone else's. Services on one server need their own, none
    of them the beginning of another's."""


Oversampling = Annotated[float, Field(ge=1, le=100)]


class QdrantEdgeSettings(EmbeddedStoreSettings):
    """Qdrant inside the Retriever's own process."""

    kind: Literal["qdrant_edge"] = "qdrant_edge"
    quantization: Literal["none", "turbo", "binary"] = "none"
    """Dense vectors are looked through in a short form, and the best by it scored anew by the whole vectors: faster, and not exact any more
    (docs/stores.md has the recall). turbo: 8 bits a dimension; binary: 1, for models of many dimensions. A collection keeps what its first
    write found here."""
    oversampling: Oversampling = 2
    """How many times as many as are wanted are scored anew."""


class QdrantSettings(RemoteStoreSettings):
    """A Qdrant server or cluster."""

    kind: Literal["qdrant"] = "qdrant"
    url: str
    """Such as http://qdrant:6333."""
    quantization: Literal["none", "scalar", "turbo", "binary"] = "none"
    """As of QdrantEdgeSettings; scalar: 8 bits a dimension, in equal steps. The short form lies in memory, the whole vectors on disk."""
    oversampling: Oversampling = 2
    """As of QdrantEdgeSettings."""
    api_key_env: EnvironmentVariable | None = None


class MilvusLiteSettings(EmbeddedStoreSettings):
    """Milvus Lite in a process beside the Retriever's: `kind: milvus` with a `path`."""

    kind: Literal["milvus"] = "milvus"


class MilvusSettings(RemoteStoreSettings):
    """A Milvus server, a cluster, or Zilliz: `kind: milvus` with a `uri`."""

    kind: Literal["milvus"] = "milvus"
    uri: str
    """Such as http://milvus:19530."""
    token_env: EnvironmentVariable | None = None
    """The variable holds an API key, or `user:password`."""
    database: str = "default"


class VespaSettings(RemoteStoreSettings):
    """A Vespa whose operator deployed the package that `bge-serve vespa-package` wrote."""

    kind: Literal["vespa"] = "vespa"
    url: str
    """Of its container cluster, such as http://vespa:8080."""
    token_env: EnvironmentVariable | None = None
    """The variable holds a data plane token, of Vespa Cloud."""
    certificate: Path | None = None
    """A mounted file with the client's certificate in PEM, and its key unless `key` names that."""
    key: Path | None = None
    cluster: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "bgeserve_content"
    """The content cluster, as services.xml calls it."""
    exact: bool = False
    """Whether searches look at all that could be found, in place of Vespa's shortcuts: its graph of dense vectors, wand and weakAnd."""

    @model_validator(mode="after")
    def _a_key_has_its_certificate(self) -> VespaSettings:
        if self.key is not None and self.certificate is None:
            raise ValueError("key needs the certificate that it belongs to: set certificate")
        return self


def _tag(sent: object) -> str:
    if isinstance(sent, CommonStoreSettings):
        return next(tag for tag, settings in _BY_TAG.items() if type(sent) is settings)
    store = cast("Mapping[str, Any]", sent) if isinstance(sent, Mapping) else {}
    kind = store.get("kind", "qdrant_edge")
    return "milvus_lite" if kind == "milvus" and "path" in store else str(kind)


_BY_TAG: Mapping[str, type[CommonStoreSettings]] = {
    "qdrant_edge": QdrantEdgeSettings,
    "qdrant": QdrantSettings,
    "milvus_lite": MilvusLiteSettings,
    "milvus": MilvusSettings,
    "vespa": VespaSettings,
}

StoreSettings = Annotated[
    Annotated[QdrantEdgeSettings, Tag("qdrant_edge")]
    | Annotated[QdrantSettings, Tag("qdrant")]
    | Annotated[MilvusLiteSettings, Tag("milvus_lite")]
    | Annotated[MilvusSettings, Tag("milvus")]
    | Annotated[VespaSettings, Tag("vespa")],
    Discriminator(_tag, "store_kind", "kind must be one of qdrant_edge, qdrant, milvus, vespa"),
]
"""By `kind`, qdrant_edge where none is stated."""
