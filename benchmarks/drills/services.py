"""The services that are struck, as Serve configs: models so small that two cores carry two replicas of each, and a client's load.

Knows our settings, not what becomes of a service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.random_checkpoints import Size, make_checkpoint

if TYPE_CHECKING:
    from benchmarks.drills.store_server import StoreServer

Config = dict[str, Any]
FRONT = "front"
"""What only the node with the front has, in Ray's books."""
EMBEDDER, RERANKER = "embedder-tiny", "reranker-late"
WITHIN_S = 1.0
ON_FRONT = {"num_cpus": 0.1, "resources": {FRONT: 0.001}}


@dataclass(slots=True)
class Place:
    """What services are made of: a folder for models and collections; where a drill needs it, a store's server, a disk that fills up."""

    work: Path
    store: StoreServer | None = None
    small_disk: Path | None = None

    def model(self, width: int = 32) -> str:
        """Of random weights; another width is another model."""
        parent = self.work / f"width-{width}"
        return str(make_checkpoint("bge-small-en-v1.5", parent, Size(width=width, layers=1)))


def search(place: Place) -> Config:
    """The usual one: an index in a folder, and a reranker; one replica of each model on each node."""
    config = rolling(place)
    for models in ("embedders", "rerankers"):
        for model in arguments(config)[models].values():
            model["max_surge_percent"] = 0  # there would be no room for it
    config["applications"][0]["deployments"] += [{"name": name, "max_replicas_per_node": 1} for name in (EMBEDDER, RERANKER)]
    return config


def rolling(place: Place) -> Config:
    """The same, but a node may have another replica of a model while a new version takes over."""
    return _search(place, {"path": "index", "create": True, "node_resource": FRONT, "min_free_bytes": 2**20})


def degrading(place: Place) -> Config:
    config = search(place)
    arguments(config)["search"]["rerank_within_s"] = WITHIN_S
    return config


def with_server(place: Place) -> Config:
    assert place.store is not None
    return _search(place, {"kind": "qdrant", "url": place.store.url, "timeout_s": 2})


def on_small_disk(place: Place) -> Config:
    assert place.small_disk is not None
    return _search(place, {"path": str(place.small_disk / "index"), "create": True, "node_resource": FRONT, "min_free_bytes": 16 * 2**20})


def models_only(place: Place) -> Config:
    arguments = {"embedders": {"tiny": _tiny(place.model())}, "ingress": _ingress()}
    return _application("graphs.embed:build", arguments)


SERVICES: Mapping[str, Callable[[Place], Config]] = {
    "search": search,
    "rolling": rolling,
    "degrading": degrading,
    "with-server": with_server,
    "small-disk": on_small_disk,
    "models-only": models_only,
}


def arguments(config: Config) -> Config:
    return config["applications"][0]["args"]


def changed(config: Config, change: Callable[[Config], object]) -> Config:
    """Another version of a service."""
    other = deepcopy(config)
    change(other)
    return other


def _search(place: Place, store: Config) -> Config:
    model = place.model()
    arguments = {
        "embedders": {"tiny": _tiny(model)},
        "rerankers": {"late": {**_tiny(model), "scoring": "late_interaction"}},
        "store": {"cpus": 0.1, **store},
        "search": {"legs": ["dense", "full_text"], "reranker": "late"},
        "ingress": _ingress(),
    }
    return _application("graphs.search:build", arguments)


def _tiny(model: str) -> Config:
    return {"model": model, "dtype": "float32", "cpus": 0.1, "workers": 1, "replicas": {"min": 2, "max": 2}, "max_surge_percent": 50}


def _ingress() -> Config:
    return {"cpus": 0.1, "replicas": {"min": 2, "max": 2}}


def _application(graph: str, arguments: Config) -> Config:
    deployments = [{"name": "ingress", "ray_actor_options": ON_FRONT}]
    return {"applications": [{"name": "search", "import_path": graph, "route_prefix": "/", "args": arguments, "deployments": deployments}]}
