"""What a key is for: models, collections, rights. Whatever is outside is refused with 403, in each dialect's shape, and is in no list."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bgeserve.api import create_app
from bgeserve.api.app import OPERATIONS
from bgeserve.api.keyed_backend import KeyedBackend
from bgeserve.api.operation import Operation
from bgeserve.api.rights import RIGHTS, Right
from bgeserve.api.schema import Nothing
from bgeserve.backend import Backend
from tests.api.backend import FINGERPRINT, Stage
from tests.api.conftest import LIMITS
from tests.api.keyrings import keyring_of_keys, made_key, signed

KEYS = {
    "all": made_key("all", admin=True),
    "embeds": made_key("embeds", "embeds", models=["hash*"], collections=["docs", "docs@*"]),
    "reranks": made_key("reranks", models=["over*"]),
    "docs": made_key("docs", collections=["docs", "docs@*"]),
    "docs-admin": made_key("docs-admin", collections=["docs", "docs@*"], admin=True),
    "reader": made_key("reader", read_only=True),
}
DOCUMENT = {"documents": [{"id": "a", "text": "read files"}]}
CHUNKS = {"fingerprint": FINGERPRINT, "chunks": [{"id": "a", "n": 0, "start": 0, "end": 1, "text": "a", "content_hash": "x"}]}


@pytest.fixture
async def locked(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """With collections docs@1 (alias docs) and secret (aliases docs@leak, secrets)."""
    transport = httpx.ASGITransport(create_app(stage.service, LIMITS, keyring_of_keys(*KEYS.values())))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        for name in ("docs@1", "secret"):
            assert (await client.put(f"/v1/collections/{name}/documents", json=DOCUMENT, headers=signed("all"))).status_code == 200
        for alias, target in [("docs", "docs@1"), ("docs@leak", "secret"), ("secrets", "secret")]:
            assert (await client.put(f"/v1/aliases/{alias}", json={"collection": target}, headers=signed("all"))).status_code == 200
        yield client


async def ask(locked: httpx.AsyncClient, key: str, method: str, path: str, body: Any = None) -> httpx.Response:
    return await locked.request(method, path, json=body, headers=signed(key))


# -- rights ----------------------------------------------------------------------------------------------------------------------------

RIGHT_OF: dict[tuple[str, str], Right] = {(operation.method, operation.path): operation.right for operation in OPERATIONS}


def test_the_rights_are_these() -> None:
    """Written down a second time: a right that changes by mistake is a hole."""
    by_right: dict[str, set[tuple[str, str]]] = {}
    for operation, right in RIGHT_OF.items():
        by_right.setdefault(right, set()).add(operation)
    one, documents, chunks = "/v1/collections/{collection}", "/v1/collections/{collection}/documents", "/v1/collections/{collection}/chunks"
    assert by_right == {
        "open": {("GET", "/healthz"), ("GET", "/readyz")},
        "key": {("GET", "/v1/models"), ("GET", "/v1/status"), ("GET", "/v1/load"), ("GET", "/v1/collections"), ("GET", "/v1/aliases")},
        "model": {
            *(("POST", path) for path in ("/v1/encode", "/v1/embeddings", "/v1/rerank", "/inference", "/info", "/support_methods")),
            ("GET", "/v1/models/{name}"),
        },
        "read": {("POST", "/v1/search"), ("GET", documents), ("GET", one)},
        "write": {("PUT", documents), ("DELETE", documents)},
        "admin": {
            *(("PUT", one), ("DELETE", one), ("GET", chunks), ("PUT", chunks), ("POST", f"{one}/copies")),
            *(("PUT", "/v1/aliases/{alias}"), ("DELETE", "/v1/aliases/{alias}")),
        },
    }
    assert by_right.keys() == RIGHTS.keys()


def test_the_documentation_says_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    said = {
        right: {tuple(operation.split()) for operation in re.findall(r"`([A-Z]+ /[^`]*)`", line)}
        for right, line in _rights_of(page).items()
    }
    described = {**RIGHT_OF, ("GET", "/openapi.json"): "key"}
    assert said == {right: {operation for operation, needed in described.items() if needed == right} for right in RIGHTS}


def _rights_of(page: str) -> dict[str, str]:
    return {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|") and line.split("|")[1].strip() in RIGHTS}


def test_an_operation_without_a_right_cannot_be_declared() -> None:
    async def handler(call: object, body: object) -> Any: ...

    with pytest.raises(TypeError, match="right"):
        Operation("GET", "/v1/new", "new", Nothing, dict, handler)  # type: ignore[call-arg]


async def test_no_route_is_there_but_for_the_operations(stage: Stage) -> None:
    app = create_app(stage.service, LIMITS)
    assert {route.path for route in app.routes} == {"/", "/openapi.json", *(path for _, path in RIGHT_OF)}  # type: ignore[attr-defined]


ADMIN = [
    ("PUT", "/v1/collections/docs@9", {}),
    ("PUT", "/v1/aliases/docs@now", {"collection": "docs@1"}),
    ("DELETE", "/v1/aliases/docs", None),
    ("GET", "/v1/collections/docs@1/chunks", None),
    ("PUT", "/v1/collections/docs@1/chunks", CHUNKS),
    ("POST", "/v1/collections/docs@1/copies", {"name": "copy"}),
    ("DELETE", "/v1/collections/docs@1", None),
]


def test_all_admin_operations_are_tried_here() -> None:
    assert len(ADMIN) == sum(right == "admin" for right in RIGHT_OF.values())


@pytest.mark.parametrize(("method", "path", "body"), ADMIN)
@pytest.mark.parametrize("key", ["docs", "reader", "embeds"])
async def test_what_concerns_a_whole_collection_needs_admin(locked: httpx.AsyncClient, key: str, method: str, path: str, body: Any) -> None:
    response = await ask(locked, key, method, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (403, "permission_error", "forbidden")
    assert f"the key {KEYS[key].id} has no `admin: true`" in error["message"]
    assert f"{method} /v1/" in error["message"]


@pytest.mark.parametrize(("method", "path", "body"), ADMIN)
async def test_an_admin_key_may(locked: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    for key in ("all", "docs-admin"):
        assert (await ask(locked, key, method, path, body)).status_code != 403


@pytest.mark.parametrize(("method", "body"), [("PUT", DOCUMENT), ("DELETE", {"ids": ["a"]})])
async def test_a_read_only_key_reads_only(locked: httpx.AsyncClient, method: str, body: Any) -> None:
    response = await ask(locked, "reader", method, "/v1/collections/docs/documents", body)
    assert response.status_code == 403
    assert f"the key {KEYS['reader'].id} is read_only" in response.json()["error"]["message"]
    for path in ("documents", "documents?id=a"):
        assert (await ask(locked, "reader", "GET", f"/v1/collections/docs/{path}")).json()["documents"][0]["id"] == "a"
    assert (await ask(locked, "reader", "POST", "/v1/search", {"query": "files", "collection": "docs"})).status_code == 200


# -- models ----------------------------------------------------------------------------------------------------------------------------

OUTSIDE = [
    ("embeds", "POST", "/v1/rerank", {"query": "a", "documents": ["b"]}, "overlap"),
    ("embeds", "POST", "/v1/rerank", {"query": "a", "documents": ["b"], "model": "overlap"}, "overlap"),
    ("embeds", "POST", "/v1/search", {"query": "a", "collection": "docs", "rerank": "overlap"}, "overlap"),
    ("embeds", "POST", "/v1/encode", {"input": "a", "model": "other"}, "other"),
    ("embeds", "GET", "/v1/models/overlap", None, "overlap"),
    ("embeds", "POST", "/inference", {"model": "overlap", "sentence_pairs": ["a", "b"]}, "overlap"),
    ("embeds", "POST", "/info", {"model": "overlap"}, "overlap"),
    ("embeds", "POST", "/support_methods", {"model": "overlap"}, "overlap"),
    ("reranks", "POST", "/v1/encode", {"input": "a"}, "hashing"),
    ("reranks", "POST", "/v1/embeddings", {"input": "a"}, "hashing"),
    ("reranks", "POST", "/v1/embeddings", {"input": "a", "model": "hashing"}, "hashing"),
    ("reranks", "POST", "/inference", {"model": "hashing", "sentences": "a"}, "hashing"),
    ("reranks", "POST", "/inference", {"model": "hashing", "sentences": "a", "options": {"max_length": 99}}, "hashing"),
]


def test_every_operation_that_names_a_model_is_tried_here() -> None:
    paths = {(method, path.replace("overlap", "{name}")) for _, method, path, _, _ in OUTSIDE}
    assert paths - {("POST", "/v1/search")} == {operation for operation, right in RIGHT_OF.items() if right == "model"}


@pytest.mark.parametrize(("key", "method", "path", "body", "model"), OUTSIDE)
async def test_a_model_outside_of_the_key_is_refused_in_the_dialects_shape(
    locked: httpx.AsyncClient, stage: Stage, key: str, method: str, path: str, body: Any, model: str
) -> None:
    started = (stage.embedding.started, stage.reranking.started)
    response = await ask(locked, key, method, path, body)
    answer = response.json()
    message = answer["error"]["message"] if path.startswith("/v1/") else answer["msg"]
    assert response.status_code == 403, answer
    assert f"model '{model}'" in message
    assert f"the key {KEYS[key].id} is for" in message
    if path.startswith("/v1/"):
        assert (answer["error"]["code"], answer["error"]["param"]) == ("forbidden", "model")
    else:
        assert answer["state"] == "error"
    assert (stage.embedding.started, stage.reranking.started) == started


async def test_a_model_within_is_served(locked: httpx.AsyncClient) -> None:
    for key, path, body in [
        ("embeds", "/v1/encode", {"input": "a"}),
        ("embeds", "/v1/embeddings", {"input": "a", "model": "hashing"}),
        ("embeds", "/inference", {"model": "hashing", "sentences": "a"}),
        ("embeds", "/support_methods", {"model": "hashing"}),
        ("embeds", "/info", {"model": "hashing"}),
        ("reranks", "/v1/rerank", {"query": "a", "documents": ["b"]}),
    ]:
        assert (await ask(locked, key, "POST", path, body)).status_code == 200, path


async def test_a_search_uses_the_models_of_its_collection(locked: httpx.AsyncClient, stage: Stage) -> None:
    """The settings choose them, not the request."""
    response = await ask(locked, "reranks", "POST", "/v1/search", {"query": "files", "collection": "secret", "rerank": True})
    assert response.status_code == 200
    assert stage.reranking.started == 1


# -- collections -----------------------------------------------------------------------------------------------------------------------

WITH_A_COLLECTION = [
    ("POST", "/v1/search", {"query": "a", "collection": "{}"}),
    ("GET", "/v1/collections/{}/documents", None),
    ("GET", "/v1/collections/{}/documents?id=a", None),
    ("PUT", "/v1/collections/{}/documents", DOCUMENT),
    ("DELETE", "/v1/collections/{}/documents", {"ids": ["a"]}),
    ("GET", "/v1/collections/{}", None),
    ("PUT", "/v1/collections/{}", {}),
    ("GET", "/v1/collections/{}/chunks", None),
    ("PUT", "/v1/collections/{}/chunks", CHUNKS),
    ("POST", "/v1/collections/{}/copies", {"name": "copy"}),
    ("DELETE", "/v1/collections/{}", None),
    ("PUT", "/v1/aliases/docs@new", {"collection": "{}"}),
    ("PUT", "/v1/aliases/{}", {"collection": "docs@1"}),
    ("DELETE", "/v1/aliases/{}", None),
]


def filled(body: Any, name: str) -> Any:
    return {key: name if value == "{}" else value for key, value in body.items()} if body else body


def test_every_operation_that_names_a_collection_is_tried_here() -> None:
    def general(path: str) -> str:
        path = path.partition("?")[0].replace("docs@new", "{}")
        return path.replace("aliases/{}", "aliases/{alias}").replace("collections/{}", "collections/{collection}")

    tried = {(method, general(path)) for method, path, _ in WITH_A_COLLECTION}
    assert tried == {operation for operation, right in RIGHT_OF.items() if right in ("read", "write", "admin")}


@pytest.mark.parametrize(("method", "path", "body"), WITH_A_COLLECTION)
@pytest.mark.parametrize("name", ["secret", "secrets", "default", "nowhere", "docs@leak"])
async def test_a_collection_outside_of_the_key_is_refused_whether_it_is_there_or_not(
    locked: httpx.AsyncClient, method: str, path: str, body: Any, name: str
) -> None:
    """docs@leak is a name that the key may use, but points to what it may not."""
    response = await ask(locked, "docs-admin", method, path.format(name), filled(body, name))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (403, "forbidden", "collection"), error
    assert KEYS["docs-admin"].id in error["message"]
    assert f"collection '{name}'" in error["message"]
    assert "'secret'" not in error["message"].replace(f"'{name}'", "")
    secret = await ask(locked, "all", "GET", "/v1/collections/secret")
    assert (secret.json()["count"], sorted(secret.json()["aliases"])) == (1, ["docs@leak", "secrets"])


@pytest.mark.parametrize("name", ["docs", "docs@1"])
async def test_a_collection_within_is_served_by_each_of_its_names(locked: httpx.AsyncClient, name: str) -> None:
    found = await ask(locked, "docs", "POST", "/v1/search", {"query": "files", "collection": name})
    assert [hit["id"] for hit in found.json()["results"]] == ["a"]
    assert (await ask(locked, "docs", "PUT", f"/v1/collections/{name}/documents", DOCUMENT)).json()["unchanged"] == 1
    assert (await ask(locked, "docs", "GET", f"/v1/collections/{name}")).json()["name"] == "docs@1"
    assert (await ask(locked, "docs", "DELETE", f"/v1/collections/{name}/documents", {"ids": ["a"]})).json() == {"deleted": 1}


async def test_an_alias_that_is_pointed_elsewhere_takes_nobody_along(locked: httpx.AsyncClient) -> None:
    search = {"query": "files", "collection": "docs"}
    assert (await ask(locked, "docs", "POST", "/v1/search", search)).status_code == 200
    await ask(locked, "all", "PUT", "/v1/aliases/docs", {"collection": "secret"})
    assert (await ask(locked, "docs", "POST", "/v1/search", search)).status_code == 403


# -- lists -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "models", "collections", "aliases"),
    [
        ("all", {"hashing", "overlap"}, {"docs@1": ["docs"], "secret": ["docs@leak", "secrets"]}, {"docs", "docs@leak", "secrets"}),
        ("docs", {"hashing", "overlap"}, {"docs@1": ["docs"]}, {"docs"}),
        ("embeds", {"hashing"}, {"docs@1": ["docs"]}, {"docs"}),
        ("reranks", {"overlap"}, {"docs@1": ["docs"], "secret": ["docs@leak", "secrets"]}, {"docs", "docs@leak", "secrets"}),
    ],
)
async def test_lists_show_what_the_key_is_for(
    locked: httpx.AsyncClient, key: str, models: set[str], collections: dict[str, list[str]], aliases: set[str]
) -> None:
    assert {model["id"] for model in (await ask(locked, key, "GET", "/v1/models")).json()["data"]} == models
    for path in ("/v1/status", "/v1/load"):
        assert {model["name"] for model in (await ask(locked, key, "GET", path)).json()["models"]} == models
    listed = (await ask(locked, key, "GET", "/v1/collections")).json()["collections"]
    assert {one["name"]: sorted(one["aliases"]) for one in listed} == collections
    assert set((await ask(locked, key, "GET", "/v1/aliases")).json()["aliases"]) == aliases


async def test_without_keys_everybody_may_do_everything(http: httpx.AsyncClient) -> None:
    assert (await http.put("/v1/collections/default/documents", json=DOCUMENT)).status_code == 200
    assert (await http.delete("/v1/collections/default")).status_code == 200


def test_nothing_of_the_service_is_forgotten() -> None:
    """What a new method of the service lets a key do has to be thought of."""

    def methods(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}

    assert methods(KeyedBackend) == methods(Backend)
