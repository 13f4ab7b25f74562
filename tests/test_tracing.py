"""One search through the real API and real engines is one connected trace at an OpenTelemetry collector; without OTEL_* there is none."""

from __future__ import annotations

import json
import pickle
from asyncio import create_task
from collections.abc import Generator
from contextvars import Context
from dataclasses import replace
from typing import Any

import httpx
import pytest

from bgeserve import tracing
from bgeserve.api import create_app
from bgeserve.engine import EmbedderEngine, RerankerEngine
from bgeserve.errors import Unavailable
from bgeserve.protocols import Readiness
from bgeserve.service import SearchService, Service
from bgeserve.settings import EmbedderSettings, IngressSettings, RerankerSettings, SearchSettings
from bgeserve.types import Document, Embeddings
from tests.api.backend import DictRetriever
from tests.checkpoints import TEXTS, make_bge_m3, make_reranker
from tests.otlp import Collector, collecting

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs bge-serve[tracing]")

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Elsewhere:
    """The engine as if it were in another process: a caller arrives as bytes, and nothing else of where it comes from."""

    def __init__(self, engine: EmbedderEngine) -> None:
        self.engine = engine
        self.info, self.chunk = engine.info, engine.chunk

    async def encode(self, texts: list[str], **asked: Any) -> Embeddings:
        asked["caller"] = pickle.loads(pickle.dumps(tracing.carried(asked["caller"])))
        return await create_task(self.engine.encode(texts, **asked), context=Context())


async def ready() -> Readiness:
    return Readiness(ready=True)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    m3 = make_bge_m3(tmp_path_factory.mktemp("m3"))
    embedder = EmbedderEngine("m3", EmbedderSettings(model=str(m3), dtype="float32", max_queue_s=60))
    folder = make_reranker(tmp_path_factory.mktemp("reranker"))
    reranker = RerankerEngine("r", RerankerSettings(model=str(folder), dtype="float32", max_queue_s=60))
    searching = SearchService(Elsewhere(embedder), DictRetriever(), {"r": reranker}, SearchSettings(reranker="r"))
    yield Service({"m3": Elsewhere(embedder)}, {"r": reranker}, searching, ready)
    embedder.close()
    reranker.close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Generator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


async def search(service: Service, **headers: str) -> httpx.Response:
    await service.put_documents("default", [Document("a", TEXTS[0]), Document("b", TEXTS[1])])
    transport = httpx.ASGITransport(create_app(service, IngressSettings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.post("/v1/search", json={"query": TEXTS[0]}, headers=headers)


async def test_a_search_is_one_trace_below_its_callers(service: Service, collector: Collector) -> None:
    stop = tracing.start({}, deployment="here")
    answer = await search(service, traceparent=f"00-{TRACE}-{CALLER}-01", **{"x-request-id": "mine"})
    stop()
    assert answer.status_code == 200
    of_search = {span.name: span for span in collector.spans if span.name == "POST /v1/search"}
    assert of_search["POST /v1/search"].attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/search",
        "http.response.status_code": 200,
        "bge_serve.request_id": "mine",
    }
    spans = [span for span in collector.spans if span.trace_id == TRACE]
    names = {span.span_id: span.name for span in spans}
    assert sorted((span.name, names.get(span.parent_id, span.parent_id)) for span in spans) == sorted(
        [
            ("POST /v1/search", CALLER),
            *((stage, "POST /v1/search") for stage in ("embed", "retrieve", "rerank")),
            *((stage, of) for of in ("embed", "rerank") for stage in ("tokenize", "queue", "forward")),
        ]
    )
    by_id = {span.span_id: span for span in spans}
    inner = [(span, by_id[span.parent_id]) for span in spans if span.parent_id in by_id]
    assert all(outer.start_ns <= span.start_ns <= span.end_ns <= outer.end_ns + 1_000_000 for span, outer in inner)
    assert {span.resource["service.name"] for span in spans} == {"bge-serve"}
    assert not [span for span in spans if TEXTS[0] in json.dumps(span.attributes)]


async def test_a_failure_is_marked_by_its_code_and_quotes_nothing(
    service: Service, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: object, **more: object) -> None:
        raise Unavailable("the store said: secret")

    monkeypatch.setattr(DictRetriever, "retrieve", fail)
    stop = tracing.start({})
    answer = await search(service)
    stop()
    assert answer.status_code == 503
    failed = {span.name: span.attributes["error.type"] for span in collector.spans if span.is_error}
    assert failed == {"POST /v1/search": "unavailable", "retrieve": "unavailable"}
    assert "secret" not in str(collector.spans)


async def test_what_the_caller_does_not_sample_is_not_sent(service: Service, collector: Collector) -> None:
    stop = tracing.start({})
    assert (await search(service, traceparent=f"00-{TRACE}-{CALLER}-00")).status_code == 200
    stop()
    assert collector.spans == []


async def test_without_a_start_nothing_is_traced(service: Service, collector: Collector) -> None:
    assert (await search(service, traceparent=f"00-{TRACE}-{CALLER}-01")).status_code == 200
    assert collector.spans == []


@pytest.mark.parametrize(
    ("environment", "is_asked_for"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_opentelemetrys_own_variables_switch_it_on(environment: dict[str, str], is_asked_for: bool) -> None:
    assert tracing.is_asked_for(environment) is is_asked_for


def test_a_caller_of_a_version_without_traces_is_understood() -> None:
    caller = replace(tracing.carried(tracing.Caller("bulk")), tenant="nightly")
    assert pickle.loads(pickle.dumps(caller)).traceparent == ""
