"""Every manifest that somebody applies is valid by the schemas of its kinds, and a misspelt key anywhere in k8s/ is an error."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonpatch import JsonPatchException

from tests.k8s import kustomize
from tests.k8s.kustomize import Tree
from tests.k8s.schemas import EXEMPT, problems
from tests.k8s.variants import BESIDE, K8S, SERVICES, documents, of_file

FILES = sorted(path for path in K8S.rglob("*.yaml") if path.name != "checkov.yaml")
FREE = {
    *("labels", "annotations", "matchLabels", "nodeSelector", "clusterSelector", "requests", "limits", "rayStartParams"),
    *("embedders", "rerankers"),
}
"""Their keys are names that someone else gives."""
Path_ = tuple[str | int, ...]


@pytest.mark.parametrize("name", [*SERVICES, *BESIDE])
def test_every_manifest_is_valid(name: str) -> None:
    made = documents(name)
    assert made
    assert {f"{document['kind']} {document['metadata']['name']}": problems(document) for document in made if problems(document)} == {}


def test_only_kinds_whose_schema_is_nowhere_are_exempt() -> None:
    kinds = {document["kind"] for name in (*SERVICES, *BESIDE) for document in documents(name)}
    assert kinds >= EXEMPT
    assert kinds - EXEMPT >= {"RayService", "RayJob", "StatefulSet", "Job", "NetworkPolicy", "PodDisruptionBudget", "Ingress", "ConfigMap"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(K8S)))
def test_every_misspelt_key_is_an_error(path: Path) -> None:
    name = of_file(path)
    right = {json.dumps(document) for document in documents(name)}
    missed: list[Path_] = []
    tried: set[Path_] = set()
    for i, document in enumerate(kustomize.read(path)):
        if isinstance(document, dict) and document["kind"] in EXEMPT:
            continue
        for keys in _keys(document):
            alike = tuple(0 if isinstance(key, int) else key for key in keys)
            if (document_kind(document), *alike) not in tried:
                tried.add((document_kind(document), *alike))
                if not _is_refused(name, path, i, keys, right):
                    missed.append(keys)
    assert missed == []
    assert tried or document_kinds(path) <= EXEMPT


def document_kind(document: Any) -> str:
    return document["kind"] if isinstance(document, dict) else "patch"


def document_kinds(path: Path) -> set[str]:
    return {document_kind(document) for document in kustomize.read(path)}


def _is_refused(name: str, path: Path, index: int, keys: Path_, right: set[str]) -> bool:
    def read(asked: Path) -> list[Any]:
        found = kustomize.read(asked)
        if asked.resolve() == path:
            found[index] = _misspelt(found[index], keys)
        return found

    try:
        changed = [document for document in documents(name, read) if json.dumps(document) not in right]
        return any(problems(document) for document in changed)
    except (ValueError, KeyError, TypeError, AssertionError, JsonPatchException):
        return True


def _misspelt(node: Any, keys: Path_) -> Any:
    """A copy of the node with one key changed; a key inside of an embedded Serve config too."""
    key, *rest = keys
    if isinstance(node, str):
        return yaml.safe_dump(_misspelt(yaml.safe_load(node), keys), sort_keys=False)
    made: Any = node.copy()
    if rest:
        made[key] = _misspelt(made[key], tuple(rest))
    else:
        made[f"{key}x"] = made.pop(key)
    return made


def _keys(node: Any, path: Path_ = ()) -> Iterator[Path_]:
    """To every key whose name is not free."""
    if isinstance(node, str) and node.startswith("http_options:"):
        node = yaml.safe_load(node)
    if isinstance(node, dict):
        for key, value in node.items():
            # A group's or an actor's own resources, a service's selector; a container's resources hold requests and limits.
            is_free = path and (path[-1] in FREE or (path[-1] in ("resources", "selector") and not isinstance(value, dict)))
            if not is_free:
                yield (*path, key)
            yield from _keys(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _keys(value, (*path, i))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="compares with kubectl")
@pytest.mark.parametrize("name", list(SERVICES))
def test_kubectl_makes_the_same_of_it(name: str, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    if (components := SERVICES[name]) is not None:
        (choices,) = kustomize.read(K8S / "kustomization.yaml")
        (tmp_path / "k8s/kustomization.yaml").write_text(yaml.safe_dump({**deepcopy(choices), "components": components}))
    built = subprocess.run(["kubectl", "kustomize", tmp_path / "k8s"], capture_output=True, text=True, check=True).stdout
    assert _by_name(list(yaml.safe_load_all(built))) == _by_name(documents(name))


def _by_name(made: list[Tree]) -> dict[str, Tree]:
    return {f"{document['kind']} {document['metadata']['name']}": document for document in made}
