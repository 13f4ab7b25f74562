"""What is wrong with a manifest: by KubeRay's own schemas, by Kubernetes' OpenAPI schemas and by the strict check of Serve configs.

Unknown keys are refused everywhere. Kinds whose schema is nowhere at hand are exempt by name.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from bgeserve.errors import SettingsError
from tests.k8s.kustomize import Tree

with warnings.catch_warnings(action="ignore"):  # Ray's, about its own code
    from graphs.check import parse

DATA = Path(__file__).parent.parent / "data"
KUBERNETES = "1.37"
EXEMPT = frozenset({"PodMonitor", "PrometheusRule", "Gateway", "HTTPRoute", "HealthCheckPolicy"})
RAY = {"RayService": "rayservice-v1-schema.json", "RayJob": "rayjob-v1-schema.json"}


def problems(document: Tree) -> list[str]:
    """One line for each; the same document is always judged the same."""
    kind, api_version = str(document.get("kind")), str(document.get("apiVersion"))
    if kind in EXEMPT:
        return []
    try:
        found = [error.message for error in _validator(kind, api_version).iter_errors(document)]
    except FileNotFoundError:
        return [f"kind is {kind} and apiVersion {api_version}: Kubernetes {KUBERNETES} has no such kind"]
    if kind not in RAY or found:
        return found
    # The custom resources' own schemas leave metadata open.
    found += problems({"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]})
    found += [problem for pod in pods(document) for problem in problems(pod)]
    if config := document["spec"].get("serveConfigV2"):
        found += _serve_problems(config)
    return found


def pods(rayservice: Tree) -> Iterator[Tree]:
    """The pods that KubeRay makes of a RayService's templates, each named after its group."""
    cluster = rayservice["spec"].get("rayClusterConfig", {})
    groups = {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}} if cluster else {}
    for name, group in groups.items():
        template = group["template"]
        metadata = {"name": f"{rayservice['metadata']['name']}-{name}", **template.get("metadata", {})}
        yield {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}


def strict(schema: Any) -> Any:
    """The schema as the API server applies it: defaults are filled in before `required` is asked, and unknown keys are errors here."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    if not isinstance(properties, dict) or schema.get("type") != "object":
        return {key: strict(value) for key, value in schema.items()}
    made = {**schema, "properties": {name: strict(each) for name, each in properties.items()}}
    made["required"] = [name for name in schema.get("required", []) if "default" not in properties[name]]
    made.setdefault("additionalProperties", False)
    return made


@cache
def _validator(kind: str, api_version: str) -> jsonschema.Draft202012Validator:
    """Raises FileNotFoundError for a kind that there is not."""
    if kind in RAY and api_version == "ray.io/v1":
        return jsonschema.Draft202012Validator(strict(json.loads((DATA / RAY[kind]).read_text())))
    group, _, version = api_version.rpartition("/")
    folder = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict"
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], version) if part)
    schema = schema_contents(f"{folder}/{name}.json", KUBERNETES)
    return jsonschema.Draft202012Validator(schema, registry=_definitions(folder))


@cache
def _definitions(folder: str) -> Registry[Any]:
    definitions = Resource.from_contents(schema_contents(f"{folder}/_definitions.json", KUBERNETES))
    # Crawled once: a registry does not remember what it had to look for.
    return Registry().with_resources([("/api/_definitions.json", definitions)]).crawl()


@cache
def _serve_problems(config: str) -> list[str]:
    try:
        parse(yaml.safe_load(config))
    except SettingsError as error:
        return error.message.splitlines()
    return []
