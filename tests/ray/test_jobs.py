"""Data jobs on the real service: every format, what is wrong with a row, a killed driver; and the example of the documentation."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgeserve import Client
from bgeserve.engine import EmbedderEngine
from bgeserve.settings import EmbedderSettings
from bgeserve.types import Document
from graphs import session
from tests import checkpoints
from tests.ray.killed_job import computed_tokens, corpus, kill_and_run_again
from tests.ray.processes import BIN, QUICKSTART, START_S, Up

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
TEXTS = list(checkpoints.TEXTS[:8])


def index(service: Up, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "bge-serve", "index", *arguments, "--json"]
    return subprocess.run(
        command, cwd=folder, env=service.handle_environment(), capture_output=True, text=True, timeout=START_S, check=False
    )


def test_every_format_is_read_and_what_is_wrong_is_a_dead_letter(service: Up, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "notes").mkdir(parents=True)
    (source / "notes" / "a.md").write_text("a note")
    (source / "b.jsonl").write_bytes(
        b'{"id": "json", "text": "x", "lang": "en"}\n\n{"id": "\xff", "text": "x"}\n{"id": "json", "text": "again"}\n'
    )
    (source / "c.csv").write_bytes(b'id,title,text\n007,T,"two\nlines"\n8,,\n9,,caf\xe9\n10,,x,y\n')
    pq.write_table(pa.table({"_id": [1, None], "text": ["x", "y"], "metadata": [{"year": 1999}, None]}), source / "d.parquet")
    (source / "e.parquet").write_text("not Parquet")
    pq.write_table(pa.table({"id": ["long" * 200, "fine"], "text": ["x", "y"]}), source / "f.parquet")
    done = index(service, tmp_path, "source", "--job", "--collection", "formats", "--dead-letters", "left.jsonl")
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    assert (told["upserted"], told["unchanged"], told["rejected"], told["dead_letters"]) == (5, 0, 8, "left.jsonl")
    with Client(service.url) as client:
        stored = list(client.documents(collection="formats"))
        client.delete_collection("formats")
    assert sorted(stored, key=lambda document: document.id) == [
        Document("007", "two\nlines", {}, "T"),
        Document("1", "x", {"year": 1999}),
        Document("fine", "y"),
        Document("json", "x", {"lang": "en"}),
        Document("notes/a.md", "a note", {"folder": "notes"}),
    ]
    letters = [json.loads(line) for line in (tmp_path / "left.jsonl").read_text().splitlines()]
    assert [(Path(letter["where"]).name, letter["why"].split(":")[0]) for letter in letters] == [
        ("b.jsonl:3", "not a line of JSON"),
        ("b.jsonl:4", "id 'json' has come already"),
        ("c.csv:4", "text must be a string, not None"),
        ("c.csv:5", "text holds bytes that are not UTF-8, or half of a surrogate pair"),
        ("c.csv:6", "has 4 cells, and the header 3"),
        ("d.parquet:2", "id must be a string that is not empty, or a whole number, not None"),
        ("e.parquet", "cannot be read"),
        ("f.parquet:1", "id must have 1 to 512 characters, not 800"),
    ]
    assert letters[1]["row"]["text"] == "again"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.parquet",), "nowhere.parquet"),
        (("corpus.csv", "--app", "nobody"), "no application 'nobody' runs in this Ray cluster; there are ['search']"),
        (("corpus.csv", "--collection", "bad name"), "a collection's name is"),
    ],
)
def test_what_no_row_would_escape_ends_the_job(service: Up, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "corpus.csv").write_text("id,text\n1,one\n")
    done = index(service, tmp_path, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_killed_job_goes_on_where_it_was(service: Up, tmp_path: Path) -> None:
    documents = corpus(["stdlib:"], limit=700)
    outcome = kill_and_run_again(service, documents, tmp_path, calls_in_flight=2, share=random.uniform(1 / 6, 1 / 2))
    assert outcome.stored == {document.id: document.text for document in documents}
    assert outcome.upserted + outcome.unchanged == len(documents)
    assert outcome.unchanged >= outcome.stored_when_killed > 0
    assert 0 <= outcome.computed_tokens - outcome.corpus_tokens <= outcome.in_flight_tokens


def test_embedders_of_its_own_store_what_the_deployed_ones_would(service: Up, tmp_path: Path) -> None:
    documents = corpus(["stdlib:"], limit=50)
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(asdict(document)) + "\n" for document in documents))
    arguments = ("corpus.jsonl", "--job", "--collection", "own")
    before = computed_tokens(service)
    own = index(service, tmp_path, *arguments, "--own-embedders", "1", "--config", str(QUICKSTART))
    assert own.returncode == 0, own.stderr
    assert computed_tokens(service) == before
    deployed = index(service, tmp_path, *arguments)
    assert deployed.returncode == 0, deployed.stderr
    with Client(service.url) as client:
        found = client.search(documents[7].text, collection="own", mode="dense", rerank=False, top_k=2)
        client.delete_collection("own")
    assert json.loads(own.stdout)["upserted"] == json.loads(deployed.stdout)["unchanged"] == len(documents)
    assert {hit.id.partition(":")[2] for hit in found} == {documents[7].id.partition(":")[2]}


def run_example(folder: Path, model: Path) -> None:
    """The documentation's own lines, in a process and on a Ray of their own."""
    (example,) = re.findall(r"```python\n(import ray\n.*?)```", (ROOT / "docs" / "jobs.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 20
    own = session.new_folder()
    environment = os.environ | {"RAY_ADDRESS": "local", "RAY_TMPDIR": str(own), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", example.replace("BAAI/bge-m3", str(model))]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=START_S, check=False)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    assert done.returncode == 0, done.stderr


async def test_the_example_of_the_documentation_writes_what_the_engine_computes(tmp_path: Path) -> None:
    model = checkpoints.make_bge_m3(tmp_path / "bge-m3")
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    await asyncio.to_thread(run_example, tmp_path, model)
    rows = pq.read_table(tmp_path / "vectors").sort_by("id").to_pylist()
    assert [(row["id"], row["text"]) for row in rows] == [(f"d{n}", text) for n, text in enumerate(TEXTS)]
    engine = EmbedderEngine("m3", EmbedderSettings(model=str(model)))
    try:
        expected = await engine.encode(TEXTS, outputs=("dense", "sparse", "multi_vector"))
    finally:
        engine.close()
    assert expected.dense is not None
    assert expected.sparse is not None
    assert expected.multi_vector is not None
    np.testing.assert_allclose([row["dense"] for row in rows], expected.dense, atol=1e-5)
    for row, sparse, vectors, tokens in zip(rows, expected.sparse, expected.multi_vector, expected.tokens, strict=True):
        assert row["sparse"]["indices"] == sparse.indices.tolist()
        np.testing.assert_allclose(row["sparse"]["values"], sparse.values, atol=1e-5)
        np.testing.assert_allclose(row["multi_vector"], vectors, atol=1e-5)
        assert row["tokens"] == tokens
        assert row["truncated"] is False
