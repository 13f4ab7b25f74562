from __future__ import annotations

import json
from pathlib import Path

from benchmarks.texts import load_texts


def test_the_standard_librarys_docstrings_come_in_one_order() -> None:
    texts = load_texts()
    assert len(texts) > 1000
    assert texts == load_texts()


def test_lines_and_beir_folders(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("one\n\ntwo\n", encoding="utf-8")
    assert sorted(load_texts(lines)) == ["one", "two"]
    rows = [{"_id": "1", "title": "a", "text": "b"}, {"_id": "2", "title": "", "text": "c"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert sorted(load_texts(tmp_path)) == ["a\nb", "c"]
