"""What an operator has of the real service: a JSON line and a trace for a request, metrics that the alerts ask for, and its status."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.k8s.prometheus import Query
from tests.k8s.variants import documents
from tests.otlp import Collector, collecting
from tests.ray.processes import BIN, QUICKSTART, START_S, Up, up

pytestmark = pytest.mark.ray
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs bge-serve[tracing]")

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"x-request-id": "mine-1", "traceparent": f"00-{TRACE}-{CALLER}-01"}
ONLY_IN_TROUBLE = {
    "ray_serve_health_check_failures_total",
    "ray_bge_serve_failed_batches_total",
    "ray_bge_serve_failed_writes_total",
    "ray_node_gram_used",
    "ray_node_gram_available",
}
"""Counters that nothing has raised yet, and what a machine without a GPU has not."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def service(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The quickstart with JSON logs and traces, after one write and one search."""
    folder = tmp_path_factory.mktemp("operations")
    config = folder / "config.yaml"
    config.write_text(f"logging_config: {{encoding: JSON}}\n{QUICKSTART.read_text()}")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        started = up(folder, config=config)
    try:
        started.wait_until_ready()
        with httpx.Client(base_url=started.url, timeout=60) as client:
            stored = [{"id": "gzip", "text": "read and write gzip files"}, {"id": "argparse", "text": "parse command lines"}]
            client.put("/v1/collections/default/documents", json={"documents": stored}).raise_for_status()
            answer = client.post("/v1/search", json={"query": "compress a file"}, headers=HEADERS)
            answer.raise_for_status()
            assert answer.headers.get_list("x-request-id") == ["mine-1"]
            assert client.post("/v1/encode", json={"input": "a", "model": "nobody"}).status_code == 404
        yield started
    finally:
        started.abort()


def eventually(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + START_S
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def test_a_request_has_one_line_and_nobody_tells_it_again(service: Up) -> None:
    folder = Path(service.handle_environment()["RAY_AUTH_TOKEN_PATH"]).parent
    logs = folder / "ray" / "session_latest" / "logs" / "serve"

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for file in logs.glob("replica_*ingress*.log") for line in file.read_text().splitlines()]

    # A line is written when its answer has gone.
    both = eventually(lambda: len(found := [line for line in lines() if line.get("route") in ("/v1/search", "/v1/encode")]) == 2 and found)
    search, refused = both
    assert (search["request_id"], search["status"], search["collection"], search["levelname"]) == ("mine-1", 200, "default", "INFO")
    assert search["tokens"] > 0
    assert search["stages_ms"].keys() >= {"read", "embed", "retrieve", "rerank", "render"}
    assert (refused["status"], refused["error"], refused["model"]) == (404, "model_not_found", "nobody")
    assert len([line for line in lines() if line.get("request_id") == "mine-1"]) == 1
    assert "compress a file" not in json.dumps(lines())


def test_a_search_is_one_trace_over_every_process(service: Up, collector: Collector) -> None:
    forwards = [("forward", "embed"), ("forward", "rerank")]

    def pairs() -> list[tuple[str, str]]:
        spans = [span for span in collector.spans if span.trace_id == TRACE]
        names = {span.span_id: span.name for span in spans}
        return sorted((span.name, names.get(span.parent_id, span.parent_id)) for span in spans)

    eventually(lambda: set(pairs()) >= {*forwards, ("POST /v1/search", CALLER)})
    assert pairs() == sorted(
        [
            ("POST /v1/search", CALLER),
            *((stage, "POST /v1/search") for stage in ("embed", "retrieve", "rerank")),
            *((stage, of) for of in ("embed", "rerank") for stage in ("tokenize", "queue", "forward")),
        ]
    )
    made_by = {span.name: span.resource["bge_serve.deployment"] for span in collector.spans if span.trace_id == TRACE}
    assert made_by["POST /v1/search"] == "ingress"
    assert len({span.resource["service.instance.id"] for span in collector.spans if span.trace_id == TRACE}) == 3


def test_prometheus_finds_what_the_alerts_ask_for(service: Up) -> None:
    stated = re.search(r"Metrics: (\S+)", service.said)
    assert stated
    rules = next(document for document in documents("everything") if document["kind"] == "PrometheusRule")
    asked = [Query(rule["alert"], rule["expr"]) for group in rules["spec"]["groups"] for rule in group["rules"]]
    wanted = {name for query in asked for name, _ in query.selectors()} - ONLY_IN_TROUBLE

    def exported() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, labels in re.findall(r"^(\w+)\{(.*)\} ", httpx.get(stated[1], timeout=30).text, re.MULTILINE):
            found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
        return found

    eventually(lambda: wanted <= exported().keys())
    labels = exported()
    for query in asked:
        for name, selected in query.selectors():
            if name in wanted:
                assert selected <= labels[name], query.where
                assert query.grouped_by() <= labels[name] | {"le"} or len(query.selectors()) > 1, query.where


def test_its_status_says_what_the_replicas_have_done(service: Up) -> None:
    done = subprocess.run(
        [BIN / "python", "-c", "import sys; from bgeserve.cli import main; sys.exit(main())", "status", "--url", service.url, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    status = json.loads(done.stdout)
    assert status["ready"]
    assert {load["name"]: load["replicas"] for load in status["loads"]} == {"all-minilm": 1, "late-interaction": 1}
    assert all(load["tokens_total"] > 0 and load["tokens_per_s"] > 0 for load in status["loads"])
