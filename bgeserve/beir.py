"""A retrieval data set in BEIR's layout: FOLDER/corpus.jsonl, FOLDER/queries.jsonl, FOLDER/qrels/SPLIT.tsv.

Knows files, not what is measured with them. Everything wrong with one is an InvalidRequest that names the file and the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bgeserve.errors import InvalidRequest

QRELS_HEADER = "query-id\tcorpus-id\tscore"


@dataclass(frozen=True, slots=True)
class Dataset:
    corpus: Path
    """A source of `sources.read_documents`; not read here: a corpus may be larger than the memory."""
    queries: Mapping[str, str]
    """Texts by id, of the queries that have judgements."""
    judgements: Mapping[str, Mapping[str, int]]
    """Of each query: how relevant which document is, 0 for not at all."""


def read_dataset(folder: Path, split: str) -> Dataset:
    """Raises InvalidRequest; a split that is not there is answered with those that are."""
    corpus, queries, qrels = folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels"
    for path in (corpus, queries):
        if not path.is_file():
            raise _invalid(str(path), "there is no such file; BEIR's layout is corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv")
    if not (judged := qrels / f"{split}.tsv").is_file():
        raise _invalid(str(judged), f"there is no such file; the splits are {sorted(path.stem for path in qrels.glob('*.tsv'))}")
    judgements = read_judgements(judged)
    texts = {id: text for id, text in read_queries(queries) if id in judgements}
    if missing := sorted(judgements.keys() - texts.keys()):
        raise _invalid(str(judged), f"query {missing[0]!r} has judgements, but {queries.name} does not have it ({len(missing)} such)")
    return Dataset(corpus, texts, judgements)


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Raises InvalidRequest."""
    judgements: dict[str, dict[str, int]] = {}
    for where, line in _lines(path):
        if line == QRELS_HEADER:
            continue
        try:
            query, document, score = line.split("\t")
            judgements.setdefault(query, {})[document] = int(score)
        except ValueError:
            raise _invalid(where, f"a judgement is a query's id, a document's and an integer, with tabs between; not {line!r}") from None
    if not judgements:
        raise _invalid(str(path), "it has no judgements")
    return judgements


def read_queries(path: Path) -> Iterator[tuple[str, str]]:
    """Ids and texts. Raises InvalidRequest."""
    for where, line in _lines(path):
        try:
            row = cast("dict[str, Any]", json.loads(line))
            id, text = row["_id"], row["text"]
        except (ValueError, KeyError, TypeError):
            raise _invalid(where, 'a query is a JSON object {"_id": ..., "text": ...}') from None
        if not isinstance(id, str) or not isinstance(text, str) or not text.strip():
            raise _invalid(where, f"_id and text must be strings, and text not empty; they are {id!r} and {text!r}")
        yield id, text


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each with where it stands."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                text = line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                raise _invalid(where, "not UTF-8 text") from None
            if text.strip():
                yield where, text


def _invalid(where: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {what}", field="folder")
