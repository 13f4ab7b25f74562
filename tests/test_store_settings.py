"""`store:` is one of several kinds: each takes its own keys and no others, and what is wrong is named as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bgeserve.errors import SettingsError
from bgeserve.settings import SearchGraphSettings
from bgeserve.store_settings import MilvusLiteSettings, MilvusSettings, QdrantEdgeSettings, QdrantSettings, VespaSettings
from graphs.check import parse, read

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


def config(store: Any) -> Any:
    read_: Any = read(QUICKSTART)
    read_["applications"][0]["args"]["store"] = store
    return read_


@pytest.mark.parametrize(
    ("store", "settings"),
    [
        ({"path": "x"}, QdrantEdgeSettings(path=Path("x"))),
        ({"kind": "qdrant_edge", "path": "x", "create": True}, QdrantEdgeSettings(path=Path("x"), create=True)),
        ({"kind": "qdrant", "url": "http://q:6333", "api_key_env": "KEY"}, QdrantSettings(url="http://q:6333", api_key_env="KEY")),
        ({"kind": "milvus", "path": "x", "node_resource": "disk"}, MilvusLiteSettings(path=Path("x"), node_resource="disk")),
        ({"kind": "milvus", "uri": "http://m:19530", "language": None}, MilvusSettings(uri="http://m:19530", language=None)),
        ({"kind": "vespa", "url": "http://v:8080", "exact": True}, VespaSettings(url="http://v:8080", exact=True)),
    ],
)
def test_the_kind_chooses_the_settings(store: dict[str, Any], settings: Any) -> None:
    parsed = SearchGraphSettings.model_validate({"embedders": {"e": {"model": "m"}}, "store": store})
    assert parsed.store == settings
    assert type(parsed.store) is type(settings)
    assert SearchGraphSettings.model_validate({"embedders": {"e": {"model": "m"}}, "store": settings}).store == settings


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({"kind": "lance", "path": "x"}, "args.store: kind must be one of qdrant_edge, qdrant, milvus"),
        ({"kind": "qdrant_edge"}, "args.store.path: Field required"),
        ({"kind": "qdrant_edge", "path": "x", "min_free_bytes": 0}, "args.store.min_free_bytes: Input should be greater than 0"),
        ({"kindx": "milvus", "path": "x"}, "args.store.kindx: unknown key; did you mean 'kind'?"),
        ({"kind": "qdrant", "path": "x"}, "args.store.path: unknown key"),
        ({"kind": "qdrant", "url": "http://q", "api_key": "secret"}, "args.store.api_key: unknown key; did you mean 'api_key_env'?"),
        ({"kind": "qdrant", "url": "http://q", "api_key_env": "not a name"}, "args.store.api_key_env: String should match"),
        ({"kind": "qdrant", "url": "http://q", "collection_prefix": "1"}, "args.store.collection_prefix: String should match"),
        ({"kind": "milvus"}, "args.store.uri: Field required"),
        ({"kind": "milvus", "path": "x", "uri": "http://m"}, "args.store.uri: unknown key"),
        ({"kind": "milvus", "uri": "http://m", "commit_interval_ms": 5}, "args.store.commit_interval_ms: unknown key"),
        ({"kind": "vespa", "url": "http://v", "path": "x"}, "args.store.path: unknown key"),
        ({"kind": "vespa", "url": "http://v", "key": "k.pem"}, "key needs the certificate that it belongs to: set certificate"),
        ("milvus", "args.store"),
    ],
)
def test_a_key_of_another_kind_is_refused_where_it_stands(store: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(config(store))
    assert message in caught.value.message
    assert "milvus_lite" not in caught.value.message


@pytest.mark.parametrize(
    ("store", "resources"),
    [
        ({"kind": "qdrant_edge", "path": "x", "node_resource": "disk"}, {"CPU": 0.5, "disk": 0.001}),
        ({"kind": "milvus", "path": "x", "node_resource": "disk", "cpus": 2}, {"CPU": 2, "disk": 0.001}),
        ({"kind": "milvus", "uri": "http://m"}, {"CPU": 0.5}),
        ({"kind": "qdrant", "url": "http://q"}, {"CPU": 0.5}),
        ({"kind": "vespa", "url": "http://v", "cluster": "mine"}, {"CPU": 0.5}),
    ],
)
def test_only_an_embedded_store_is_pinned_and_each_has_one_owner(store: dict[str, Any], resources: dict[str, float]) -> None:
    demand = next(demand for demand in parse(config(store))[1] if demand.deployment == "retriever")
    assert (demand.each, demand.replicas) == (resources, 1)
