"""How many more replicas each deployment may have while a new version takes over, as Serve is told."""

from __future__ import annotations

import warnings

import pytest
from pydantic import ValidationError

from bgeserve.settings import ModelSettings, SearchGraphSettings

with warnings.catch_warnings(action="ignore"):  # Ray's, about its own code
    from graphs.search import build


def test_an_ingress_surges_a_model_where_it_says_so_and_the_owner_of_the_collections_never() -> None:
    arguments = {
        "embedders": {"roomy": {"model": "m", "max_surge_percent": 50}, "tight": {"model": "n"}},
        "store": {"path": "index"},
        "search": {"embedder": "roomy"},
    }
    ingress = build(SearchGraphSettings.model_validate(arguments))._bound_deployment  # pyright: ignore[reportPrivateUsage]
    _, models, _, index = ingress.init_args
    bound = [ingress, *(model.handle._bound_deployment for model in models.values()), index.retriever._bound_deployment]
    assert {deployment.name: deployment._deployment_config.max_surge_percent for deployment in bound} == {
        "ingress": 100,
        "embedder-roomy": 50,
        "embedder-tight": 0,
        "retriever": 0,
    }


def test_more_than_as_many_again_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 100"):
        ModelSettings(model="m", max_surge_percent=101)
