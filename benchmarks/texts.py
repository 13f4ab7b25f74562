"""The texts that benchmarks run on: real ones that every machine has, or the caller's own."""

from __future__ import annotations

import random
from pathlib import Path

from bgeserve.sources import read_documents
from bgeserve.types import titled


def load_texts(path: Path | None = None) -> list[str]:
    """Texts in an arrival order that is the same every time: shuffled, because neighbours in a corpus resemble each other.

    path: a .txt file with a text a line, a .jsonl file or folder as `bge-serve index` takes it, or a BEIR folder (its corpus.jsonl).
    None: the docstrings of the standard library.
    """
    texts = _read(path)
    random.Random(0).shuffle(texts)
    return texts


def _read(path: Path | None) -> list[str]:
    if path is not None and path.suffix == ".txt":
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if path is not None and (path / "corpus.jsonl").is_file():
        path = path / "corpus.jsonl"
    return [titled(document.title, document.text) for document in read_documents("stdlib:" if path is None else str(path))]
