"""What `kubectl kustomize` makes of our kustomizations, of which it knows as much as they use; every other key is refused by name.

A test compares it with kubectl itself where that is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from os.path import normpath
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Tree = dict[str, Any]
Read = Callable[[Path], list[Any]]
"""The YAML documents of a file."""

KEYS = {
    "Kustomization": {"apiVersion", "kind", "resources", "components", "configMapGenerator"},
    "Component": {"apiVersion", "kind", "resources", "patches"},
}
VERSIONS = {"Kustomization": "kustomize.config.k8s.io/v1beta1", "Component": "kustomize.config.k8s.io/v1alpha1"}


def read(path: Path) -> list[Any]:
    """Whoever changes a document copies it first: it is parsed once."""
    return list(_parsed(path.read_text()))


@cache
def _parsed(text: str) -> tuple[Any, ...]:
    return tuple(yaml.safe_load_all(text))


def build(root: Path, read: Read = read, components: list[str] | None = None) -> list[Tree]:
    """Every document that applying the folder would apply; components: instead of those that its kustomization names."""
    kustomization = _kustomization(root, read)
    documents = [document for name in kustomization.get("resources", []) for document in _resources(root / name, read)]
    documents += [_config_map(root, generator) for generator in kustomization.get("configMapGenerator", [])]
    for name in kustomization.get("components", []) if components is None else components:
        documents = _with_component(documents, root / name, read)
    return documents


def _with_component(documents: list[Tree], root: Path, read: Read) -> list[Tree]:
    component = _kustomization(root, read)
    documents = documents + [document for name in component.get("resources", []) for document in _resources(root / name, read)]
    for patch in component.get("patches", []):
        _refuse_unknown(patch, {"path", "target"}, root)
        _refuse_unknown(patch["target"], {"kind", "name"}, root)
        (operations,) = read(root / patch["path"])
        for operation in operations:
            _refuse_unknown(operation, {"op", "path", "value"}, root / patch["path"])
        (index,) = [i for i, document in enumerate(documents) if _is(document, patch["target"])]
        documents[index] = jsonpatch.apply_patch(documents[index], operations)
    return documents


def _resources(path: Path, read: Read) -> Iterator[Tree]:
    path = Path(normpath(path))
    yield from build(path, read) if path.is_dir() else deepcopy(read(path))


def _kustomization(root: Path, read: Read) -> Tree:
    (kustomization,) = read(root / "kustomization.yaml")
    kind = kustomization.get("kind")
    if kustomization.get("apiVersion") != VERSIONS.get(kind):
        raise ValueError(f"{root}: kind is {kind!r} and apiVersion {kustomization.get('apiVersion')!r}")
    _refuse_unknown(kustomization, KEYS[kind], root)
    return kustomization


def _config_map(root: Path, generator: Tree) -> Tree:
    _refuse_unknown(generator, {"name", "files", "options"}, root)
    options = generator["options"]
    _refuse_unknown(options, {"labels", "disableNameSuffixHash"}, root)
    # Without it the name would end in a hash of what is in it.
    assert options["disableNameSuffixHash"] is True
    data = {name: (root / name).read_text() for name in generator["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"], "labels": options["labels"]}, "data": data}


def _is(document: Tree, target: Tree) -> bool:
    return (document["kind"], document["metadata"]["name"]) == (target["kind"], target["name"])


def _refuse_unknown(sent: Tree, known: set[str], where: Path) -> None:
    if unknown := set(sent) - known:
        raise ValueError(f"{where}: unknown keys {sorted(unknown)}; known are {sorted(known)}")
