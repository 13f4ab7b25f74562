"""No text and no key in what is logged, nor in an error's answer: whoever asks keeps those in logs of their own."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import orjson
import pytest
from pydantic import TypeAdapter, ValidationError

from bgeserve.api import create_app
from bgeserve.errors import BgeServeError, ComputeError, Overloaded
from bgeserve.observe import ACCESS_LOGGER
from bgeserve.redaction import LOG_TEXTS_VARIABLE
from deployments.replica import prepare_replica
from tests.api.backend import Stage
from tests.api.conftest import LIMITS
from tests.api.keyrings import keyring_of_keys, made_key

TEXT = "canary"
"""Short, so that nothing spares it for its length."""
KEY = "key-of-the-mine"
LIMITED = made_key("limited", models=["nothing"], collections=["nothing"])
OUTSIDE = {b"authorization": b"Bearer limited"}
SIGNED = {"authorization": f"Bearer {KEY}"}
LONG = f"{TEXT} " * 17


@pytest.fixture
def served_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What Serve's log of a replica holds, of ours and of everything else."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    serve, ours = logging.getLogger("ray.serve"), logging.getLogger("bgeserve")
    before = (list(serve.handlers), list(serve.filters), list(ours.handlers))
    prepare_replica()
    serve.addHandler(handler)
    monkeypatch.setattr(
        logging.getLogger(ACCESS_LOGGER), "disabled", True
    )  # its lines name the replica, which is none here: test_access_log
    yield stream
    serve.handlers[:], serve.filters[:], ours.handlers[:] = before
    ours.setLevel(logging.NOTSET)


@pytest.fixture
async def locked(stage: Stage, served_log: io.StringIO) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(stage.service, LIMITS, keyring_of_keys(made_key(KEY, admin=True), LIMITED)))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


def chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "n": 0, "start": 0, "end": 1, "text": TEXT, "title": TEXT, "content_hash": "x", **fields}


DOCUMENTS = ("PUT", "/v1/collections/default/documents")
CHUNKS = ("PUT", "/v1/collections/default/chunks")
ENCODE, EMBEDDINGS, RERANK, SEARCH, INFERENCE = (
    ("POST", path) for path in ("/v1/encode", "/v1/embeddings", "/v1/rerank", "/v1/search", "/inference")
)
QUERY = {"input": TEXT, "input_type": "query"}
PAIR = {"query": TEXT, "documents": [TEXT]}
WRONG: list[tuple[tuple[str, str], Any]] = [
    *((ENCODE, {"input": TEXT, **wrong}) for wrong in ({"colour": 1}, {"outputs": []}, {"truncate": "yes"}, {"model": "none"})),
    *((ENCODE, {"input": wrong}) for wrong in ([TEXT, [TEXT]], {"text": TEXT}, [TEXT, None], [{"text": TEXT}], [TEXT] * 51)),
    (ENCODE, {"input": LONG, "truncate": False}),
    (ENCODE, {**QUERY, "examples": [TEXT]}),
    (ENCODE, {**QUERY, "examples": [{"query": TEXT}]}),
    (ENCODE, {**QUERY, "examples": [{"query": TEXT, "response": [TEXT]}]}),
    (ENCODE, {**QUERY, "instruction": [TEXT]}),
    (ENCODE, {"input": TEXT, "instruction": TEXT}),
    (ENCODE, {"inputs": [TEXT]}),
    *((EMBEDDINGS, {"input": wrong}) for wrong in ([[TEXT]], [1, TEXT], {"a": TEXT})),
    (EMBEDDINGS, {"input": TEXT, "dimensions": 3}),
    *((RERANK, {**PAIR, **wrong}) for wrong in ({"documents": TEXT}, {"documents": [{"text": TEXT, "title": TEXT}]}, {"top_n": 0})),
    *((RERANK, {**PAIR, **wrong}) for wrong in ({"query": [TEXT]}, {"prompt": [TEXT]}, {"model": "hashing"}, {"cutoff_layers": 41})),
    *((SEARCH, {"query": TEXT, **wrong}) for wrong in ({"mode": "x"}, {"top_k": 0}, {"collection": "none"}, {"filter": {"a": TEXT}})),
    *((SEARCH, {"query": wrong}) for wrong in ([[TEXT]], {"text": TEXT}, [TEXT, ""])),
    *((INFERENCE, {"model": "hashing", **wrong}) for wrong in ({"sentences": [[TEXT]]}, {"sentences": {"a": TEXT}})),
    *((INFERENCE, {"model": "overlap", "sentence_pairs": wrong}) for wrong in (TEXT, [TEXT], [[TEXT]], [[TEXT, [TEXT]]], {"a": TEXT})),
    (INFERENCE, {"model": "overlap", "sentence_pairs": [[TEXT, TEXT]], "options": {"batch_size": 0}}),
    *((DOCUMENTS, {"documents": wrong}) for wrong in (TEXT, [TEXT], {"id": TEXT}, [[TEXT]], [{"id": "a", "text": [TEXT]}])),
    (DOCUMENTS, {"documents": [{"id": "a", "text": TEXT, "title": [TEXT]}]}),
    (DOCUMENTS, {"documents": [{"id": "a", "text": TEXT, "metadata": {"m": {"deep": TEXT}}}]}),
    (DOCUMENTS, {"documents": [{"id": 5, "text": TEXT}]}),
    (CHUNKS, {"fingerprint": "f", "chunks": [chunk(dense=TEXT)]}),
    (CHUNKS, {"fingerprint": "f", "chunks": [chunk(end=-1)]}),
    (CHUNKS, {"fingerprint": "f", "chunks": [TEXT]}),
]


@pytest.mark.parametrize(("operation", "body"), WRONG)
async def test_what_is_wrong_is_said_without_the_texts(
    locked: httpx.AsyncClient, served_log: io.StringIO, caplog: pytest.LogCaptureFixture, operation: tuple[str, str], body: Any
) -> None:
    for headers, statuses in ((SIGNED, {400, 404}), ({}, {401}), (OUTSIDE, {400, 403})):
        response = await locked.request(*operation, json=body, headers=headers)
        assert response.status_code in statuses
        check(response.text, served_log.getvalue(), caplog.text)


@pytest.mark.parametrize(
    "content",
    [
        f'{{"query": "{TEXT}", "min_score": NaN}}'.encode(),
        f'{{"query": "{TEXT}'.encode(),
        f'{{"query": "{TEXT}\n"}}'.encode(),
        f"{{'query': '{TEXT}'}}".encode(),
        f"{TEXT}".encode(),
        f'"{TEXT}"'.encode(),
        f'{{"query": "{TEXT}\\ud800"}}'.encode(),
        f'{{"query": "{TEXT}'.encode() + b'\xff"}',
        f'["{TEXT}"]'.encode(),
    ],
)
async def test_a_body_that_is_no_json_is_not_quoted(
    locked: httpx.AsyncClient, served_log: io.StringIO, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    for path in ("/v1/search", "/inference", "/v1/embeddings", "/v1/rerank"):
        response = await locked.post(path, content=content, headers=SIGNED)
        assert response.status_code == 400
        check(response.text, served_log.getvalue(), caplog.text)


def quoting() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python(f"{TEXT} {KEY}")
    assert TEXT in str(caught.value), "pydantic quotes what it was given"
    return caught.value


def chained() -> RuntimeError:
    try:
        raise RuntimeError("outer") from quoting()
    except RuntimeError as error:
        return error


ASKED = [
    (ENCODE, {"input": TEXT}),
    (EMBEDDINGS, {"input": TEXT}),
    (SEARCH, {"query": TEXT}),
    (DOCUMENTS, {"documents": [{"id": "a", "text": TEXT}]}),
    (INFERENCE, {"model": "hashing", "sentences": TEXT}),
]


@pytest.mark.parametrize("failure", [quoting(), chained(), ValueError(f"{TEXT}: {KEY}")], ids=["pydantic", "chained", "value"])
@pytest.mark.parametrize(("operation", "body"), ASKED)
async def test_a_failure_is_logged_with_its_stack_and_without_its_message(
    locked: httpx.AsyncClient, stage: Stage, served_log: io.StringIO, operation: tuple[str, str], body: Any, failure: Exception
) -> None:
    stage.embedding.failures = [failure]
    response = await locked.request(*operation, json=body, headers=SIGNED)
    assert response.status_code == 500
    logged = served_log.getvalue()
    check(response.text, logged)
    assert f"{type(failure).__name__}: (message withheld: {LOG_TEXTS_VARIABLE}=1 logs it)" in logged
    assert "in meet" in logged
    assert "backend.py" in logged
    if failure.__cause__ is not None:
        assert logged.index("ValidationError: (message withheld") < logged.index("and then:") < logged.index("RuntimeError: (message")


async def test_whoever_looks_for_a_fault_may_have_the_messages(
    locked: httpx.AsyncClient, stage: Stage, served_log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_TEXTS_VARIABLE, "1")
    stage.embedding.failures = [quoting()]
    assert TEXT not in (await locked.post("/v1/encode", json={"input": TEXT}, headers=SIGNED)).text
    assert TEXT in served_log.getvalue()


async def test_what_the_system_says_is_logged_whole(locked: httpx.AsyncClient, stage: Stage, served_log: io.StringIO) -> None:
    stage.embedding.failures = [FileNotFoundError(2, "No such file or directory", "/models/x")]
    await locked.post("/v1/encode", json={"input": TEXT}, headers=SIGNED)
    assert "No such file or directory: '/models/x'" in served_log.getvalue()


@pytest.mark.parametrize("refused", [Overloaded("busy", retry_after_s=1), ComputeError("the model failed on this text alone: X")])
async def test_refusals_of_the_service_leave_no_texts_either(
    locked: httpx.AsyncClient, stage: Stage, served_log: io.StringIO, caplog: pytest.LogCaptureFixture, refused: BgeServeError
) -> None:
    for operation, body in ASKED:
        stage.embedding.failures = [refused]
        response = await locked.request(*operation, json=body, headers=SIGNED)
        assert response.status_code == refused.status
        check(response.text, served_log.getvalue(), caplog.text)


async def test_answers_do_have_texts(locked: httpx.AsyncClient) -> None:
    """That is what they are for: the canary is alive."""
    await locked.request(*DOCUMENTS, json={"documents": [{"id": "a", "text": TEXT}]}, headers=SIGNED)
    found = await locked.post("/v1/search", content=orjson.dumps({"query": TEXT}), headers=SIGNED)
    assert TEXT in found.text


def check(*written: str) -> None:
    for each in written:
        assert TEXT not in each
        assert KEY not in each
