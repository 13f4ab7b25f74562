"""The real service: HAProxy, ingress, embedder, reranker, retriever, each its own process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.serving.processes import cpu_s
from bgeserve import AsyncClient
from tests.ray.load import lose_a_replica
from tests.ray.processes import START_S, Up, replicas

pytestmark = pytest.mark.ray
BringUp = Callable[..., Up]
ROOT = Path(__file__).parents[2]

DOCUMENTS = [
    {"id": "argparse", "text": "Parser for command line options, arguments and sub-commands."},
    {"id": "gzip", "text": "Functions that read and write gzipped files."},
    {"id": "hashlib", "text": "SHA256 and other secure hashes and message digests."},
    {"id": "tempfile", "text": "Temporary files and directories that are deleted when they are closed."},
]


def test_a_search_finds_what_was_stored(service: Up) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert client.put("/v1/collections/default/documents", json={"documents": DOCUMENTS}).json()["upserted"] == len(DOCUMENTS)
        answer = client.post("/v1/search", json={"query": "how do I compute the digest of a file", "top_k": 2}).json()
    best = answer["results"][0]
    assert best["id"] == "hashlib"
    assert {"dense", "fused", "rerank"} <= best["scores"].keys()
    assert {"embed", "retrieve", "rerank"} <= answer["timings_ms"].keys()


def test_it_is_ready_and_knows_its_models(service: Up) -> None:
    assert httpx.get(f"{service.url}/readyz").json() == {"ready": True, "waiting_for": []}
    models = {model["id"]: model for model in httpx.get(f"{service.url}/v1/models").json()["data"]}
    assert {name: model["replicas"] for name, model in models.items()} == {"all-minilm": 1, "late-interaction": 1}


@pytest.mark.parametrize(
    ("how", "mode"),
    [
        ("result", {}),
        ("await", {}),
        ("await", {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}),
        # Throughput mode takes the thread away that .result() needs; a program that sets it and does not await has to ask for that back.
        ("result", {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1"}),
    ],
)
def test_a_second_process_uses_the_handle(service: Up, how: str, mode: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.ray.handle_client", how],
        cwd=ROOT,
        env=service.handle_environment() | mode,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "dense": ["float32", 2, 384],
        "stored": 2,
        "found": ["read and write gzip files"],
        "reranked": "read and write gzip files",
        "refused": "model 'nobody' is not served here; the embedders are ['all-minilm']",
        "deleted": 2,
    }


async def test_an_embedder_that_is_killed_loses_no_request(service: Up) -> None:
    before, statuses, after = await lose_a_replica(service.url, lambda: replicas("embedder-all-minilm", service.driver_pid()))
    assert statuses == {200}
    assert before != after


async def test_a_retriever_that_is_killed_in_the_middle_of_indexing_loses_nothing_that_was_acknowledged(service: Up) -> None:
    acknowledged: list[str] = []
    batches = iter(range(40))
    killed: list[int] = []

    async def index(client: httpx.AsyncClient) -> None:
        for batch in batches:
            documents = [{"id": f"{batch}-{i}", "text": f"document {i} of batch {batch}"} for i in range(10)]
            answer = await client.put("/v1/collections/killed/documents", json={"documents": documents})
            assert answer.status_code == 200, answer.text
            acknowledged.extend(str(document["id"]) for document in documents)
            if batch == 15:
                killed.extend(replicas("retriever", service.driver_pid()))
                os.kill(killed[0], signal.SIGKILL)

    async with httpx.AsyncClient(base_url=service.url, timeout=120, headers={"x-timeout-ms": "120000"}) as client:
        await asyncio.gather(*(index(client) for _ in range(4)))
        stored = await _ids(client, "killed")
    assert len(acknowledged) == 400
    assert killed
    assert set(acknowledged) == stored


async def _ids(client: httpx.AsyncClient, collection: str) -> set[str]:
    ids: set[str] = set()
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        cursor = {"after": page["next"]} if page["next"] else {}
        page = (await client.get(f"/v1/collections/{collection}/documents", params={"limit": 100, **cursor})).json()
        ids |= {document["id"] for document in page["documents"]}
    return ids


def test_a_caller_who_hangs_up_stops_the_work(service: Up) -> None:
    (embedder,) = replicas("embedder-all-minilm", service.driver_pid())
    with pytest.raises(httpx.ReadTimeout):
        # Work for half a minute or more, of which nobody waits for the end.
        httpx.post(f"{service.url}/v1/encode", json={"input": ["word " * 200] * 2000}, timeout=2)
    time.sleep(2)
    before = cpu_s(embedder)
    time.sleep(2)
    assert cpu_s(embedder) - before < 1


async def test_of_many_callers_only_those_who_hang_up_are_forgotten(service: Up) -> None:
    async with AsyncClient(service.url) as client:

        async def computed() -> int:
            return next(load.tokens_total for load in await client.loads() if load.name == "all-minilm")

        before = await computed()
        # Between those who stay, so that what is not forgotten is computed with theirs.
        calls = [asyncio.create_task(client.embed(f"{n} " + "word " * 200)) for n in range(40)]
        stay, leave = calls[3::4], [call for n, call in enumerate(calls) if n % 4 != 3]
        await asyncio.wait(leave, return_when=asyncio.FIRST_COMPLETED)
        for call in leave:
            call.cancel()
        await asyncio.gather(*stay)
        await asyncio.wait(leave)
        assert 10 * 200 < await computed() - before < 30 * 200


async def test_what_is_in_flight_on_an_ingress_that_dies_is_answered_to_who_sends_it_again(service: Up) -> None:
    """Of the only one there is: everybody waits until there is another."""
    async with AsyncClient(service.url, timeout_s=120) as client:
        (ingress,) = replicas("ingress", service.driver_pid())
        calls = [asyncio.create_task(client.embed([f"{n} " + "word " * 200] * 4)) for n in range(6)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert not all(call.done() for call in calls)
        os.kill(ingress, signal.SIGKILL)
        assert [len(vectors) for vectors in await asyncio.gather(*calls)] == [4] * 6


def test_documents_too_large_for_one_message_between_processes_are_stored_and_found(service: Up) -> None:
    documents = [{"id": f"large-{i}", "text": f"document {i} " + "lorem ipsum dolor " * 12_000} for i in range(30)]
    with httpx.Client(base_url=service.url, timeout=120, headers={"x-timeout-ms": "120000"}) as client:
        assert client.put("/v1/collections/large/documents", json={"documents": documents}).status_code == 200
        page = client.get("/v1/collections/large/documents", params={"limit": 100})
    assert len(page.content) > 6_000_000
    assert {document["id"]: document["text"] for document in page.json()["documents"]} == {
        document["id"]: document["text"] for document in documents
    }


def test_measurements_reach_rays_prometheus_endpoint(service: Up) -> None:
    stated = re.search(r"Metrics: (\S+)", service.said)
    assert stated is not None
    deadline = time.monotonic() + START_S
    # Ray pushes them every few seconds.
    while not re.search(r'ray_bge_serve_batch_tokens_count{[^}]*deployment="embedder-all-minilm"', httpx.get(stated[1], timeout=30).text):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_the_service_listens_on_loopback_alone(service: Up) -> None:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    assert [address for address, port in listening if int(port, 16) == service.port] == ["0100007F"]


def test_a_second_start_on_the_same_port_is_told_who_has_it(service: Up, bring_up: BringUp) -> None:
    second = bring_up(port=service.port)
    assert second.process.wait(START_S) == 1
    assert f"port {service.port} is taken by bge-serve, started in" in second.said
    assert f"(pid {service.process.pid}): stop it, or choose another port" in second.said


def test_a_second_start_over_the_same_data_is_told_who_has_it(service: Up, bring_up: BringUp) -> None:
    second = bring_up(data=service.data)
    assert second.process.wait(START_S) == 1
    assert "is in use by another process" in second.said
    assert second.said.count("\n") == 2
    assert httpx.get(f"{service.url}/readyz").status_code == 200
