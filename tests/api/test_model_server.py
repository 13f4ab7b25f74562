"""The three methods of BAAI's model servers, over HTTP and as a handle calls them: the same answers from both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import httpx
import numpy as np
import pytest

from bgeserve.api import create_app
from bgeserve.api.model_facts import facts_of
from bgeserve.api.model_server import ModelServer
from bgeserve.caller import Caller
from bgeserve.deadline import Deadline
from bgeserve.errors import DeadlineExceeded, Overloaded
from bgeserve.types import ModelInfo, RerankerOptions
from tests.api.backend import DIMENSIONS, LAYERS, MAX_TOKENS, Stage, dense_of, sparse_of
from tests.api.conftest import LIMITS
from tests.api.keyrings import keyring_of_keys, made_key
from tests.api.test_answers import ask

PAIRS = [["parse line", "parse line"], ["files", "no"], ["parse line", "a line"], ["files", "read files"]]
SCORES = [5, -5, 0, 5]


async def told(http: httpx.AsyncClient, method: str, request: Mapping[str, Any]) -> Any:
    answer = await ask(http, "POST", f"/{method}", request)
    assert answer.keys() == {"state", "msg"}
    assert answer["state"] == "ok"
    return answer["msg"]


def plain(answer: Any) -> Any:
    """Arrays as JSON has them, rounded to what float32 holds."""
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [plain(value) for value in answer]
    if isinstance(answer, np.ndarray):
        return plain(answer.tolist())
    return float(np.float32(answer)) if isinstance(answer, (float, np.floating)) else answer


# -- inference -------------------------------------------------------------------------------------------------------------------------


async def test_sentences_become_every_kind_of_vector(http: httpx.AsyncClient) -> None:
    texts = ["parse command line", "read files"]
    options = {"return_sparse": True, "return_colbert_vecs": True, "batch_size": 12, "max_length": MAX_TOKENS}
    vecs = (await told(http, "inference", {"model": "hashing", "sentences": texts, "options": options}))["vecs"]
    np.testing.assert_array_equal(np.float32(vecs["dense_vecs"]), [dense_of(text) for text in texts])
    for text, weights, rows in zip(texts, vecs["lexical_weights"], vecs["colbert_vecs"], strict=True):
        sparse = sparse_of(text)
        assert weights == dict(zip(map(str, sparse.indices), sparse.values.tolist(), strict=True))
        np.testing.assert_array_equal(np.float32(rows), [dense_of(word) for word in text.split()])


async def test_what_was_not_asked_for_is_null_and_one_sentence_is_a_list_of_one(http: httpx.AsyncClient) -> None:
    vecs = (await told(http, "inference", {"model": "hashing", "sentences": "read files"}))["vecs"]
    assert (len(vecs["dense_vecs"]), vecs["lexical_weights"], vecs["colbert_vecs"]) == (1, None, None)
    options = {"return_dense": False, "return_sparse": True}
    vecs = (await told(http, "inference", {"model": "hashing", "sentences": "read files", "options": options}))["vecs"]
    assert (vecs["dense_vecs"], len(vecs["lexical_weights"])) == (None, 1)


async def test_pairs_are_scored_in_their_order_with_one_call_a_query(http: httpx.AsyncClient, stage: Stage) -> None:
    vecs = (await told(http, "inference", {"model": "overlap", "sentence_pairs": PAIRS}))["vecs"]
    assert vecs == {"scores": SCORES}
    assert stage.reranking.options == [None, None]
    normalized = {"model": "overlap", "sentence_pairs": PAIRS, "options": {"normalize": True}}
    assert (await told(http, "inference", normalized))["vecs"]["scores"] == [1, 0, 0.5, 1]
    assert (await told(http, "inference", {"model": "overlap", "sentence_pairs": PAIRS[2]}))["vecs"] == {"scores": [0]}


@pytest.mark.parametrize("cutoff_layers", [20, [20], [20, 20]])
async def test_one_cutoff_layer_gives_one_list_of_scores(http: httpx.AsyncClient, stage: Stage, cutoff_layers: Any) -> None:
    request = {"model": "overlap", "sentence_pairs": PAIRS, "options": {"cutoff_layers": cutoff_layers}}
    assert (await told(http, "inference", request))["vecs"]["scores"] == [20, 0, 10, 20]
    assert stage.reranking.options == [RerankerOptions(cutoff_layers=(20,))] * 2


async def test_several_cutoff_layers_give_a_list_each(http: httpx.AsyncClient) -> None:
    request: dict[str, Any] = {"model": "overlap", "sentence_pairs": PAIRS, "options": {"cutoff_layers": [8, 40]}}
    assert (await told(http, "inference", request))["vecs"]["scores"] == [[8, 0, 4, 8], [40, 0, 20, 40]]
    request["options"]["cutoff_layers"] = [40, 8, 40]
    assert (await told(http, "inference", request))["vecs"]["scores"] == [[40, 0, 20, 40], [8, 0, 4, 8]]
    request["options"]["cutoff_layers"] = [8, 40]
    request["options"]["normalize"] = True
    low, _ = (await told(http, "inference", request))["vecs"]["scores"]
    np.testing.assert_allclose(low, 1 / (1 + np.exp(-np.array([8, 0, 4, 8]))), rtol=1e-6)


async def test_the_lane_and_the_deadline_hold_here_too(http: httpx.AsyncClient, stage: Stage) -> None:
    headers = {"x-lane": "bulk", "x-timeout-ms": "5000"}
    await ask(http, "POST", "/inference", {"model": "hashing", "sentences": "a"}, headers=headers)
    assert stage.embedding.lanes == ["bulk"]
    assert 0 < (stage.embedding.timeouts_s[0] or 0) <= 5


# -- info and support_methods ----------------------------------------------------------------------------------------------------------


async def test_info(http: httpx.AsyncClient) -> None:
    embedder = await told(http, "info", {"model": "hashing"})
    assert "hashed-words embeds texts of up to 16 tokens (dense, sparse, multi_vector)" in embedder.pop("introduction")
    assert embedder == {
        "name": "hashing",
        "dimension": DIMENSIONS,
        "sequence_length": MAX_TOKENS,
        "family": "hash",
        "protocol": "retriever",
    }
    reranker = await told(http, "info", {"model": "overlap"})
    assert reranker.pop("feature")
    assert reranker == {
        "name": "overlap",
        "type": "layerwise",
        "layerwise": list(LAYERS),
        "base_model": "",
        "language": "",
        "family": "words",
        "protocol": "reranker",
    }


@pytest.mark.parametrize(
    ("model", "kind", "layers", "said"),
    [
        ("BAAI/bge-reranker-v2-m3", "cross_encoder", None, ("normal", None, "bge-m3", "multilingual")),
        ("BAAI/bge-reranker-v2-gemma", "llm", None, ("LLM-based", None, "gemma-2b", "multilingual")),
        ("/models/bge-reranker-v2-minicpm-layerwise", "layerwise", (8, 40), ("layerwise", (8, 40), "MiniCPM-2B-dpo-bf16", "multilingual")),
        ("/models/my-own", "cross_encoder", None, ("normal", None, "", "")),
    ],
)
def test_facts_of_published_rerankers(model: str, kind: str, layers: tuple[int, int] | None, said: tuple[object, ...]) -> None:
    facts = cast("dict[str, Any]", facts_of(ModelInfo("r", "reranker", model, 512, kind=kind, layers=layers)))
    assert (facts["type"], facts["layerwise"], facts["base_model"], facts["language"]) == said


def test_the_introduction_of_a_published_embedder_says_what_its_row_knows() -> None:
    facts = cast("dict[str, Any]", facts_of(ModelInfo("m3", "embedder", "BAAI/bge-m3", 8192, ("dense",), 1024)))
    assert "568 million parameters, for multilingual, licence MIT" in facts["introduction"]
    assert facts["family"] == "xlm-roberta"


async def test_support_methods(http: httpx.AsyncClient) -> None:
    answer = await told(http, "support_methods", {"model": "overlap"})
    assert answer["name"] == "overlap"
    assert answer["support_methods"] == list(answer["descriptions"]) == ["inference", "info", "support_methods"]
    assert "sentence_pairs" in answer["descriptions"]["inference"]
    assert "dense_vecs" in (await told(http, "support_methods", {"model": "hashing"}))["descriptions"]["inference"]


# -- errors ----------------------------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, Any, int, list[str]]] = [
    ("inference", {"sentences": "a"}, 400, ["model is required"]),
    ("inference", {"model": "hashing"}, 400, ["either sentences or sentence_pairs", "neither"]),
    ("inference", {"model": "hashing", "sentences": "a", "sentence_pairs": [["a", "b"]]}, 400, ["either", "both"]),
    ("inference", {"model": "bge", "sentences": "a"}, 404, ["'bge' is not served here", "hashing"]),
    ("inference", {"model": "bge", "sentences": "a", "options": {"max_length": 5}}, 404, ["'bge' is not served here"]),
    ("inference", {"model": "overlap", "sentences": "a"}, 400, ["'overlap' has the role reranker"]),
    ("inference", {"model": "hashing", "sentence_pairs": [["a", "b"]]}, 400, ["'hashing' has the role embedder"]),
    ("inference", {"model": "hashing", "sentences": ["a", ""]}, 400, ["sentences[1]", "white space"]),
    ("inference", {"model": "hashing", "sentences": ["a"] * 51}, 400, ["sentences", "1 to 50", "max_texts", "not 51"]),
    ("inference", {"model": "overlap", "sentence_pairs": "ab"}, 400, ["sentence_pairs must be a list of pairs", "a string of length 2"]),
    ("inference", {"model": "overlap", "sentence_pairs": []}, 400, ["sentence_pairs must hold 1 to 50 pairs"]),
    (
        "inference",
        {"model": "overlap", "sentence_pairs": ["a"]},
        400,
        ["sentence_pairs[0] must be a query and a passage", "a string of length 1"],
    ),
    ("inference", {"model": "overlap", "sentence_pairs": [["a", "b"], ["c"]]}, 400, ["sentence_pairs[1] must be", "['...']"]),
    ("inference", {"model": "overlap", "sentence_pairs": [["a", " "]]}, 400, ["sentence_pairs[0][1]", "white space"]),
    ("inference", {"model": "overlap", "sentence_pairs": [["a", 5]]}, 400, ["sentence_pairs[0][1]", "string", "not 5"]),
    ("inference", {"model": "overlap", "sentence_pairs": [["a", "b"]], "options": {"cutoff_layers": 41}}, 400, ["cutoff_layers", "41"]),
    ("inference", {"model": "overlap", "sentence_pairs": [["a", "b"]], "options": {"cutoff_layers": []}}, 400, ["options.cutoff_layers"]),
    (
        "inference",
        {"model": "overlap", "sentence_pairs": [["a", "b"]], "options": {"return_dense": True}},
        400,
        ["options.return_dense goes with sentences"],
    ),
    (
        "inference",
        {"model": "hashing", "sentences": "a", "options": {"normalize": True}},
        400,
        ["options.normalize goes with sentence_pairs"],
    ),
    ("inference", {"model": "hashing", "sentences": "a", "options": {"return_dense": False}}, 400, ["at least one of return_dense"]),
    (
        "inference",
        {"model": "hashing", "sentences": "a", "options": {"max_length": MAX_TOKENS - 1}},
        400,
        ["options.max_length must be at least 16, not 15", "`max_tokens`"],
    ),
    ("inference", {"model": "hashing", "sentences": "a", "options": {"pooling": "cls"}}, 400, ["options.pooling", "batch_size"]),
    ("inference", ["hashing"], 400, ["must be an object"]),
    ("info", {}, 400, ["model is required"]),
    ("info", {"model": "bge"}, 404, ["'bge' is not served here; the models are ['hashing', 'overlap']"]),
    ("support_methods", {"model": "bge"}, 404, ["'bge' is not served here; the models are ['hashing', 'overlap']"]),
    ("support_methods", {"model": 5}, 400, ["model", "string", "not 5"]),
]


@pytest.mark.parametrize(("method", "request_", "status", "said"), WRONG)
async def test_what_is_wrong_is_an_answer_in_this_dialect(
    http: httpx.AsyncClient, stage: Stage, method: str, request_: Any, status: int, said: list[str]
) -> None:
    response = await http.post(f"/{method}", json=request_)
    answer = response.json()
    assert (response.status_code, answer.keys(), answer["state"]) == (status, {"state", "msg"}, "error")
    for part in said:
        assert part in answer["msg"]
    assert await getattr(ModelServer(stage.service, LIMITS), method)(request_) == answer


async def test_other_failures_have_this_dialects_body_and_their_own_status(http: httpx.AsyncClient, stage: Stage) -> None:
    request = {"model": "hashing", "sentences": "a"}
    stage.embedding.failures = [Overloaded("busy", retry_after_s=2), DeadlineExceeded("late"), RuntimeError("/secret/path")]
    answers = [await http.post("/inference", json=request) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 504, 500]
    assert answers[0].headers["retry-after"] == "2"
    assert [answer.json()["msg"] for answer in answers[:2]] == ["busy", "late"]
    assert "secret" not in answers[2].text
    for answer in (*answers, await http.get("/inference"), await http.post("/info", content=b"{"), await http.post("/info", content=b"")):
        assert answer.json().keys() == {"state", "msg"}
        assert answer.json()["state"] == "error"


async def test_a_missing_key_is_said_in_this_dialect_too(stage: Stage) -> None:
    transport = httpx.ASGITransport(create_app(stage.service, LIMITS, keyring_of_keys(made_key("key"))))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as locked:
        response = await locked.post("/info", json={"model": "hashing"})
        assert (response.status_code, response.json()["state"]) == (401, "error")
        assert (await locked.get("/v1/models")).json()["error"]["code"] == "unauthorized"


# -- over a handle ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("support_methods", {"model": "overlap"}),
        ("info", {"model": "overlap"}),
        ("info", {"model": "hashing"}),
        ("inference", {"model": "hashing", "sentences": ["read files", "parse"], "options": {"return_sparse": True}}),
        ("inference", {"model": "hashing", "sentences": "read files", "options": {"return_dense": False, "return_colbert_vecs": True}}),
        ("inference", {"model": "overlap", "sentence_pairs": PAIRS, "options": {"normalize": True}}),
        ("inference", {"model": "overlap", "sentence_pairs": PAIRS, "options": {"cutoff_layers": [8, 40]}}),
    ],
)
async def test_a_handle_answers_as_http_does(http: httpx.AsyncClient, stage: Stage, method: str, request_: Any) -> None:
    over_http = await ask(http, "POST", f"/{method}", request_)
    over_a_handle = await getattr(ModelServer(stage.service, LIMITS), method)(request_)
    assert plain(over_a_handle) == plain(over_http)


async def test_over_a_handle_pairs_may_be_tuples_and_arrays_stay_arrays(stage: Stage) -> None:
    server = ModelServer(stage.service, LIMITS)
    answer = await server.inference({"model": "overlap", "sentence_pairs": [tuple(pair) for pair in PAIRS]}, Caller("bulk", Deadline(5)))
    assert answer["msg"]["vecs"]["scores"].tolist() == SCORES
    assert stage.reranking.lanes == ["bulk"] * 2
    assert all(timeout_s is not None and 0 < timeout_s <= 5 for timeout_s in stage.reranking.timeouts_s)
    one = await server.inference({"model": "overlap", "sentence_pairs": ("parse line", "a line")})
    assert one["msg"]["vecs"]["scores"].tolist() == [0]
