"""`bge-serve eval` against the real app and the real store on a real server: right figures, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import log2
from pathlib import Path
from typing import Any

import pytest

from bgeserve import Client
from bgeserve.api import create_app
from bgeserve.cli import main
from bgeserve.evaluation import measure
from bgeserve.protocols import Readiness
from bgeserve.retrieval import StoreRetriever
from bgeserve.service import SearchService, Service
from bgeserve.settings import IngressSettings, SearchSettings
from bgeserve.store_settings import QdrantEdgeSettings
from bgeserve.types import Document, Leg
from tests.api.backend import HashingEmbedder, OverlapReranker, Switch
from tests.api.serving import serving

CORPUS = {"d1": "amber basalt", "d2": "amber amber cedar", "d3": "delta ember", "d4": "fjord", "empty": ""}
QUERIES = {"best first": "fjord", "second": "amber cedar", "nothing": "quartz", "not judged": "delta"}
JUDGEMENTS = {"best first": {"d4": 1}, "second": {"d1": 1, "d2": 0}, "nothing": {"d3": 1}}

INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
from bgeserve.cli import main
sys.exit(main())
"""
"""Under a terminal it would be so; whatever runs these tests may have set some of them to be ignored, which is inherited."""

Serve = Callable[..., str]


class Stage:
    def __init__(self) -> None:
        self.embedding = Switch()
        self.reranking = Switch()


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def serve(stage: Stage, tmp_path: Path) -> Iterator[Serve]:
    """Starts a service with these legs and rerankers; answers its URL."""
    with ExitStack() as stack:

        def start(legs: tuple[Leg, ...] = ("dense", "full_text"), rerankers: tuple[str, ...] = ("overlap",), **settings: Any) -> str:
            embedder = HashingEmbedder(stage.embedding)
            retriever = StoreRetriever(QdrantEdgeSettings(path=tmp_path / "store", create=True, min_free_bytes=2**20))
            stack.callback(lambda: asyncio.run(retriever.close()))
            reranking = {name: OverlapReranker(stage.reranking) for name in rerankers}
            searching = SearchService(embedder, retriever, reranking, SearchSettings(legs=legs, **settings))
            service = Service({"hashing": embedder}, reranking, searching, _ready)
            return stack.enter_context(serving(create_app(service, IngressSettings())))

        yield start


