from __future__ import annotations

from pathlib import Path

import pytest

from deployments.retriever import DATA_VARIABLE, data_folder


def test_a_relative_path_lies_in_the_data_directory_wherever_the_replica_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir("/")
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert data_folder(Path("quickstart")) == Path("/home/someone/.local/share/bge-serve/quickstart")
    assert data_folder(Path("~/index")) == Path("/home/someone/index")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert data_folder(Path("quickstart")) == tmp_path / "quickstart"
    assert data_folder(Path("/srv/index")) == Path("/srv/index")
