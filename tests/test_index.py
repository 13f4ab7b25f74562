"""`bge-serve index` against the real app on a real server: everything arrives, once, and only what changed is embedded again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from bgeserve import Client
from bgeserve.api import create_app
from bgeserve.cli import main
from bgeserve.cli.writers import MAX_REQUESTS_IN_FLIGHT
from bgeserve.settings import IngressSettings
from bgeserve.types import Document
from tests.api.backend import Stage
from tests.api.serving import serving

COUNT = 700
"""More than the writers send at a time."""


class Counting:
    """An app that remembers how many writes were under way at a time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._writing = 0
        self.writes = 0
        self.most_writing = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        write = scope["type"] == "http" and scope["method"] == "PUT"
        self._writing += write
        self.writes += write
        self.most_writing = max(self.most_writing, self._writing)
        try:
            await self._app(scope, receive, send)
        finally:
            self._writing -= write


@pytest.fixture
def app() -> Counting:
    return Counting(create_app(Stage().service, IngressSettings()))


@pytest.fixture
def service(app: Counting) -> Iterator[str]:
    with serving(app) as url:
        yield url


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", {f"d{n}": f"text number {n}" for n in range(COUNT)})


def write(path: Path, texts: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items()))
    return path


def index(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["index", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def stored(url: str) -> dict[str, str]:
    with Client(url) as client:
        return {document.id: document.text for document in client.documents()}


def test_everything_arrives_in_bounded_requests(capsys: pytest.CaptureFixture[str], app: Counting, service: str, corpus: Path) -> None:
    done = index(capsys, str(corpus), "--url", service)
    assert (done["upserted"], done["unchanged"], done["deleted"]) == (COUNT, 0, 0)
    assert done["tokens"] > 0
    assert stored(service) == {f"d{n}": f"text number {n}" for n in range(COUNT)}
    assert app.writes >= COUNT / 64
    assert app.most_writing <= MAX_REQUESTS_IN_FLIGHT


def test_a_second_run_embeds_only_what_changed(capsys: pytest.CaptureFixture[str], service: str, corpus: Path) -> None:
    index(capsys, str(corpus), "--url", service)
    again = index(capsys, str(corpus), "--url", service)
    assert (again["upserted"], again["unchanged"], again["tokens"]) == (0, COUNT, 0)
    write(corpus, {**{f"d{n}": f"text number {n}" for n in range(COUNT)}, "d7": "another text", "new": "one more"})
    changed = index(capsys, str(corpus), "--url", service)
    assert (changed["upserted"], changed["unchanged"]) == (2, COUNT - 1)
    assert stored(service)["d7"] == "another text"


def test_only_prune_deletes_what_the_source_lost(capsys: pytest.CaptureFixture[str], service: str, corpus: Path) -> None:
    index(capsys, str(corpus), "--url", service)
    write(corpus, {"d0": "text number 0"})
    assert index(capsys, str(corpus), "--url", service)["deleted"] == 0
    assert len(stored(service)) == COUNT
    assert index(capsys, str(corpus), "--url", service, "--prune")["deleted"] == COUNT - 1
    assert stored(service) == {"d0": "text number 0"}


def test_a_source_without_documents_does_not_prune(capsys: pytest.CaptureFixture[str], service: str, tmp_path: Path) -> None:
    with Client(service) as client:
        client.put_documents([Document("kept", "text")])
    assert main(["index", str(write(tmp_path / "empty.jsonl", {})), "--url", service, "--prune"]) == 1
    assert "would delete all of 'default'" in capsys.readouterr().err
    assert stored(service) == {"kept": "text"}


def test_empty_documents_are_left_out_and_named(capsys: pytest.CaptureFixture[str], service: str, tmp_path: Path) -> None:
    source = write(tmp_path / "corpus.jsonl", {"a": "text", "b": ""})
    assert index(capsys, str(source), "--url", service)["empty"] == [f"{source}:2"]
    assert main(["index", str(source), "--url", service]) == 0
    assert f"1 empty left out ({source}:2)" in capsys.readouterr().out
    assert stored(service) == {"a": "text"}


def test_a_bad_line_is_named_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], app: Counting, service: str, corpus: Path
) -> None:
    corpus.write_text(corpus.read_text() + '{"id": "bad"}\n')
    assert main(["index", str(corpus), "--url", service]) == 1
    assert f"{corpus}:{COUNT + 1}: text must be a string" in capsys.readouterr().err
    assert app.writes == 0


def test_what_the_service_refuses_ends_the_command_by_name(capsys: pytest.CaptureFixture[str], service: str, tmp_path: Path) -> None:
    too_long = write(tmp_path / "corpus.jsonl", {"x" * 600: "text"})
    assert main(["index", str(too_long), "--url", service]) == 1
    assert "512" in capsys.readouterr().err


def test_a_person_sees_what_was_done(capsys: pytest.CaptureFixture[str], service: str, corpus: Path) -> None:
    assert main(["index", str(corpus), "--url", service, "--collection", "mine"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"mine: {COUNT} embedded and stored, 0 unchanged; ")
    assert "tokens in" in shown.out
    assert f"{COUNT}/{COUNT}" in shown.err


def test_a_folder_without_texts_says_who_reads_the_rest(capsys: pytest.CaptureFixture[str], service: str, tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", {"a": "text"})
    assert main(["index", str(tmp_path), "--url", service]) == 1
    assert "are read with --job" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--prune", "--url=http://127.0.0.1:1"])
def test_what_a_job_does_not_take_is_wrong_usage(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["index", "corpus.parquet", option])
    assert ended.value.code == 2
    assert "are not for a job" in capsys.readouterr().err


def test_a_job_without_ray_data_says_what_to_install(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class NoPandas(MetaPathFinder):
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            return None

    monkeypatch.setattr(sys, "meta_path", [NoPandas()])
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    assert main(["index", "corpus.parquet"]) == 1
    assert "pip install 'bge-serve[data]'" in capsys.readouterr().err