async def _ready() -> Readiness:
    return Readiness(ready=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    write(folder / "corpus.jsonl", CORPUS)
    write(folder / "queries.jsonl", QUERIES)
    rows = [f"{query}\t{id}\t{score}\n" for query, judged in JUDGEMENTS.items() for id, score in judged.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def write(path: Path, texts: dict[str, str]) -> None:
    path.write_text("".join(json.dumps({"_id": id, "title": "", "text": text, "metadata": {}}) + "\n" for id, text in texts.items()))


def collections(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "store" / "collections").iterdir())


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    assert main(["eval", *arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return {row.pop("mode"): row for row in json.loads(said.out)}


def test_the_figures_are_those_of_the_rankings(capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path, tmp_path: Path) -> None:
    rows = evaluate(capsys, str(folder), "--url", serve())
    assert list(rows) == ["dense", "dense+rerank", "full_text", "full_text+rerank", "hybrid", "hybrid+rerank"]
    full_text = rows["full_text"]
    # First, second (d2 has both words), and nothing found: of the query that nobody judged there is no trace.
    assert list(full_text) == ["nDCG@10", "R@100", "RR@10", "p50_ms", "took_s"]
    assert full_text["nDCG@10"] == pytest.approx((1 + 1 / log2(3)) / 3, abs=1e-4)
    assert full_text["R@100"] == pytest.approx(2 / 3, abs=1e-4)
    assert full_text["RR@10"] == pytest.approx((1 + 1 / 2) / 3, abs=1e-4)
    assert full_text["took_s"] > 0
    assert 0 < full_text["p50_ms"] < 1000 * full_text["took_s"] + 1
    assert collections(tmp_path) == []


def test_a_service_has_a_row_for_each_thing_that_it_can_do(capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path) -> None:
    assert list(evaluate(capsys, str(folder), "--url", serve(("dense", "sparse"), ()))) == ["dense", "sparse", "full_text", "hybrid"]


def test_a_collection_with_token_vectors_has_a_row_more(capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path) -> None:
    rows = evaluate(capsys, str(folder), "--url", serve(("dense", "full_text", "multi_vector"), ()))
    assert list(rows) == ["dense", "full_text", "multi_vector", "hybrid"]
    # Of token vectors that are words a match of every word is a score of 1, which d2 alone has.
    assert rows["multi_vector"]["RR@10"] >= rows["dense"]["RR@10"] > 0


def test_a_reranker_orders_as_many_hits_as_it_is_given(capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path) -> None:
    """Twelve short texts are nearer to the query than the only one that has all of its words."""
    near = {f"near{i:02}": "amber cedar" for i in range(12)}
    write(folder / "corpus.jsonl", {**near, "right": "amber cedar fjord delta granite harbor iris juniper"})
    write(folder / "queries.jsonl", {"q": "amber cedar fjord"})
    (folder / "qrels" / "test.tsv").write_text("q\tright\t1\n")
    url = serve(rerank_top=30)
    rows = evaluate(capsys, str(folder), "--url", url)
    assert (rows["dense"]["RR@10"], rows["dense+rerank"]["RR@10"]) == (0, 1)
    rows = evaluate(capsys, str(folder), "--url", url, "--rerank-top", "5")
    assert rows["dense+rerank"]["RR@10"] == 0
    # What was not reranked follows after what was.
    assert rows["dense+rerank"]["R@100"] == rows["dense"]["R@100"] == 1


def test_the_lane_is_that_of_jobs(capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path, stage: Stage) -> None:
    evaluate(capsys, str(folder), "--url", serve())
    assert set(stage.embedding.lanes) == {"bulk"}


def test_a_person_sees_a_table_and_what_was_left_out(capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path) -> None:
    write(folder / "corpus.jsonl", {**CORPUS, "long": "word " * 100})
    assert main(["eval", str(folder), "--url", serve()]) == 0
    said = capsys.readouterr()
    lines = [line.split("\t") for line in said.out.splitlines()]
    assert [line[0] for line in lines] == ["dense", "dense+rerank", "full_text", "full_text+rerank", "hybrid", "hybrid+rerank"]
    assert lines[2][1:4] == [f"{(1 + 1 / log2(3)) / 3:.4f}", "0.6667", "0.5000"]
    assert "5 documents (1 empty left out), 3 queries with judgements in test" in said.err
    assert "1 are longer than the model reads" in said.err
    for done in ("5/5", "3/3"):
        assert done in said.err


def test_other_collections_are_left_alone(capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path, tmp_path: Path) -> None:
    url = serve()
    with Client(url) as client:
        client.put_documents([Document("mine", "fjord")])
        evaluate(capsys, str(folder), "--url", url)
        assert [document.id for document in client.documents()] == ["mine"]
    assert collections(tmp_path) == ["default"]


@pytest.mark.parametrize(
    ("rerankers", "arguments", "said"),
    [
        (("one", "other"), [], "rerank is true, but must name one of ['one', 'other']"),
        (("overlap",), ["--rerank", "bge"], "rerank is 'bge'; the rerankers of this service are ['overlap']"),
        ((), ["--rerank", "bge"], "rerank is 'bge'"),
        ((), ["--split", "dev"], "the splits are ['test']"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_embedded(
    capsys: pytest.CaptureFixture[str],
    serve: Serve,
    folder: Path,
    stage: Stage,
    rerankers: tuple[str, ...],
    arguments: list[str],
    said: str,
) -> None:
    assert main(["eval", str(folder), "--url", serve(rerankers=rerankers), *arguments]) == 1
    assert said in capsys.readouterr().err
    assert stage.embedding.started == 0


def test_of_several_rerankers_one_can_be_named(capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path) -> None:
    rows = evaluate(capsys, str(folder), "--url", serve(rerankers=("one", "other")), "--rerank", "other")
    assert "hybrid+rerank" in rows


def test_a_failure_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], serve: Serve, folder: Path, stage: Stage, tmp_path: Path
) -> None:
    write(folder / "queries.jsonl", {**QUERIES, "second": "a\u0000" + "b" * 20_000_000})
    url = serve()
    assert main(["eval", str(folder), "--url", url]) == 1
    assert "max_body_bytes" in capsys.readouterr().err
    assert stage.embedding.started >= 1
    assert collections(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_nothing_behind(serve: Serve, folder: Path, stage: Stage, tmp_path: Path, number: signal.Signals) -> None:
    write(folder / "corpus.jsonl", {f"d{i}": f"text {i}" for i in range(400)})
    url = serve()
    command = [sys.executable, "-c", INTERRUPTIBLE, "eval", str(folder), "--url", url]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1]) as running:
        while not collections(tmp_path):
            assert running.poll() is None
            time.sleep(0.01)
        os.kill(running.pid, number)
        assert running.wait(20) == 130
    assert collections(tmp_path) == []


def test_without_its_extra_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.startswith("ir_measures")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["eval", str(folder)]) == 1
    assert "pip install 'bge-serve[eval]'" in capsys.readouterr().err


def test_documents_that_score_equally_keep_the_order_of_the_list() -> None:
    assert measure({"q": {"a": 1}}, {"q": ["z", "a"]})["RR@10"] == 0.5
    assert measure({"q": {"z": 1}}, {"q": ["z", "a"]})["RR@10"] == 1


def test_a_relevant_document_past_the_cut_does_not_count() -> None:
    ranking = [f"d{i}" for i in range(150)]
    assert measure({"q": {"d10": 1, "d99": 1, "d100": 1}}, {"q": ranking}) == {"nDCG@10": 0, "R@100": pytest.approx(2 / 3), "RR@10": 0}
