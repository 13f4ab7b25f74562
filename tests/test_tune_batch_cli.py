"""`bge-serve tune-batch`, on tiny checkpoints: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from graphs.check import parse, read
from graphs.tune_batch import main
from tests.checkpoints import TEXTS, make_bert, make_bert_reranker

CONFIG = """\
# Two models, each with a comment.
applications:
  - name: search
    import_path: graphs.search:build
    args:
      embedders:
        small: {{model: {embedder}, dtype: float32, cpus: 0.2, workers: 2}}  # in one line
      rerankers:
        judge:
          model: {reranker}
          dtype: float32
          max_batch_tokens: 300  # guessed

      store: {{kind: qdrant_edge, path: somewhere, create: true}}
"""
QUICK = ("--rounds", "1", "--run-s", "0.01")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"embedder": make_bert(folder / "e"), "reranker": make_bert_reranker(folder / "r")}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "text": text * (n % 5 + 1)}) + "\n" for n, text in enumerate(TEXTS * 10)))
    return str(path)


@pytest.fixture
def config(folders: dict[str, Path], tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(**folders))
    return path


def test_the_command_measures_every_model_and_writes_its_budget(config: Path) -> None:
    before = config.read_text().splitlines()
    command = [Path(sys.executable).with_name("bge-serve"), "tune-batch", str(config), *QUICK, "--write"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    chosen = [int(row[0]) for row in rows if row[4].startswith("chosen")]
    assert [row[0] for row in rows[:4]] == ["128", "256", "512", "700"]
    assert any(row[0] == "300" and "now" in row[4] for row in rows)

    after = config.read_text().splitlines()
    changed = {old: new for old, new in zip(before, after, strict=True) if old != new}
    embedder, reranker = before[6], before[11]
    assert changed.keys() <= {embedder, reranker}
    assert changed[embedder] == embedder.replace("}", f", max_batch_tokens: {chosen[0]}}}")
    assert after[11] == reranker.replace("300", str(chosen[1]))
    parse(read(config))


def test_without_write_it_prints_the_line_to_add(config: Path, texts: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = config.read_bytes()
    assert main([str(config), "--model", "small", "--texts", texts, *QUICK]) == 0
    out, err = capsys.readouterr()
    *rows, line = out.splitlines()
    (chosen,) = [row.split("\t")[0] for row in rows if "chosen" in row]
    assert yaml.safe_load(line) == {"max_batch_tokens": int(chosen)}
    assert config.read_bytes() == before
    heading, shapes, hint = err.splitlines()
    assert "float32 on cpu, 2 workers of 1 thread; " in heading
    assert shapes.startswith("small: 2 workers of 1 thread, ")
    assert "; 1 worker of 2 threads, " in shapes
    assert hint == "small: put this under embedders.small (--write does it):"


def test_a_person_sees_a_table_and_progress(
    config: Path, texts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main([str(config), "--model", "judge", "--texts", texts, *QUICK]) == 0
    out, err = capsys.readouterr()
    assert "of the best" in out
    assert "judge: 128 tokens a batch" in err


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (("dtype", "dtpye"), [], "rerankers.judge.dtpye: unknown key; did you mean 'dtype'?"),
        (("", ""), ["--model", "smal"], "it has no model 'smal'; its models are ['small', 'judge']"),
        (("", ""), ["--texts", "nowhere"], "nowhere: a source is"),
        (("dtype: float32", "cpus: 4096"), ["--model", "judge"], "reranker-judge needs 4096 CPU for each replica; this machine has"),
        (("dtype: float32", "gpus: 1"), ["--model", "judge"], "reranker-judge needs 1 GPU for each replica; this machine has 0"),
    ],
)
def test_what_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], arguments: list[str], said: str
) -> None:
    start, judge, rest = config.read_text().partition("judge:")
    config.write_text(start + judge + rest.replace(*change, 1))
    assert main([str(config), *QUICK, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{config}: ")
    assert said in err


@pytest.mark.parametrize(("option", "value"), [("--rounds", "0"), ("--run-s", "0"), ("--run-s", "-1"), ("--rounds", "many")])
def test_wrong_usage(config: Path, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(config), option, value])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err
