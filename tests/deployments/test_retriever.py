from __future__ import annotations

from pathlib import Path

import pytest

from bgeserve.errors import SettingsError
from bgeserve.store_settings import EmbeddedStoreSettings, QdrantEdgeSettings
from bgeserve.stores.qdrant_edge import QdrantEdgeStore
from deployments.retriever import DATA_VARIABLE, data_folder, refuse_a_new_index_elsewhere


def test_a_relative_path_lies_in_the_data_directory_wherever_the_replica_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir("/")
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert data_folder(Path("quickstart")) == Path("/home/someone/.local/share/bge-serve/quickstart")
    assert data_folder(Path("~/index")) == Path("/home/someone/index")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert data_folder(Path("quickstart")) == tmp_path / "quickstart"
    assert data_folder(Path("/srv/index")) == Path("/srv/index")


def test_of_several_nodes_only_the_one_that_is_named_begins_an_index(tmp_path: Path) -> None:
    def settings(**more: str) -> EmbeddedStoreSettings:
        return QdrantEdgeSettings(path=tmp_path / "index", create=True, **more)

    refuse_a_new_index_elsewhere(settings(), nodes=1)
    refuse_a_new_index_elsewhere(settings(node_resource="index"), nodes=2)
    with pytest.raises(SettingsError, match="2 nodes: name a custom resource"):
        refuse_a_new_index_elsewhere(settings(), nodes=2)
    QdrantEdgeStore(QdrantEdgeSettings(path=tmp_path / "index", create=True)).close()
    refuse_a_new_index_elsewhere(settings(), nodes=2)
