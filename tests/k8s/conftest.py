from __future__ import annotations

import pytest

from tests.k8s.exported import Metric, metrics_of_a_model, metrics_of_ray, metrics_of_the_nodes, metrics_of_the_store


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    """By a model and its workers."""
    return metrics_of_a_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def exported(measured: list[Metric], tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    return [*measured, *metrics_of_the_store(tmp_path_factory.mktemp("store")), *metrics_of_ray(), *metrics_of_the_nodes()]
