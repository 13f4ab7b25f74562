"""`python -m tests.stores.vespa_package FOLDER`: the application package that the tests of stores need at VESPA_URL. And what clears it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from bgeserve.store_settings import VespaSettings
from bgeserve.stores.vespa_client import VespaClient
from bgeserve.stores.vespa_collection import namespace_keyword
from bgeserve.stores.vespa_filter import any_of
from bgeserve.stores.vespa_package import CATALOGUE, MAX_HITS, Shape, application_package
from bgeserve.vector_store import CollectionSchema
from tests.stores.samples import SCHEMA

SHAPES = [Shape.of(SCHEMA), Shape.of(replace(SCHEMA, token_dimensions=None)), Shape(None, False, None)]


def remove_all(settings: VespaSettings) -> None:
    """The collections of a prefix, of any language."""
    client, prefix = VespaClient(settings), settings.collection_prefix
    records = client.query(CATALOGUE, any_of("service", [namespace_keyword(prefix)]), "records", MAX_HITS, {"ranking.profile": "unranked"})
    for record in (json.loads(hit["fields"]["record"]) for hit in records.hits):
        if record["kind"] == "collection":
            shape = Shape.of(CollectionSchema(**record["schema"]))
            client.remove_all(shape.document_type, prefix + record["name"])
    client.remove_all(CATALOGUE, prefix)
    client.close()


if __name__ == "__main__":
    application_package(SHAPES).to_files(Path(sys.argv[1]))
