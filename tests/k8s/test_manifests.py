"""The manifests in k8s/: valid by KubeRay's own schema with unknown keys refused, and what an operator would look for in them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bgeserve.errors import SettingsError

ROOT = Path(__file__).parent.parent.parent
MANIFESTS = sorted((ROOT / "k8s").glob("*.yaml"))
FRONT = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}

Tree = dict[str, Any]


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


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(strict(json.loads((ROOT / "tests/data/rayservice-v1-schema.json").read_text())))


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def manifest(request: pytest.FixtureRequest) -> Tree:
    return yaml.safe_load(request.param.read_text())


@pytest.fixture(scope="module")
def parse() -> Callable[[object], Any]:
    """The strict check of configs/; Ray warns about its own code while it is imported."""
    with warnings.catch_warnings(action="ignore"):
        from graphs.check import parse
    return parse


def pods(manifest: Tree) -> Iterator[tuple[str, Tree]]:
    cluster = manifest["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]["spec"]


def container(pod: Tree) -> Tree:
    (only,) = pod["containers"]
    return only


def test_there_is_a_manifest_for_each_graph_that_needs_no_store() -> None:
    assert [path.stem for path in MANIFESTS] == ["embed-only", "rerank-only"]


def test_the_manifest_is_valid(manifest: Tree, validator: jsonschema.Draft202012Validator) -> None:
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"] == "RayService"
    assert [error.message for error in validator.iter_errors(manifest)] == []


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "excludeHeadPodFromServeSvc"),
        ("spec", "rayClusterConfig", "enableInTreeAutoscaling"),
        ("spec", "rayClusterConfig", "autoscalerOptions", "idleTimeoutSeconds"),
        ("spec", "rayClusterConfig", "workerGroupSpecs", 0, "maxReplicas"),
        ("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "securityContext", "runAsNonRoot"),
        ("spec", "rayClusterConfig", "workerGroupSpecs", 1, "template", "spec", "containers", 0, "volumeMounts"),
    ],
)
def test_a_misspelt_key_is_an_error(manifest: Tree, validator: jsonschema.Draft202012Validator, path: tuple[str | int, ...]) -> None:
    broken: Any = deepcopy(manifest)
    parent = broken
    for key in path[:-1]:
        parent = parent[key]
    parent[f"{path[-1]}s"] = parent.pop(path[-1])
    assert not validator.is_valid(broken)


def test_the_head_carries_no_replicas_and_the_cluster_scales_itself(manifest: Tree) -> None:
    cluster = manifest["spec"]["rayClusterConfig"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert manifest["spec"]["excludeHeadPodFromServeSvc"] is True
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"


def test_every_node_starts_ray_with_the_same_front_door(manifest: Tree) -> None:
    for name, pod in pods(manifest):
        env = {each["name"]: each.get("value") for each in container(pod)["env"]}
        assert FRONT.items() <= env.items(), name


def test_every_pod_is_unprivileged_has_shared_memory_and_states_its_resources(manifest: Tree) -> None:
    for name, pod in pods(manifest):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert container(pod)["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}, name
        assert {"cpu", "memory"} <= container(pod)["resources"]["requests"].keys(), name
        mounts = {mount["mountPath"]: mount["name"] for mount in container(pod)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory", name
        assert set(mounts.values()) == set(volumes), name


def test_weights_are_read_only_and_secrets_are_references(manifest: Tree) -> None:
    groups = dict(pods(manifest))
    assert [mount["readOnly"] for mount in container(groups["gpu"])["volumeMounts"] if mount["mountPath"] == "/models"] == [True]
    keys = [each for each in container(groups["front"])["env"] if each["name"] == "BGE_SERVE_API_KEY"]
    assert [each["valueFrom"]["secretKeyRef"] for each in keys] == [{"name": "bge-serve", "key": "api-key"}]
    literal = [each["name"] for _, pod in pods(manifest) for each in container(pod)["env"] if "value" in each]
    assert set(literal) == set(FRONT)


def test_the_serve_config_passes_the_strict_check_and_a_misspelt_setting_does_not(manifest: Tree, parse: Callable[[object], Any]) -> None:
    sent = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    config, _ = parse(sent)
    assert [application.route_prefix for application in config.applications] == ["/"]
    sent["applications"][0]["args"]["ingres"] = sent["applications"][0]["args"].pop("ingress")
    with pytest.raises(SettingsError, match=r"args\.ingres: unknown key; did you mean 'ingress'"):
        parse(sent)


def test_models_run_on_gpu_workers_and_the_ingress_never_does(manifest: Tree, parse: Callable[[object], Any]) -> None:
    _, demands = parse(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    groups = {group["groupName"]: resources(group) for group in manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    places = {
        demand.deployment: [name for name, offered in groups.items() if all(offered.get(r, 0) >= n for r, n in demand.each.items())]
        for demand in demands
    }
    assert places.pop("ingress") == ["front"]
    assert list(places.values()) == [["gpu"]]


def resources(group: Tree) -> dict[str, float]:
    """What a worker of the group offers to Ray: its container's limits, and the resources that the group adds."""
    limits = container(group["template"]["spec"])["resources"]["limits"]
    offered = {"CPU": limits["cpu"], "GPU": limits.get("nvidia.com/gpu", 0), **group.get("resources", {})}
    return {name: float(amount) for name, amount in offered.items()}
