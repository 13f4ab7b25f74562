"""The commands that talk to a service, through `main`, against the real app on a real server."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bgeserve import Client
from bgeserve.catalog import EMBEDDERS, RERANKERS
from bgeserve.cli import main
from bgeserve.errors import Overloaded
from bgeserve.model_load import ModelLoad
from bgeserve.protocols import Readiness
from bgeserve.types import Document, ModelStatus, RerankerOptions
from graphs.ports import free_port
from tests.api.backend import FINGERPRINT, LAYERS, Stage, dense_of
from tests.api.conftest import server, stage, url

__all__ = ["server", "stage", "url"]

DOCUMENTS = [
    Document("gzip", "compressed\n\tfiles \x1b[31mfast", {"module": "gzip", "lines": 300}),
    Document("argparse", "parse command line arguments", {"module": "argparse", "lines": 900}),
]


@pytest.fixture(autouse=True)
def service(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BGE_SERVE_URL", url)
    with Client(url) as client:
        client.put_documents(DOCUMENTS)
    return url


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    said = capsys.readouterr()
    return code, said.out, said.err


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    code, out, _ = run(capsys, *argv, "--json")
    assert code == 0
    return json.loads(out)


def test_search_prints_lines_for_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "search", "command line", "--top-k", "1", "--rerank", "overlap")
    assert code == 0
    assert out == "1\t1.0000\targparse\tparse command line arguments\tdense 0.707 (#1), full_text 2 (#1), fused 0.0328, rerank 1\n"
    assert "1 hits; embed" in err


def test_search_prints_a_table_for_a_person(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, out, _ = run(capsys, "search", "files", "--no-rerank")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    heading, row = [line.split() for line in plain.splitlines() if line.strip() and "─" not in line]
    assert heading == ["score", "id", "text", "why"]
    # Neither line breaks nor terminal escapes of a document reach the terminal.
    assert row[2:6] == ["gzip", "compressed", "files", "[31mfast"]
    assert "\x1b[31m" not in out


def test_search_prints_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, "search", "files", "--filter", '{"field": "lines", "lt": 500}', "--mode", "full_text", "--min-score", "0")
    assert [hit["id"] for hit in answer["results"]] == ["gzip"]
    assert answer["results"][0]["text"] == DOCUMENTS[0].text
    assert answer["results"][0]["metadata"] == {"module": "gzip", "lines": 300}


def test_embed(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, "embed", "read files", "parse", "--outputs", "dense", "sparse", "multi_vector", "--input-type", "query")
    assert answer["fingerprint"] == FINGERPRINT
    assert [item["tokens"] for item in answer["data"]] == [2, 1]
    assert answer["data"][0]["dense"] == dense_of("read files").tolist()
    assert len(answer["data"][1]["sparse"]["indices"]) == len(answer["data"][1]["multi_vector"]) == 1
    _, out, _ = run(capsys, "embed", "read files", "--outputs", "dense", "sparse", "multi_vector")
    assert out.startswith("0\tread files\t2\t32: 0.000")
    assert out.endswith("2 x 32\n")


def test_texts_come_from_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("read files\n\n  parse  \n"))
    assert [item["tokens"] for item in run_json(capsys, "embed", "-")["data"]] == [2, 1]
    monkeypatch.setattr(sys, "stdin", io.StringIO("no\nparse line\n"))
    assert [result["text"] for result in run_json(capsys, "rerank", "parse line", "-")] == ["parse line", "no"]


def test_rerank(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "rerank", "parse line", "no", "a line", "parse line")
    assert code == 0
    assert out == "2\t1.0000\tparse line\n1\t0.5000\ta line\n0\t0.0000\tno\n"


def test_what_is_asked_of_a_reranker_and_its_scores_at_each_layer(capsys: pytest.CaptureFixture[str], stage: Stage) -> None:
    code, out, _ = run(capsys, "rerank", "parse line", "a line", "parse line", "--cutoff-layers", "8", "40")
    assert code == 0
    assert out == "1\t1.0000\t8.0000\t40.0000\tparse line\n0\t0.5000\t4.0000\t20.0000\ta line\n"
    best, _ = run_json(capsys, "rerank", "parse line", "a line", "parse line", "--cutoff-layers", "8", "40")
    assert best["parts"] == {"layer_8": 8, "layer_40": 40}
    assert "parts" not in run_json(capsys, "rerank", "parse line", "a line", "--cutoff-layers", "8", "--instruction", "A: ")[0]
    assert stage.reranking.options[-1] == RerankerOptions(instruction="A: ", cutoff_layers=(8,))
    for options in (["--prompt", "p"], ["--compress-layers", "8", "16"], ["--compress-ratio", "2"]):
        code, out, err = run(capsys, "rerank", "a", "b", *options)
        name = options[0].removeprefix("--").replace("-", "_")
        assert (code, out) == (1, "")
        assert f"{name}: overlap does not take it" in err
    assert stage.reranking.options[-3:] == [
        RerankerOptions(prompt="p"),
        RerankerOptions(compress_layers=(8, 16)),
        RerankerOptions(compress_ratio=2),
    ]


def test_an_instruction_goes_before_queries(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, "embed", "files", "--input-type", "query", "--instruction", "find")
    assert answer["data"][0]["dense"] == dense_of("find files").tolist()
    code, _, err = run(capsys, "embed", "files", "--instruction", "find")
    assert code == 1
    assert "instruction is for queries" in err
    assert run_json(capsys, "search", "files", "--instruction", "find", "--mode", "dense")["tokens"]["embed"] == 2


def test_status(capsys: pytest.CaptureFixture[str], stage: Stage) -> None:
    stage.reranking.load = ModelLoad("", 1, 1.5, 2000, 12345, 6, 7)
    code, out, _ = run(capsys, "status")
    assert code == 0
    ready, *models, collection = out.splitlines()
    assert ready == "ready"
    assert [line.split("\t") for line in models] == [
        ["hashing", "embedder", "hashed-words", "retriever", "yes", "1 RUNNING"],
        ["overlap", "reranker", "word-overlap", "reranker", "yes", "1 RUNNING"],
        ["hashing", "1", "0.00", "0", "0", "0", "0"],
        ["overlap", "1", "1.50", "2000", "12345", "6", "7"],
        ["hashing", "16", "32", "dense sparse multi_vector", "instruction"],
        ["overlap", "16", "", "", "instruction cutoff_layers"],
    ]
    assert collection == f"default\t2\tready\tdense full_text\t{FINGERPRINT}"
    answer = run_json(capsys, "status")
    assert (answer["ready"], answer["collection"]["count"]) == (True, 2)
    assert [status["replicas"] for status in answer["statuses"]] == [{"RUNNING": 1}] * 2
    assert [model["layers"] for model in answer["models"]] == [None, list(LAYERS)]
    assert [(load["name"], load["backlog_s"]) for load in answer["loads"]] == [("hashing", 0), ("overlap", 1.5)]
    assert run_json(capsys, "status", "--collection", "missing")["collection"] is None


def test_status_asks_no_model_that_would_have_to_start(capsys: pytest.CaptureFixture[str], stage: Stage) -> None:
    stage.readiness = Readiness(ready=False, waiting_for=["embedder:hashing"])
    stage.service.statuses = [
        ModelStatus("hashing", "embedder", "hashed-words", available=False, replicas={"STARTING": 1}, protocol="retriever"),
        ModelStatus("overlap", "reranker", "word-overlap", available=True, replicas={}, protocol="reranker"),
    ]
    code, out, _ = run(capsys, "status")
    assert code == 1
    assert out.splitlines()[:3] == [
        "not ready: waiting for embedder:hashing",
        "hashing\tembedder\thashed-words\tretriever\tno\t1 STARTING",
        "overlap\treranker\tword-overlap\treranker\tyes\tnone",
    ]
    assert "instruction" not in out


def test_waiting_for_a_model(capsys: pytest.CaptureFixture[str], stage: Stage) -> None:
    code, out, err = run(capsys, "status", "--wait", "overlap")
    assert (code, out, err) == (0, "overlap\treranker\tword-overlap\treranker\tyes\t1 RUNNING\n", "")
    assert run_json(capsys, "status", "--wait", "overlap")["replicas"] == {"RUNNING": 1}
    code, out, err = run(capsys, "status", "--wait", "bge", "--timeout-s", "3600")
    assert (code, out) == (1, "")
    assert "'bge' is not served here; the models are ['hashing', 'overlap']" in err

    stage.service.statuses = [
        ModelStatus("overlap", "reranker", "word-overlap", available=False, replicas={"STARTING": 2}, protocol="reranker")
    ]
    code, out, err = run(capsys, "status", "--wait", "overlap", "--timeout-s", "0.3")
    assert (code, out) == (1, "")
    assert err == "bge-serve: model 'overlap' is not available after 0.3 s: its replicas are 2 STARTING\n"


def test_a_person_sees_what_is_waited_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    code, _, err = run(capsys, "status", "--wait", "overlap")
    assert code == 0
    assert "waiting for overlap" in err


def test_models_lists_the_catalogue_without_a_service(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGE_SERVE_URL", f"http://127.0.0.1:{free_port()}")
    code, out, _ = run(capsys, "models")
    assert code == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
    assert len(rows) == len(out.splitlines()) == len(EMBEDDERS) + len(RERANKERS)
    assert rows["BAAI/bge-m3"] == [
        *("xlm-roberta", "embedder", "cls", "dense sparse multi_vector", "1024", "8192", "multilingual", "MIT", "568 M"),
        *("2.27 GB", "1.14 GB"),
    ]
    assert rows["BAAI/bge-reranker-v2-minicpm-layerwise"][1:5] == ["reranker", "layerwise", "", ""]

    listed = {row["name"]: row for row in run_json(capsys, "models")}
    assert listed.keys() == rows.keys()
    assert listed["BAAI/bge-m3"]["weights_gb"] == {"float32": 2.272, "bfloat16": 1.136, "float16": 1.136}
    assert (listed["BAAI/bge-reranker-v2-gemma"]["role"], listed["BAAI/bge-reranker-v2-gemma"]["kind"]) == ("reranker", "llm")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["search", "files", "--collection", "missing"], "'missing'"),
        (["search", "files", "--top-k", "0"], "top_k"),
        (["search", "files", "--rerank", "hashing"], "'hashing'"),
        (["embed", "a", "--model", "bge"], "'bge' is not served here"),
        (["rerank", "a", "b", "--model", "hashing"], "embedder"),
    ],
)
def test_the_service_says_no(capsys: pytest.CaptureFixture[str], argv: list[str], said: str) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (1, "")
    assert err.startswith("bge-serve: ")
    assert err.count("\n") == 1
    assert said in err


def test_the_service_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "status", "--url", f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "cannot be reached" in err


def test_a_busy_service_is_waited_for_only_as_long_as_asked(capsys: pytest.CaptureFixture[str], stage: Stage) -> None:
    stage.embedding.failures = [Overloaded("busy", retry_after_s=60)]
    code, _, err = run(capsys, "embed", "a", "--timeout-s", "5")
    assert (code, err) == (1, "bge-serve: busy\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "required"),
        (["serch", "a"], "invalid choice: 'serch'"),
        (["search"], "query"),
        (["search", "a", "--filter", "{"], "is not JSON"),
        (["search", "a", "--mode", "bm25"], "invalid choice: 'bm25'"),
        (["search", "a", "--rerank", "x", "--no-rerank"], "not allowed with"),
        (["embed", "a", "--outputs", "dens"], "invalid choice: 'dens'"),
        (["embed", "-"], "no texts came from stdin"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_hears_no_complaint(service: str) -> None:
    """`bge-serve embed ... | head -0`"""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "import sys; from bgeserve.cli import main; sys.exit(main())", "embed", "a", "--json"]
    with os.fdopen(write, "wb") as closed_pipe:
        done = subprocess.run(command, stdout=closed_pipe, stderr=subprocess.PIPE, cwd=Path(__file__).parents[1], check=False)
    assert (done.returncode, done.stderr) == (1, b"")
