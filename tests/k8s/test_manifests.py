"""The manifests in k8s/: valid by KubeRay's own schema with unknown keys refused, and what an operator would look for in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

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


def test_models_fit_a_gpu_worker_and_the_ingress_stays_off_them(manifest: Tree) -> None:
    (application,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
    groups = {group["groupName"]: group for group in manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    limits = container(groups["gpu"]["template"]["spec"])["resources"]["limits"]
    models = {**application["args"].get("embedders", {}), **application["args"].get("rerankers", {})}
    for model in models.values():
        assert model["gpus"] <= int(limits["nvidia.com/gpu"])
        assert model["cpus"] <= int(limits["cpu"])
        assert model["replicas"]["max"] * model["gpus"] <= groups["gpu"]["maxReplicas"] * int(limits["nvidia.com/gpu"])
    (ingress,) = application["deployments"]
    assert ingress["name"] == "ingress"
    assert ingress["ray_actor_options"]["resources"].keys() <= groups["front"]["resources"].keys()
    assert "resources" not in groups["gpu"]
    assert "nvidia.com/gpu" not in container(groups["front"]["template"]["spec"])["resources"]["limits"]
