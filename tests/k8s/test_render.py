"""`bge-serve k8s render`: the committed manifests are what it writes, and other configs get what they need."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from bgeserve.cli.k8s import HARDWARE, IMAGE
from bgeserve.errors import SettingsError
from graphs.placement import problems as placement_problems
from tests.k8s.kustomize import Tree
from tests.k8s.schemas import parse, problems
from tests.k8s.variants import K8S, ROOT, rayservice

with warnings.catch_warnings(action="ignore"):  # Ray's, about its own code
    from graphs import k8s, k8s_config
    from graphs.k8s_rayservice import rayservice as render
    from graphs.k8s_weights import job
    from graphs.k8s_yaml import to_yaml

CONFIGS = ROOT / "configs"
COMMITTED = CONFIGS / "m3-cluster.yaml"
RERANKERS = ("encoder", "layerwise", "lightweight", "hybrid")


@pytest.fixture
def rerankers() -> Tree:
    """Five models, of half and of whole GPUs, over a server."""
    config = k8s_config.load(CONFIGS / "m3-rerankers.yaml")
    config["applications"][0]["args"]["store"] = {"kind": "milvus", "uri": "http://milvus:19530", "token_env": "MILVUS_TOKEN"}
    return config


def groups(made: Tree) -> dict[str, Tree]:
    return {group["groupName"]: group for group in made["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


def limits(group: Tree) -> Tree:
    return group["template"]["spec"]["containers"][0]["resources"]["limits"]


def served(made: Tree) -> Tree:
    return yaml.safe_load(made["spec"]["serveConfigV2"])["applications"][0]


def test_what_is_committed_is_what_it_writes() -> None:
    made = k8s.files(k8s_config.load(COMMITTED), IMAGE)
    assert len(made) == 2 + len(HARDWARE)
    for path, text in made.items():
        assert (K8S / path).read_text() == text, f"{path}: run `bge-serve k8s render configs/m3-cluster.yaml --into k8s`"


@pytest.mark.parametrize("hardware", HARDWARE)
def test_a_patched_base_is_what_the_config_would_be_on_that_hardware(hardware: str) -> None:
    wanted = render(k8s_config.on_hardware(k8s_config.load(COMMITTED), hardware), IMAGE)
    assert rayservice(hardware) == yaml.safe_load(to_yaml(wanted))


@pytest.mark.parametrize("name", ["embed-only", "rerank-only"])
def test_graphs_without_a_store_are_rendered_too(name: str) -> None:
    made = render(k8s_config.load(CONFIGS / f"{name}.yaml"), IMAGE)
    assert problems(yaml.safe_load(to_yaml(made))) == []
    assert [(group, one["minReplicas"], one["maxReplicas"]) for group, one in groups(made).items()] == [("front", 1, 1), ("gpu", 1, 4)]
    assert [override["name"] for override in served(made)["deployments"]] == ["ingress"]


def test_pods_fit_the_models_that_share_them(rerankers: Tree) -> None:
    made = render(rerankers, IMAGE)
    assert problems(yaml.safe_load(to_yaml(made))) == []
    # One of 9,242 million parameters in two bytes, or two of M3's; one core for each of two replicas, and one for Ray.
    assert limits(groups(made)["gpu"]) == {"cpu": "3", "memory": "25Gi", "nvidia.com/gpu": "1"}
    secrets = [each for each in groups(made)["front"]["template"]["spec"]["containers"][0]["env"] if "valueFrom" in each]
    assert [each["name"] for each in secrets] == ["MILVUS_TOKEN"]


@pytest.mark.parametrize("hardware", HARDWARE)
def test_the_least_pods_hold_the_least_replicas(rerankers: Tree, hardware: str) -> None:
    made = render(k8s_config.on_hardware(rerankers, hardware), IMAGE)
    _, demands = parse(yaml.safe_load(made["spec"]["serveConfigV2"]))
    nodes = [
        {"CPU": float(limits(one)["cpu"]), "GPU": float(limits(one).get("nvidia.com/gpu", 0)), group: 1}
        for group, one in groups(made).items()
        for _ in range(one["minReplicas"])
    ]
    assert placement_problems(demands, nodes, "the cluster") == []


def test_models_that_share_a_gpu_all_fit_it(rerankers: Tree) -> None:
    args = k8s_config.on_hardware(rerankers, "gpu-fractional")["applications"][0]["args"]
    shares = [model["gpus"] for role in ("embedders", "rerankers") for model in args[role].values()]
    assert shares == [0.2] * (1 + len(RERANKERS))


def test_what_was_stated_for_a_gpu_does_not_reach_a_cpu() -> None:
    config = k8s_config.load(CONFIGS / "embed-only.yaml")
    model = config["applications"][0]["args"]["embedders"]["bge-m3"]
    model |= {"device": "cuda", "max_batch_tokens": 32768, "dtype": "float16", "max_tokens": 512}
    (moved,) = served(render(k8s_config.on_hardware(config, "cpu"), IMAGE))["args"]["embedders"].values()
    assert moved == {"model": "BAAI/bge-m3", "replicas": {"min": 1, "max": 4}, "max_tokens": 512, "cpus": 4}
    kept = k8s_config.on_hardware(config, "gpu-fractional")["applications"][0]["args"]["embedders"]["bge-m3"]
    assert kept == {**model, "gpus": 1}


def test_models_on_cpu_and_gpu_have_groups_of_their_own(rerankers: Tree) -> None:
    rerankers["applications"][0]["args"]["rerankers"]["encoder"] = {"model": "BAAI/bge-reranker-base", "cpus": 2, "replicas": {"max": 6}}
    made = render(rerankers, IMAGE)
    assert list(groups(made)) == ["front", "gpu", "compute"]
    assert limits(groups(made)["compute"]) == {"cpu": "2", "memory": "8Gi"}
    assert groups(made)["compute"]["maxReplicas"] == 6
    # To one kind of hardware: a group less.
    cpu = render(k8s_config.on_hardware(rerankers, "cpu"), IMAGE)
    assert [(operation["op"], operation["path"][-1]) for operation in k8s.patch(made, cpu)] == [
        ("replace", "2"),
        ("replace", "1"),
        ("remove", "2"),
    ]


def test_options_in_the_config_are_kept() -> None:
    config = k8s_config.load(COMMITTED)
    config["applications"][0]["deployments"] = [{"name": "ingress", "max_replicas_per_node": 2, "ray_actor_options": {"num_cpus": 1}}]
    assert served(render(config, IMAGE))["deployments"][0] == {
        "name": "ingress",
        "max_replicas_per_node": 2,
        "ray_actor_options": {"num_cpus": 1, "resources": {"front": 0.01}},
    }


def test_the_job_fetches_each_model_once_at_its_revision_and_none_that_is_in_a_folder(rerankers: Tree) -> None:
    models = rerankers["applications"][0]["args"]["rerankers"]
    models["encoder"]["model"] = "/models/mine"
    models["layerwise"]["revision"] = "abc"
    command = job(k8s_config.applications(rerankers), IMAGE)["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[4:] == ["BAAI/bge-m3", "BAAI/bge-reranker-v2-minicpm-layerwise@abc", "BAAI/bge-reranker-v2.5-gemma2-lightweight"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"args": {"store": {"kind": "qdrant_edge", "path": "x"}}}, "search: store.kind is qdrant_edge, in a folder of one node"),
        ({"import_path": "tests.k8s.test_render:own", "args": {}}, "import_path is tests.k8s.test_render:own; known are graphs.search"),
    ],
)
def test_what_cannot_run_there_is_refused(changed: dict[str, Any], message: str) -> None:
    config = k8s_config.load(COMMITTED)
    (application,) = config["applications"]
    application["args"] |= changed.pop("args")
    application |= changed
    with pytest.raises(SettingsError, match=message):
        render(config, IMAGE)


def test_the_command_prints_or_writes_and_says_what_is_wrong(tmp_path: Path) -> None:
    printed = bge_serve("render", str(COMMITTED), "--overlay", "cpu", "--image", "r.example/bge-serve@sha256:0")
    assert printed.returncode == 0, printed.stderr
    made = yaml.safe_load(printed.stdout)
    assert groups(made)["compute"]["template"]["spec"]["containers"][0]["image"] == "r.example/bge-serve@sha256:0"

    shutil.copytree(K8S, tmp_path / "k8s")
    (tmp_path / "k8s/base/rayservice.yaml").unlink()
    assert bge_serve("render", str(COMMITTED), "--into", str(tmp_path / "k8s")).returncode == 0
    assert (tmp_path / "k8s/base/rayservice.yaml").read_text() == (K8S / "base/rayservice.yaml").read_text()

    refused = bge_serve("render", str(CONFIGS / "quickstart.yaml"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith(
        ": search: store.kind is qdrant_edge, in a folder of one node: on Kubernetes name a server (kind: qdrant)\n"
    )
    elsewhere = bge_serve("render", str(COMMITTED), "--into", str(tmp_path))
    assert elsewhere.stderr.endswith(f"{tmp_path} is no copy of k8s/: it has no folder for base/rayservice.yaml\n")


def bge_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("bge-serve")
    return subprocess.run([command, "k8s", *arguments], capture_output=True, text=True, timeout=120, check=False)
