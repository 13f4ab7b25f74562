"""A disk that fills up under a service: what its clients are told, and what is there afterwards."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.durability.disk import fill
from tests.checkpoints import make_bert
from tests.ray.processes import START_S, Up, replicas
from tests.stores.disks import tmpfs

pytestmark = pytest.mark.ray
BringUp = Callable[..., Up]

DISK_MIB, RESERVE_MIB = 224, 48
"""The disk, and what the store leaves of it."""
OTHERS_MIB = {"qdrant_edge": 64, "milvus": 136}
"""What a file of somebody else takes until it is deleted; Qdrant Edge needs the rest for its own files, Milvus Lite for documents alone."""
DOCUMENTS = "/v1/collections/default/documents"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path, DISK_MIB) as path:
        yield path


@pytest.mark.parametrize("kind", OTHERS_MIB)
def test_a_full_disk_refuses_writes_and_loses_nothing(kind: str, disk: Path, tmp_path: Path, bring_up: BringUp) -> None:
    if kind == "milvus":
        pytest.importorskip("milvus_lite")
    others = disk / "others"
    others.write_bytes(bytes(OTHERS_MIB[kind] * 2**20))
    service = bring_up(config=_config(kind, disk / "store", tmp_path))
    service.wait_until_ready()
    with httpx.Client(base_url=service.url, timeout=START_S, headers={"x-timeout-ms": "120000"}) as client:
        acknowledged = _write_until_refused(client)
        _require_refusal(_put(client, {"one more": "word"}))
        _require_readable(client, acknowledged)

        # Somebody else takes the reserve as well.
        fill(disk / "the rest")
        _require_refusal(_put(client, {"one more": "word"}))
        _require_readable(client, acknowledged)

        os.kill(replicas("retriever", service.driver_pid())[0], signal.SIGKILL)
        others.unlink()
        (disk / "the rest").unlink()
        _put_until_stored(client, {"one more": "word"})
        _require_readable(client, acknowledged | {"one more": "word"})


def _put_until_stored(client: httpx.Client, texts: dict[str, str]) -> None:
    """The next owner may have been killed in its turn: on a tmpfs Qdrant Edge needs room to open its files."""
    deadline = time.monotonic() + START_S
    while (answer := _put(client, texts)).status_code != 200:
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < deadline
        time.sleep(int(answer.headers["retry-after"]))


def _write_until_refused(client: httpx.Client) -> dict[str, str]:
    choose = random.Random(0)
    acknowledged: dict[str, str] = {}
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        # Noise, so that no engine can pack it.
        texts = {f"{len(acknowledged) + n}": f"amber {choose.randbytes(12_000).hex()}" for n in range(40)}
        answer = _put(client, texts)
        if answer.status_code != 200:
            _require_refusal(answer)
            return acknowledged
        acknowledged |= texts
    pytest.fail(f"the disk has not filled up with {len(acknowledged)} documents")


def _put(client: httpx.Client, texts: dict[str, str]) -> httpx.Response:
    return client.put(DOCUMENTS, json={"documents": [{"id": id, "text": text} for id, text in texts.items()]})


def _require_refusal(answer: httpx.Response) -> None:
    assert answer.status_code == 507, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == "storage_full"
    assert "min_free_bytes" in error["message"]


def _require_readable(client: httpx.Client, texts: dict[str, str]) -> None:
    """All that was acknowledged, nothing else, and a search that finds some of it."""
    stored: dict[str, str] = {}
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        answer = client.get(DOCUMENTS, params={"limit": 50, **({"after": page["next"]} if page["next"] else {})})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        stored |= {document["id"]: document["text"] for document in page["documents"]}
    assert stored == texts
    found = client.post("/v1/search", json={"query": "amber", "mode": "hybrid", "top_k": 5})
    assert found.status_code == 200, found.text
    assert len(found.json()["results"]) == 5


def _config(kind: str, store: Path, work: Path) -> Path:
    arguments = {
        "embedders": {"tiny": {"model": str(make_bert(work / "bert")), "cpus": 0.1, "workers": 1}},
        "store": {"kind": kind, "path": str(store), "create": True, "cpus": 0.1, "min_free_bytes": RESERVE_MIB * 2**20},
        "search": {"legs": ["dense", "full_text"]},
        "ingress": {"cpus": 0.1},
    }
    application = {"name": "search", "import_path": "graphs.search:build", "route_prefix": "/", "args": arguments}
    config = work / "config.yaml"
    config.write_text(yaml.safe_dump({"applications": [application]}))
    return config
