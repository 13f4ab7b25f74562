"""The clients against the real app on a real server: the same answers and errors from both, and retries when told so."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest

from bgeserve import AsyncClient, Client, wire
from bgeserve.api import create_app
from bgeserve.attempts import Policy, attempts
from bgeserve.errors import (
    BgeServeError,
    ComputeError,
    DeadlineExceeded,
    FingerprintMismatch,
    InvalidRequest,
    NotFound,
    Overloaded,
    ReplicaFull,
    RequestError,
    ServiceError,
    StorageFull,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownModel,
    WrongRole,
)
from bgeserve.protocols import Readiness
from bgeserve.types import Document, EmbedderOptions, Example, ModelStatus, RerankerOptions
from graphs.ports import free_port
from tests.api.backend import FINGERPRINT, LAYERS, MAX_TOKENS, Stage, dense_of, sparse_of
from tests.api.conftest import LIMITS, server, stage, url
from tests.api.keyrings import keyring_of_keys, made_key
from tests.api.serving import serving

__all__ = ["server", "stage", "url"]

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, url: str) -> Call:
    """Calls a method of either client by its name, and answers what it answers."""
    options: dict[str, Any] = {"timeout_s": 20}

    def call_sync(method: str, *args: Any, **kwargs: Any) -> Any:
        with Client(kwargs.pop("url", url), **{**options, **kwargs.pop("client", {})}) as client:
            answer = getattr(client, method)(*args, **kwargs)
            return list(answer) if inspect.isgenerator(answer) else answer

    def call_async(method: str, *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient(kwargs.pop("url", url), **{**options, **kwargs.pop("client", {})}) as client:
                answer = getattr(client, method)(*args, **kwargs)
                return [item async for item in answer] if inspect.isasyncgen(answer) else await answer

        return asyncio.run(run())

    return call_sync if request.param == "sync" else call_async


DOCUMENTS = [
    Document("gzip", "read and write compressed files", {"module": "gzip", "tags": ["files", "archive"]}),
    Document("argparse", "parse command line arguments", {"module": "argparse", "lines": 900}),
]


def test_encode_and_embed(call: Call) -> None:
    texts = ["parse command line", "word " * (MAX_TOKENS + 1)]
    embeddings = call("encode", texts, outputs=["dense", "sparse", "multi_vector"])
    assert embeddings.fingerprint == FINGERPRINT
    assert (list(embeddings.tokens), list(embeddings.truncated)) == ([3, MAX_TOKENS], [False, True])
    np.testing.assert_array_equal(embeddings.dense[0], dense_of(texts[0]))
    np.testing.assert_array_equal(embeddings.sparse[0].indices, sparse_of(texts[0]).indices)
    np.testing.assert_array_equal(embeddings.sparse[0].values, sparse_of(texts[0]).values)
    np.testing.assert_array_equal(embeddings.multi_vector[0], [dense_of(word) for word in texts[0].split()])
    np.testing.assert_array_equal(call("embed", texts, input_type="query"), embeddings.dense)
    assert call("embed", "one text").shape == (1, 32)
    sparse_only = call("encode", "a", outputs=["sparse"])
    assert sparse_only.dense is None
    assert sparse_only.multi_vector is None


def test_rerank_keeps_the_order_of_the_passages(call: Call) -> None:
    scores = call("rerank", "parse line", ["no", "parse line", "line"])
    np.testing.assert_array_equal(scores.normalized, np.float32([0, 1, 0.5]))
    np.testing.assert_array_equal(scores.raw, np.float32([-5, 5, 0]))
    assert (list(scores.tokens), list(scores.truncated)) == ([3, 4, 3], [False] * 3)


def test_what_is_asked_of_a_model_reaches_it(call: Call, stage: Stage) -> None:
    examples = [Example("open a zip", "zipfile"), Example("hash", "hashlib", "find")]
    np.testing.assert_array_equal(call("embed", "files", input_type="query", instruction="find"), [dense_of("find files")])
    with pytest.raises(InvalidRequest, match="hashing takes none") as caught:
        call("encode", "files", input_type="query", examples=examples)
    assert caught.value.field == "examples"
    with pytest.raises(InvalidRequest, match="is for queries"):
        call("embed", "files", instruction="find")
    assert stage.embedding.options == [EmbedderOptions(instruction="find"), EmbedderOptions(examples=examples)]

    call("put_documents", DOCUMENTS)
    call("search", "files", instruction="find")
    assert stage.embedding.options[-1] == EmbedderOptions(instruction="find")


def test_an_answer_without_the_reranker_says_so(call: Call, stage: Stage) -> None:
    call("put_documents", DOCUMENTS)
    stage.reranking.failures = [Unavailable("the reranker is down")]
    degraded, whole = (call("search_many", ["command line"], rerank=True, top_k=1) for _ in range(2))
    assert (degraded.degraded, whole.degraded) == (["rerank"], [])
    assert set(degraded.results[0][0].scores) == {"dense", "full_text", "fused"}
    assert whole.results[0][0].scores["rerank"] == 1


def test_the_score_of_each_cutoff_layer(call: Call, stage: Stage) -> None:
    scores = call("rerank", "parse line", ["line", "parse line"], cutoff_layers=[8, 40])
    assert {name: (raw.dtype, raw.tolist()) for name, raw in scores.parts.items()} == {
        "layer_8": (np.float32, [4, 8]),
        "layer_40": (np.float32, [20, 40]),
    }
    assert scores.raw.tolist() == [20, 40]
    assert call("rerank", "parse line", ["line"], cutoff_layers=8, prompt=None).parts == {}
    for name, value in {"prompt": "p", "compress_layers": [8], "compress_ratio": 2, "weights": {"dense": 1}}.items():
        with pytest.raises(InvalidRequest, match="overlap does not take it") as caught:
            call("rerank", "a", ["b"], **{name: value})
        assert caught.value.field == name
    assert stage.reranking.options[:2] == [RerankerOptions(cutoff_layers=(8, 40)), RerankerOptions(cutoff_layers=(8,))]


def test_documents_come_back_as_they_were_put_and_are_found(call: Call) -> None:
    written = call("put_documents", DOCUMENTS)
    assert (written.upserted, written.unchanged, written.tokens) == (2, 0, 9)
    assert call("put_documents", DOCUMENTS).unchanged == 2
    assert call("get_documents", ["argparse", "missing", "gzip"]) == DOCUMENTS[::-1]
    assert call("documents", page=1) == DOCUMENTS[::-1]
    assert call("collection").count == 2

    (hit,) = call("search", "command line", top_k=1, rerank=True, filter={"field": "lines", "gte": 900})
    assert (hit.id, hit.score, hit.metadata) == ("argparse", 1.0, {"module": "argparse", "lines": 900})
    assert hit.ranks == {"dense": 1, "full_text": 1}
    answer = call("search_many", ["files", "shell"], mode="full_text")
    assert [[hit.id for hit in hits] for hits in answer.results] == [["gzip"], []]
    assert set(answer.timings_ms) == {"embed", "retrieve"}
    assert answer.degraded == []

    assert call("delete_documents", filter={"field": "module", "eq": "gzip"}) == 1
    assert call("delete_documents", ["argparse", "missing"]) == 1
    assert call("collection").count == 0


def test_a_collection_is_deleted_with_its_documents(call: Call) -> None:
    call("put_documents", DOCUMENTS, collection="some")
    assert call("delete_collection", "some") == 2
    for method in ("collection", "delete_collection"):
        with pytest.raises(NotFound, match="'some'"):
            call(method, "some")


def test_many_documents_go_in_several_requests_with_progress(call: Call, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_PUT_DOCUMENTS", 10)
    progress: list[int] = []
    documents = (Document(str(i), f"text {i}") for i in range(25))
    assert call("put_documents", documents, collection="many", on_progress=progress.append).upserted == 25
    assert progress == [10, 20, 25]
    assert stage.embedding.lanes == ["bulk"] * 3
    assert call("collection", "many").count == 25


def test_writes_are_split_by_bytes_too() -> None:
    sizes = [100, wire.MAX_PUT_BYTES, 10, 10]
    batches = list(wire.split_documents(Document(str(i), "x" * size) for i, size in enumerate(sizes)))
    assert [[document.id for document in batch] for batch in batches] == [["0"], ["1"], ["2", "3"]]


def test_models_and_readiness(call: Call, stage: Stage) -> None:
    assert [(model.name, model.role, model.max_tokens) for model in call("models")] == [
        ("hashing", "embedder", MAX_TOKENS),
        ("overlap", "reranker", MAX_TOKENS),
    ]
    embedder, reranker = call("models")
    assert (embedder.family, embedder.kind, list(embedder.options), embedder.layers) == ("hash", "mean", ["instruction"], None)
    assert (list(reranker.options), reranker.layers) == (["instruction", "cutoff_layers"], LAYERS)
    assert call("ready") == Readiness(ready=True, waiting_for=[])
    stage.readiness = Readiness(ready=False, waiting_for=["embedder:hashing"])
    assert call("ready") == Readiness(ready=False, waiting_for=["embedder:hashing"])


def test_waiting_ends_when_the_service_is_ready(call: Call, stage: Stage) -> None:
    stage.readiness = Readiness(ready=False, waiting_for=["embedder:hashing"])

    def become_ready() -> None:
        time.sleep(0.3)
        stage.readiness = Readiness(ready=True)

    thread = Thread(target=become_ready)
    thread.start()
    call("wait_until_ready", timeout_s=20)
    thread.join()


def test_waiting_in_vain_says_for_what(call: Call, stage: Stage) -> None:
    stage.readiness = Readiness(ready=False, waiting_for=["embedder:hashing"])
    with pytest.raises(Unavailable, match=r"not ready after 0\.3 s: it waits for embedder:hashing"):
        call("wait_until_ready", timeout_s=0.3)


def status(name: str, available: bool, **replicas: int) -> ModelStatus:
    return ModelStatus(name, "reranker", "word-overlap", available, replicas, "reranker")


def test_statuses_are_what_the_service_says(call: Call, stage: Stage) -> None:
    stage.service.statuses = [status("overlap", False, STARTING=2, RUNNING=1), status("other", True)]
    assert call("statuses") == stage.service.statuses


def test_waiting_for_a_model_ends_when_it_is_available(call: Call, stage: Stage) -> None:
    stage.service.statuses = [status("other", False), status("overlap", False, STARTING=1)]

    def become_available() -> None:
        time.sleep(0.3)
        stage.service.statuses = [status("other", False), status("overlap", True, RUNNING=1)]

    thread = Thread(target=become_available)
    thread.start()
    assert call("wait_for_model", "overlap", timeout_s=20) == status("overlap", True, RUNNING=1)
    thread.join()


@pytest.mark.parametrize(
    ("replicas", "said"),
    [({"STARTING": 2, "STOPPING": 1}, "its replicas are 2 STARTING, 1 STOPPING"), ({}, "its replicas are not there yet")],
)
def test_waiting_for_a_model_in_vain_says_for_what(call: Call, stage: Stage, replicas: dict[str, int], said: str) -> None:
    stage.service.statuses = [status("overlap", False, **replicas)]
    with pytest.raises(Unavailable, match=rf"model 'overlap' is not available after 0\.3 s: {said}"):
        call("wait_for_model", "overlap", timeout_s=0.3)


def test_a_model_that_is_not_served_is_not_waited_for(call: Call) -> None:
    with pytest.raises(UnknownModel, match=r"'bge' is not served here; the models are \['hashing', 'overlap'\]"):
        call("wait_for_model", "bge", timeout_s=3600)


def test_a_service_that_is_not_there_yet_is_waited_for(call: Call) -> None:
    with pytest.raises(Unavailable, match=r"not available after 0\.3 s: the service cannot be reached"):
        call("wait_for_model", "overlap", timeout_s=0.3, url=f"http://127.0.0.1:{free_port()}")


# -- errors ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raised",
    [
        FingerprintMismatch("another model", field="model"),
        StorageFull("no room"),
        ComputeError("this text"),
        DeadlineExceeded("late"),
    ],
)
def test_an_error_arrives_as_it_was_raised(call: Call, stage: Stage, raised: BgeServeError) -> None:
    stage.embedding.failures = [raised]
    with pytest.raises(type(raised)) as caught:
        call("embed", "a")
    assert (caught.value.message, caught.value.field) == (raised.message, raised.field)
    assert stage.embedding.started == 1


@pytest.mark.parametrize(
    ("method", "args", "options", "kind"),
    [
        ("embed", ["a"], {"model": "bge"}, UnknownModel),
        ("embed", ["a"], {"model": "overlap"}, WrongRole),
        ("embed", [""], {}, InvalidRequest),
        ("collection", ["missing"], {}, NotFound),
        ("embed", ["a" * (LIMITS.max_body_bytes + 1)], {}, TooLarge),
        ("search", ["a"], {"min_score": float("nan")}, InvalidRequest),
        ("embed", ["\ud800"], {}, InvalidRequest),
        ("put_documents", [[Document("a", "b", {"m": object()})]], {}, InvalidRequest),  # type: ignore[dict-item]
    ],
)
def test_what_is_wrong_is_raised(call: Call, method: str, args: list[Any], options: dict[str, Any], kind: type[BgeServeError]) -> None:
    with pytest.raises(kind):
        call(method, *args, **options)


def test_an_error_that_nobody_raised_on_purpose(call: Call, stage: Stage) -> None:
    stage.embedding.failures = [RuntimeError("a bug")]
    with pytest.raises(ServiceError, match="its log says why"):
        call("embed", "a")


def test_the_key_comes_from_the_call_or_the_environment(call: Call, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(create_app(stage.service, LIMITS, keyring_of_keys(made_key("secret")))) as locked:
        with pytest.raises(Unauthorized):
            call("models", url=locked)
        assert call("models", url=locked, client={"api_key": "secret"})
        monkeypatch.setenv("BGE_SERVE_API_KEY", "secret")
        monkeypatch.setenv("BGE_SERVE_URL", locked)
        assert call("models", url=None)


def test_a_url_without_a_scheme_is_a_mistake() -> None:
    with pytest.raises(InvalidRequest, match="'localhost:8000'"):
        Client("localhost:8000")


# -- deadlines and retries -------------------------------------------------------------------------------------------------------------


def test_the_deadline_is_the_services_too(call: Call, stage: Stage) -> None:
    stage.embedding.delay_s = 60
    with pytest.raises(DeadlineExceeded, match="ms"):
        call("embed", "a", timeout_s=0.2)
    assert stage.embedding.cancelled == 1
    (timeout_s,) = stage.embedding.timeouts_s
    assert timeout_s is not None
    assert timeout_s <= 0.2


@pytest.mark.parametrize(
    "refused", [Overloaded("busy", retry_after_s=0.1), ReplicaFull("full", retry_after_s=0.1), Unavailable("starting")]
)
def test_a_refusal_for_now_is_tried_again_when_the_service_says(call: Call, stage: Stage, refused: BgeServeError) -> None:
    stage.embedding.failures = [refused]
    started = time.monotonic()
    assert call("embed", "a").shape == (1, 32)
    assert time.monotonic() - started >= (refused.retry_after_s or 1)  # one second where it does not say
    assert stage.embedding.started == 2


def test_a_refusal_that_outlasts_the_deadline_is_raised_at_once(call: Call, stage: Stage) -> None:
    stage.embedding.failures = [Overloaded("busy", retry_after_s=3600)]
    with pytest.raises(Overloaded) as caught:
        call("embed", "a")
    assert caught.value.retry_after_s == 3600
    assert stage.embedding.started == 1


def test_retrying_can_be_switched_off(call: Call, stage: Stage) -> None:
    stage.embedding.failures = [Overloaded("busy", retry_after_s=1)]
    with pytest.raises(Overloaded):
        call("embed", "a", client={"retry": False})
    assert stage.embedding.started == 1


def test_nothing_answers(call: Call) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        call("models", url=f"http://127.0.0.1:{free_port()}", client={"timeout_s": 0.5})


@pytest.mark.parametrize(("has_answered", "elapsed_s", "is_tried_again"), [(False, 5, False), (True, 5, True), (True, 25, False)])
def test_a_service_that_has_answered_before_is_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch, has_answered: bool, elapsed_s: float, is_tried_again: bool
) -> None:
    now = [0.0]
    monkeypatch.setattr("bgeserve.attempts.monotonic", lambda: now[0])
    policy = Policy(timeout_s=60, retry=True)
    if has_answered:
        steps = attempts(wire.ready(), policy)
        next(steps)
        with pytest.raises(StopIteration):
            steps.send(httpx.Response(200, json={"ready": True, "waiting_for": []}))
    steps = attempts(wire.ready(), policy)
    next(steps)
    now[0] = elapsed_s
    if is_tried_again:
        assert isinstance(steps.send(httpx.ConnectError("nobody listens")), float)
    else:
        with pytest.raises(Unavailable, match="cannot be reached: nobody listens"):
            steps.send(httpx.ConnectError("nobody listens"))


@contextmanager
def front(*answers: tuple[int, str] | None) -> Iterator[str]:
    """Something between the client and the service: answers with what it is given, in turn; None breaks the connection off."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = left.pop(0)
            if answer is None:
                self.close_connection = True
                return
            status, body = answer
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


