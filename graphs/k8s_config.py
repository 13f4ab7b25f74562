"""A Serve config as Kubernetes sees it: which models it has, what else runs, and what the same product is on other hardware.

Knows the three graphs and their settings. Does not know pods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgeserve.errors import SettingsError
from bgeserve.settings import EmbedSettings, IngressSettings, ModelSettings, RerankSettings, SearchGraphSettings
from bgeserve.store_settings import EmbeddedStoreSettings, RemoteStoreSettings
from graphs.check import parse, read

Tree = dict[str, Any]
"""What a YAML mapping holds."""
Settings = SearchGraphSettings | EmbedSettings | RerankSettings
GRAPHS: Mapping[str, type[Settings]] = {
    "graphs.search:build": SearchGraphSettings,
    "graphs.embed:build": EmbedSettings,
    "graphs.rerank:build": RerankSettings,
}
CPUS = 4
"""Of a model's replica on CPU: it has at most four workers, of one thread each."""
RERANKED_ON_CPU = 10
"""A core reads a pair in tens of milliseconds: fifty would take longer than a request may."""
OF_A_GPU = ("device", "dtype", "max_batch_tokens", "workers", "reserved_workers")
"""What is stated for one kind of hardware and wrong on another."""


@dataclass(frozen=True)
class Application:
    name: str
    settings: Settings

    @property
    def models(self) -> Iterator[tuple[str, ModelSettings]]:
        """By the name of its deployment."""
        for role in ("embedder", "reranker"):
            models: Mapping[str, ModelSettings] = getattr(self.settings, f"{role}s", {})
            yield from ((f"{role}-{name}", model) for name, model in models.items())

    @property
    def ingress(self) -> IngressSettings:
        return self.settings.ingress

    @property
    def store(self) -> RemoteStoreSettings | None:
        """Raises SettingsError for a store that lives on one node's disk: a pod that moves would leave its index behind."""
        store = self.settings.store if isinstance(self.settings, SearchGraphSettings) else None
        if isinstance(store, EmbeddedStoreSettings):
            raise SettingsError(
                f"{self.name}: store.kind is {store.kind}, in a folder of one node: on Kubernetes name a server (kind: qdrant)"
            )
        return store if isinstance(store, RemoteStoreSettings) else None


def load(path: Path) -> Tree:
    """The config, strictly checked. Raises SettingsError."""
    sent = read(path)
    parse(sent)
    assert isinstance(sent, dict)
    return sent


def applications(config: Tree) -> list[Application]:
    """Raises SettingsError for a graph of the user's own: what it needs is not known here."""
    found: list[Application] = []
    for tree in config["applications"]:
        if tree["import_path"] not in GRAPHS:
            raise SettingsError(f"{tree['name']}: import_path is {tree['import_path']}; known are {', '.join(GRAPHS)}")
        found.append(Application(tree["name"], GRAPHS[tree["import_path"]].model_validate(tree.get("args", {}))))
    return found


def on_hardware(config: Tree, hardware: str) -> Tree:
    """The same product without GPUs (cpu), with one for each replica (gpu), or with a replica of every model on each (gpu-fractional)."""
    config = deepcopy(config)
    for application in config["applications"]:
        args: Tree = application["args"]
        models: Sequence[Tree] = [model for role in ("embedders", "rerankers") for model in args.get(role, {}).values()]
        for model in models:
            gpus = {"cpu": 0.0, "gpu": 1.0, "gpu-fractional": _share(len(models))}[hardware]
            _move(model, gpus)
        if hardware == "cpu" and "reranker" in (search := args.get("search", {})):
            search["rerank_top"] = min(search.get("rerank_top", RERANKED_ON_CPU), RERANKED_ON_CPU)
    return config


def _share(models: int) -> float:
    """Rounded down: so many shares must fit one GPU."""
    return int(100 / models) / 100


def _move(model: Tree, gpus: float) -> None:
    was_on_gpu = model.get("gpus", 0) > 0
    if was_on_gpu != (gpus > 0):
        for key in OF_A_GPU:
            model.pop(key, None)
        # A model that comes from a GPU stated the CPUs that feed one.
        model |= {"cpus": CPUS} if was_on_gpu else {"cpus": 1}
    model.pop("gpus", None)
    if gpus:
        model["gpus"] = int(gpus) if gpus.is_integer() else gpus
