"""What an operator looks for in the manifests, in every variant: who runs where, with which rights, and who may talk to whom."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from graphs.front import FRONT
from graphs.placement import problems as placement_problems
from tests.k8s.kustomize import Tree
from tests.k8s.schemas import parse, pods
from tests.k8s.variants import HARDWARE, SERVICES, documents, rayservice

RAY_GROUPS = {"head", "front", "gpu", "compute"}


@pytest.fixture(params=list(SERVICES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def every_pod(made: list[Tree]) -> Iterator[Tree]:
    """As templates, with the owner's name where they have none."""
    for document in made:
        if document["kind"] == "RayService":
            yield from pods(document)
        elif template := document["spec"].get("template") if "spec" in document else None:
            yield {**template, "metadata": {"name": document["metadata"]["name"], **template["metadata"]}}


def ray_pods(name: str) -> dict[str, Tree]:
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"] for pod in pods(rayservice(name))}


def container(pod: Tree) -> Tree:
    (only,) = pod["containers"]
    return only


def env(pod: Tree) -> Tree:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(pod)["env"]}


def test_the_head_carries_no_replicas_and_the_cluster_scales_itself(name: str) -> None:
    spec = rayservice(name)["spec"]
    assert spec["excludeHeadPodFromServeSvc"] is True
    cluster = spec["rayClusterConfig"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["authOptions"] == {"mode": "token"}


def test_every_node_starts_ray_with_the_same_front_door(name: str) -> None:
    for group, pod in ray_pods(name).items():
        assert FRONT.items() <= env(pod).items(), group


def test_the_services_find_the_front_by_the_heads_ports(name: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(ray_pods(name)["head"])["ports"]}
    served = yaml.safe_load(rayservice(name)["spec"]["serveConfigV2"])["http_options"]
    assert served == {"host": "0.0.0.0", "port": ports["serve"]}


@pytest.mark.parametrize("name", [*SERVICES, "models"])
def test_every_pod_is_unprivileged_on_a_read_only_root_and_states_its_resources(name: str) -> None:
    made = list(every_pod(documents(name)))
    assert made
    for pod in made:
        spec, label = pod["spec"], pod["metadata"]["name"]
        assert spec["securityContext"]["runAsNonRoot"] is True, label
        assert spec["securityContext"]["runAsUser"] > 0, label
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, label
        assert container(spec)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, label
        assert container(spec)["resources"]["requests"] == container(spec)["resources"]["limits"], label
        assert {"cpu", "memory"} <= container(spec)["resources"]["requests"].keys(), label
        mounts = {mount["mountPath"]: mount["name"] for mount in container(spec)["volumeMounts"]}
        assert "/tmp" in mounts, label
        assert spec.get("automountServiceAccountToken", True) is label.endswith("-head"), label


def test_ray_has_shared_memory_within_the_pods_memory(name: str) -> None:
    for group, pod in ray_pods(name).items():
        mounts = {mount["mountPath"]: mount["name"] for mount in container(pod)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}, group
        assert int(container(pod)["resources"]["limits"]["memory"].removesuffix("Gi")) >= 4, group
        assert set(mounts.values()) == set(volumes), group


def test_weights_are_read_only_where_models_compute_and_nowhere_else(name: str) -> None:
    for group, pod in ray_pods(name).items():
        mounts = [mount["readOnly"] for mount in container(pod)["volumeMounts"] if mount["mountPath"] == "/models"]
        assert mounts == ([True] if group in ("gpu", "compute") else []), group
        assert ("HF_HUB_OFFLINE" in env(pod)) == bool(mounts), group


def test_secrets_are_references_to_where_they_are_needed(name: str) -> None:
    for group, pod in ray_pods(name).items():
        secrets = {variable: value["secretKeyRef"] for variable, value in env(pod).items() if isinstance(value, dict)}
        of_front = {
            "QDRANT_API_KEY": {"name": "bge-serve-store", "key": "key"},
        }
        assert secrets == (of_front if group == "front" else {}), group
    assert not [document for document in documents(name) if document["kind"] == "Secret"]


def test_the_front_reads_the_keys_file_of_a_mounted_secret(name: str) -> None:
    """As a whole folder: a file mounted by `subPath` would never change."""
    for group, pod in ray_pods(name).items():
        mounts = {mount["name"]: mount for mount in container(pod)["volumeMounts"]}
        assert ("keys" in mounts) == (group == "front"), group
        if group == "front":
            (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "keys"]
            assert volume["secret"] == {"secretName": "bge-serve", "defaultMode": 0o440}
            assert mounts["keys"] == {"name": "keys", "mountPath": "/etc/bge-serve", "readOnly": True}
            assert env(pod)["BGE_SERVE_API_KEYS_FILE"] == "/etc/bge-serve/keys.yaml"
        assert "BGE_SERVE_API_KEY" not in env(pod), group


def test_the_config_finds_the_qdrant_that_the_overlay_brings_and_has_its_key() -> None:
    made = {document["kind"]: document for document in documents("gpu")}
    store = yaml.safe_load(made["RayService"]["spec"]["serveConfigV2"])["applications"][0]["args"]["store"]
    service = made["Service"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert store["url"] == f"http://{service['metadata']['name']}:{ports['http']}"
    assert (
        env(ray_pods("gpu")["front"])[store["api_key_env"]]
        == env(made["StatefulSet"]["spec"]["template"]["spec"])["QDRANT__SERVICE__API_KEY"]
    )


def test_every_replica_has_its_group_and_no_other(name: str) -> None:
    spec = rayservice(name)["spec"]
    _, demands = parse(yaml.safe_load(spec["serveConfigV2"]))
    groups = {group["groupName"]: (resources(group), group["minReplicas"]) for group in spec["rayClusterConfig"]["workerGroupSpecs"]}
    places = {
        demand.deployment: [group for group, (offered, _) in groups.items() if all(offered.get(r, 0) >= n for r, n in demand.each.items())]
        for demand in demands
    }
    (models,) = set(groups) - {"front"}
    assert places == {
        "ingress": ["front"],
        "retriever": ["front"],
        "embedder-bge-m3": [models],
        "reranker-bge-reranker-v2-m3": [models],
    }
    nodes = [offered for offered, least in groups.values() for _ in range(least)]
    assert placement_problems(demands, nodes, "the cluster") == []


@pytest.mark.parametrize(("hardware", "gpus"), list(zip(HARDWARE, (0, 1, 0.5), strict=True)))
def test_each_hardware_has_its_share_of_a_gpu(hardware: str, gpus: float) -> None:
    spec = rayservice(hardware)["spec"]
    _, demands = parse(yaml.safe_load(spec["serveConfigV2"]))
    models = [demand for demand in demands if demand.deployment.startswith(("embedder", "reranker"))]
    assert [demand.each.get("GPU", 0) for demand in models] == [gpus, gpus]
    (_, group) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert group["maxReplicas"] == {0: 24, 1: 24, 0.5: 12}[gpus]


def resources(group: Tree) -> dict[str, float]:
    """What a worker of the group offers to Ray: its container's limits, and the resources that the group adds."""
    limits = container(group["template"]["spec"])["resources"]["limits"]
    offered = {"CPU": limits["cpu"], "GPU": limits.get("nvidia.com/gpu", 0), **group.get("resources", {})}
    return {name: float(amount) for name, amount in offered.items()}


def test_front_and_head_keep_off_gpu_nodes(name: str) -> None:
    for group, pod in ray_pods(name).items():
        terms = pod.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
        is_on_gpu_nodes = pod.get("nodeSelector") == {"nvidia.com/gpu.present": "true"}
        assert bool(terms) is (group != "gpu"), group
        assert is_on_gpu_nodes is (group == "gpu"), group


def test_probes_are_kuberays_on_ray_and_ours_elsewhere() -> None:
    probes = {"startupProbe", "readinessProbe", "livenessProbe"}
    for pod in every_pod(documents("everything")):
        is_ray = pod["metadata"]["labels"].get("app.kubernetes.io/component") in RAY_GROUPS
        assert probes & container(pod["spec"]).keys() == (set() if is_ray else probes), pod["metadata"]["name"]


def test_every_selector_selects_a_pod_that_there_is(name: str) -> None:
    made = documents(name)
    labels = [{**pod["metadata"]["labels"], "ray.io/is-ray-node": "yes"} for pod in every_pod(made)]
    for document in made:
        if document["kind"] in ("NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
            selector = document["spec"].get("podSelector") or document["spec"]["selector"]
            assert [pod for pod in labels if selects(selector, pod)], document["metadata"]["name"]
        elif document["kind"] == "Service":
            assert [pod for pod in labels if document["spec"]["selector"].items() <= pod.items()], document["metadata"]["name"]


def selects(selector: Tree, labels: Tree) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert {expression["operator"] for expression in expressions} <= {"In"}
    matches = selector.get("matchLabels", {}).items() <= labels.items()
    return matches and all(labels.get(expression["key"]) in expression["values"] for expression in expressions)


def reached_from_outside(made: list[Tree], pod: Tree) -> set[int]:
    """Ports that whoever is in the cluster may open on the pod."""
    rules = [
        rule
        for policy in made
        if policy["kind"] == "NetworkPolicy" and "Ingress" in policy["spec"]["policyTypes"]
        if selects(policy["spec"]["podSelector"], pod["metadata"]["labels"])
        for rule in policy["spec"]["ingress"]
    ]
    assert rules, pod["metadata"]["name"]
    return {port["port"] for rule in rules if "from" not in rule for port in rule["ports"]}


def test_only_the_front_is_open_to_everybody(name: str) -> None:
    made = documents(name)
    for pod in every_pod(made):
        is_ray = pod["metadata"]["labels"].get("app.kubernetes.io/component") in RAY_GROUPS
        assert reached_from_outside(made, pod) == ({8000} if is_ray else set()), pod["metadata"]["name"]


def test_a_drain_leaves_a_pod_of_each_kind_and_moves_the_head_only_where_redis_remembers(name: str) -> None:
    made = documents(name)
    budgets = {document["metadata"]["name"]: document["spec"] for document in made if document["kind"] == "PodDisruptionBudget"}
    remembers = "gcsFaultToleranceOptions" in rayservice(name)["spec"]["rayClusterConfig"]
    assert {budget: spec["minAvailable"] for budget, spec in budgets.items()} == {
        "bge-serve-front": 1,
        "bge-serve-models": 1,
        "bge-serve-head": 0 if remembers else 1,
    }


def test_the_job_runs_beside_the_front_of_a_cluster_that_is_named_when_it_starts() -> None:
    spec = next(document for document in documents("jobs") if document["kind"] == "RayJob")["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": "CLUSTER"}
    assert yaml.safe_load(spec["entrypointResources"]) == {"front": 0.01}
    # What the operator refuses in a job that does not own its cluster.
    assert not {"ttlSecondsAfterFinished", "backoffLimit", "suspend"} & spec.keys()


def test_what_no_schema_says_and_the_operator_refuses(name: str) -> None:
    cluster = rayservice(name)["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert not (group["rayStartParams"] and group.get("resources")), "a group's resources stand in one place"
        assert "restartPolicy" not in group["template"]["spec"], "the autoscaler's second version sets it"
        assert group.get("minReplicas", 1) <= group.get("maxReplicas", 1)


def test_load_balancers_ask_for_readiness_at_the_service_that_kuberay_makes() -> None:
    made = {document["kind"]: document["spec"] for document in documents("examples")}
    backend = made["Ingress"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert (backend["name"], backend["port"]["number"]) == ("bge-serve-serve-svc", 8000)
    assert made["HTTPRoute"]["rules"][0]["backendRefs"] == [{"name": "bge-serve-serve-svc", "port": 8000}]
    assert made["HealthCheckPolicy"]["default"]["config"]["httpHealthCheck"]["requestPath"] == "/readyz"
    assert made["Ingress"]["tls"][0]["hosts"] == made["HTTPRoute"]["hostnames"]
