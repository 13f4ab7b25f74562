"""The models of a Serve config, wherever in it they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ray.serve.schema import ServeDeploySchema

from bgeserve.settings import EmbedderSettings, RerankerSettings
from bgeserve.types import Role
from graphs import strict

SETTINGS: Mapping[Role, type[EmbedderSettings] | type[RerankerSettings]] = {"embedder": EmbedderSettings, "reranker": RerankerSettings}


@dataclass(frozen=True)
class Model:
    """One model of a config, and where in the file its settings are."""

    name: str
    role: Role
    path: tuple[str | int, ...]
    settings: EmbedderSettings | RerankerSettings


def models_of(config: ServeDeploySchema) -> list[Model]:
    return [model for i, application in enumerate(config.applications) for model in _models(application.args, ("applications", i, "args"))]


def _models(args: Mapping[str, Any], path: tuple[str | int, ...]) -> Iterator[Model]:
    for role, settings in SETTINGS.items():
        for name, sent in (args.get(f"{role}s") or {}).items():
            if not strict.problems(sent, settings):  # a user's own graph may mean something else by that word
                yield Model(name, role, (*path, f"{role}s", name), settings.model_validate(sent))