MODELS = '{"object": "list", "data": []}'


@pytest.mark.parametrize(
    "failure",
    [
        None,
        (404, "Path '/v1/models' not found."),
        (500, "Internal Server Error"),
        (500, '{"error": "text"}'),
        (502, "<html>"),
        (503, "<html>no replica</html>"),
    ],
)
def test_a_replica_that_dies_in_the_middle_costs_nothing_but_time(call: Call, failure: tuple[int, str] | None) -> None:
    with front(failure, failure, (200, MODELS)) as address:
        assert call("models", url=address) == []


READY = '{"ready": true, "waiting_for": []}'


@pytest.mark.parametrize("starting", [None, (404, "Path '/readyz' not found."), (503, READY.replace("true", "false"))])
def test_a_front_that_does_not_know_the_service_yet_is_waited_for(call: Call, starting: tuple[int, str] | None) -> None:
    with front(starting, starting, (200, READY)) as address:
        assert call("wait_until_ready", url=address, timeout_s=20) is None
    with front(*[starting] * 50) as address, pytest.raises(Unavailable, match="not ready after"):
        call("wait_until_ready", url=address, timeout_s=0.3)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((504, "<html>"), DeadlineExceeded),
        ((418, "<html>"), RequestError),
        ((500, '{"error": {"message": "a bug", "param": null, "code": "internal_error"}}'), ServiceError),
        ((500, '{"error": {"message": "of tomorrow", "param": null, "code": "tired"}}'), ServiceError),
        ((404, '{"error": {"message": "of tomorrow", "param": null, "code": "moved"}}'), RequestError),
        ((200, "<html>"), ServiceError),
        ((200, '{"data": 5}'), ServiceError),
        ((302, ""), RequestError),
    ],
)
def test_an_answer_that_is_not_this_apis(call: Call, answer: tuple[int, str], kind: type[BgeServeError]) -> None:
    with front(answer) as address, pytest.raises(kind) as caught:
        call("models", url=address)
    assert type(caught.value) is kind


def test_a_newer_service_may_say_more(call: Call) -> None:
    model = {"id": "m", "role": "embedder", "model": "x", "max_tokens": 5, "outputs": [], "colour": "blue"}
    with front((200, f'{{"data": [{str(model).replace(chr(39), chr(34))}], "more": 1}}')) as address:
        (found,) = call("models", url=address)
    assert asdict(found)["name"] == "m"


def test_both_clients_offer_the_same() -> None:
    def offered(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters) for name, member in vars(kind).items() if callable(member) and name[0] != "_"
        }

    assert offered(Client) == offered(AsyncClient)
