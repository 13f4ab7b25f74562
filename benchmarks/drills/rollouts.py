"""New versions that take the place of running ones, under 32 clients: of the settings, of the code, of a model.

Serve replaces every replica of an application when anything of its arguments or its environment has changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.drills.cluster import Cluster
from benchmarks.drills.drill import Drill, Fault
from benchmarks.drills.rule import NOBODY_NOTICES
from benchmarks.drills.services import Config, Place, arguments, changed

ROOT = Path(__file__).parents[2]
PACKAGES = ("bgeserve", "deployments", "graphs")
OTHER_WIDTH = 48
Change = Callable[[Config, Place], object]


def to_version(change: Change) -> Fault:
    @contextmanager
    def fault(cluster: Cluster) -> Generator[frozenset[int]]:
        before = frozenset(cluster.pids("ray::ServeReplica:search:"))
        cluster.deploy(changed(cluster.config, lambda config: change(config, cluster.place)))
        yield before

    return fault


def settings(config: Config, place: Place) -> None:
    arguments(config)["embedders"]["tiny"]["max_batch_tokens"] = 512
    arguments(config)["search"]["candidates"] = 50


def code(config: Config, place: Place) -> None:
    """A copy that sends a field more than its predecessor knows."""
    copy = place.work / "next-version"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    types = copy / "bgeserve" / "types.py"
    known = "    degraded: Sequence[str] = ()\n"
    text = types.read_text()
    assert known in text
    types.write_text(text.replace(known, f'{known}    said_by_the_next_version: str = "yes"\n'))
    config["applications"][0]["runtime_env"] = {"env_vars": {"PYTHONPATH": str(copy)}}


def reranker(config: Config, place: Place) -> None:
    arguments(config)["rerankers"]["late"]["model"] = place.model(OTHER_WIDTH)


def embedder(config: Config, place: Place) -> None:
    arguments(config)["embedders"]["tiny"]["model"] = place.model(OTHER_WIDTH)


def _drill(name: str, what: str, change: Change, config: str = "rolling", *, changes_answers: bool = False) -> Drill:
    return Drill(name, what, to_version(change), NOBODY_NOTICES, config, changes_answers=changes_answers)


DRILLS = (
    _drill("roll-settings", "new settings for every replica", settings),
    _drill("roll-code", "new code for every replica", code),
    _drill("roll-reranker", "another model as the reranker", reranker, changes_answers=True),
    _drill("roll-embedder", "another model as the embedder, without an index", embedder, "models-only", changes_answers=True),
)
