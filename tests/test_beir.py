from __future__ import annotations

from pathlib import Path

import pytest

from bgeserve.beir import Dataset, read_dataset
from bgeserve.errors import InvalidRequest

HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "a title", "text": "a text"}\n')
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "1", "text": "first", "metadata": {"anything": null}}\n\n{"_id": "2", "text": "second"}\n{"_id": "3", "text": "third"}\n'
    )
    (tmp_path / "qrels" / "test.tsv").write_text(f"{HEADER}1\td1\t2\n1\td2\t0\r\n\n3\td1\t1\n")
    (tmp_path / "qrels" / "dev.tsv").write_text("2\td1\t1\n")
    return tmp_path


def test_the_queries_of_a_split_are_those_that_it_judges(folder: Path) -> None:
    test = Dataset(folder / "corpus.jsonl", {"1": "first", "3": "third"}, {"1": {"d1": 2, "d2": 0}, "3": {"d1": 1}})
    assert read_dataset(folder, "test") == test
    assert read_dataset(folder, "dev") == Dataset(folder / "corpus.jsonl", {"2": "second"}, {"2": {"d1": 1}})


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("corpus.jsonl", None, "corpus.jsonl: there is no such file; BEIR's layout is"),
        ("queries.jsonl", None, "queries.jsonl: there is no such file"),
        ("qrels/test.tsv", None, "test.tsv: there is no such file; the splits are ['dev']"),
        ("qrels/test.tsv", HEADER, "test.tsv: it has no judgements"),
        ("qrels/test.tsv", f"{HEADER}1\td1\t1\n1 0 d1 1\n", "test.tsv:3: a judgement is"),
        ("qrels/test.tsv", f"{HEADER}1\td1\t0.5\n", "test.tsv:2: a judgement is"),
        ("qrels/test.tsv", f"{HEADER}7\td1\t1\n", "query '7' has judgements, but queries.jsonl does not have it"),
        ("queries.jsonl", '{"_id": "1", "text": "first"}\n[]\n', "queries.jsonl:2: a query is a JSON object"),
        ("queries.jsonl", '{"_id": 1, "text": "first"}\n', "queries.jsonl:1: _id and text must be strings"),
        ("queries.jsonl", '{"_id": "1", "text": " "}\n', "queries.jsonl:1: _id and text must be strings, and text not empty"),
        ("queries.jsonl", b'{"_id": "1", "text": "\xff"}\n', "queries.jsonl:1: not UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(folder: Path, file: str, content: str | bytes | None, said: str) -> None:
    path = folder / file
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidRequest) as refused:
        read_dataset(folder, "test")
    assert said in refused.value.message
