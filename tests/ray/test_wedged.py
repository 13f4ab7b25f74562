"""A replica whose forward does not end is found out, taken out of service and replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from tests.checkpoints import make_bge_m3
from tests.ray.processes import START_S, Up, replicas

pytestmark = pytest.mark.ray
BringUp = Callable[..., Up]

WEDGED_AFTER_S = 3.0
MAX_BATCH_TOKENS = 100_000
LONG_TEXTS = 12
"""Of 8,192 tokens each, in one batch: a real forward of a quarter of a minute, which the service is told to take for wedged."""


def test_a_wedged_forward_turns_readyz_red_and_its_replica_is_replaced(tmp_path: Path, bring_up: BringUp) -> None:
    model = {
        "model": str(make_bge_m3(tmp_path / "m3", max_tokens=8192)),
        "dtype": "float32",
        "cpus": 0.5,
        "workers": 1,
        "max_batch_tokens": MAX_BATCH_TOKENS,
        "max_queue_s": 60,
        "wedged_after_s": WEDGED_AFTER_S,
    }
    application = {
        "name": "search",
        "import_path": "graphs.embed:build",
        "route_prefix": "/",
        "args": {"embedders": {"m3": model}},
        "deployments": [{"name": "embedder-m3", "health_check_period_s": 0.5}],
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"applications": [application]}))
    service = bring_up(config=config)
    service.wait_until_ready()
    (before,) = replicas("embedder-m3", service.driver_pid())
    statuses: list[int] = []

    def ask() -> None:
        texts = [f"number {n} " + "word " * 9000 for n in range(LONG_TEXTS)]
        headers = {"x-timeout-ms": "60000"}
        statuses.append(httpx.post(f"{service.url}/v1/encode", json={"input": texts}, headers=headers, timeout=90).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    _wait_for_readyz(service, 503)
    asking.join(90)
    # It was sent again, to the new replica, which may get through with it before the health check has seen it three times.
    assert statuses[0] in (200, 503, 504)
    _wait_for_readyz(service, 200)
    assert httpx.post(f"{service.url}/v1/encode", json={"input": "a short text"}, timeout=60).status_code == 200
    _wait_until_gone(before, service)


def _wait_until_gone(replica: int, service: Up) -> None:
    """Its process ends with its forward, or when Ray has waited long enough for that."""
    deadline = time.monotonic() + START_S
    while replica in replicas("embedder-m3", service.driver_pid()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _wait_for_readyz(service: Up, status: int) -> None:
    deadline = time.monotonic() + START_S
    while httpx.get(f"{service.url}/readyz", timeout=30).status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)
