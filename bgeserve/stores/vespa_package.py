"""The Vespa application package that a store of ours needs: document types, rank profiles, services. Knows no server and no collection.

A schema of Vespa is fixed when its package is deployed, so there is a document type for each shape of vectors, which collections of that
shape share. Written after Vespa's schema reference (docs.vespa.ai/en/reference/schemas/schemas.html).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vespa.package import (
    HNSW,
    ApplicationPackage,
    Document,
    DocumentSummary,
    Field,
    QueryField,
    QueryProfile,
    RankProfile,
    Schema,
    Summary,
)

from bgeserve.vector_store import CollectionSchema

PACKAGE = "bgeserve"
CATALOGUE = "bge_catalogue"
"""The document type of what the collections are, and of aliases."""
MAX_HITS = 10_000
"""Of one query: in Vespa 400, unless a query profile says otherwise."""

_MAX_SIM = "sum(reduce(sum(query(multi_vector) * attribute(multi_vector), x), max, token), q)"


@dataclass(frozen=True, slots=True)
class Shape:
    """Which vectors the chunks of a document type have."""

    dimensions: int | None
    has_sparse: bool
    token_dimensions: int | None

    @classmethod
    def of(cls, schema: CollectionSchema) -> Shape:
        return cls(schema.dimensions, schema.has_sparse, schema.token_dimensions)

    @property
    def document_type(self) -> str:
        dense = "" if self.dimensions is None else f"_dense{self.dimensions}"
        tokens = "" if self.token_dimensions is None else f"_tokens{self.token_dimensions}"
        return f"bge_chunk{dense}{'_sparse' if self.has_sparse else ''}{tokens}"


def application_package(shapes: Iterable[Shape]) -> ApplicationPackage:
    schemas = [_catalogue(), *map(_chunks, sorted(set(shapes), key=lambda shape: shape.document_type))]
    return ApplicationPackage(PACKAGE, schemas, query_profile=QueryProfile([QueryField("maxHits", MAX_HITS)]))


def _catalogue() -> Schema:
    fields = [_keyword("service"), Field("record", "string", indexing=["summary"])]
    return Schema(CATALOGUE, Document(fields), document_summaries=[_summary("records", "record", from_disk=True)])


def _chunks(shape: Shape) -> Schema:
    fields = [
        _keyword("collection"),
        _keyword("key"),
        _keyword("document_key"),
        _number("place"),
        _number("n"),
        _keyword("terms", "array<string>"),
        Field("record", "string", indexing=["summary"]),
        # Words that are cut and stemmed already: each is matched as it is.
        Field("words", "array<string>", indexing=["index"], index="enable-bm25", match=["word"]),
    ]
    profiles = [RankProfile("full_text", "bm25(words)")]
    vectors: list[str] = []
    if shape.dimensions is not None:
        dense = f"tensor<float>(x[{shape.dimensions}])"
        graph = HNSW(distance_metric="prenormalized-angular", max_links_per_node=16, neighbors_to_explore_at_insert=200)
        fields.append(Field("dense", dense, indexing=["attribute", "index", "summary"], ann=graph))
        profiles.append(_profile("dense", dense, "sum(query(dense) * attribute(dense))"))
        vectors.append("dense")
    if shape.has_sparse:
        sparse = "tensor<float>(t{})"
        # Whole numbers find, as Vespa's operators have no others; the tensor scores what they found.
        fields.append(Field("weights", "weightedset<string>", indexing=["attribute"], attribute=["fast-search"], match=["word"]))
        fields.append(Field("sparse", sparse, indexing=["attribute", "summary"]))
        profiles.append(_profile("sparse", sparse, "sum(query(sparse) * attribute(sparse))"))
        vectors.append("sparse")
    if shape.token_dimensions is not None:
        width = f"x[{shape.token_dimensions}]"
        # Float, since Vespa has no float16, and bfloat16 would drop three of its bits; paged, so that memory need not hold all.
        tokens = Field("multi_vector", f"tensor<float>(token{{}}, {width})", indexing=["attribute", "summary"], attribute=["paged"])
        fields.append(tokens)
        profiles.append(_profile("multi_vector", f"tensor<float>(q{{}}, {width})", _MAX_SIM))
        vectors.append("multi_vector")
    summaries = [
        _summary("keys", "key", "document_key"),
        _summary("chunks", "key", "record", from_disk=True),
        _summary("vectors", "key", "record", *vectors, from_disk=True),
    ]
    return Schema(shape.document_type, Document(fields), rank_profiles=profiles, document_summaries=summaries)


def _keyword(name: str, type: str = "string") -> Field:
    return Field(name, type, indexing=["attribute", "summary"], attribute=["fast-search"], match=["word"], rank="filter")


def _number(name: str) -> Field:
    return Field(name, "long", indexing=["attribute", "summary"], attribute=["fast-search"], rank="filter")


def _profile(leg: str, query_type: str, expression: str) -> RankProfile:
    return RankProfile(leg, expression, inputs=[(f"query({leg})", query_type)])


def _summary(name: str, *fields: str, from_disk: bool = False) -> DocumentSummary:
    return DocumentSummary(name, summary_fields=[Summary(field) for field in fields], from_disk=True if from_disk else None)
