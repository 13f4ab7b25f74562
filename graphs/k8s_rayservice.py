"""The RayService that serves a config: a head without work, the front on CPU nodes, models where their hardware is.

Knows what KubeRay takes. Does not know how large pods are (k8s_sizing), nor what is in them (k8s_pods).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import ray

from bgeserve.store_settings import RemoteStoreSettings
from graphs import k8s_pods, k8s_sizing
from graphs.k8s_config import Application, Tree, applications
from graphs.k8s_sizing import Pods
from graphs.k8s_yaml import Literal, to_yaml

NAME = "bge-serve"
HEAD = Pods(cpus=2, memory_gib=k8s_sizing.RAY_GIB, least=1, most=1)
GPU_NODES = "nvidia.com/gpu.present"
"""The label that NVIDIA's device plugin puts on them."""
OFF_GPU_NODES: Tree = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": GPU_NODES, "operator": "NotIn", "values": ["true"]}]}]
        }
    }
}
SHARE = 0.01
"""Of a group's own resource, which only says where a replica may be: a hundred of them fit a pod."""


def rayservice(config: Tree, image: str) -> Tree:
    """Raises SettingsError for what cannot run on Kubernetes."""
    found = applications(config)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME, "labels": k8s_pods.PART_OF},
        "spec": {
            # It carries no replicas, and so no traffic.
            "excludeHeadPodFromServeSvc": True,
            "serveConfigV2": Literal(to_yaml(serve_config(config, found))),
            "rayClusterConfig": {
                "rayVersion": ray.__version__,
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {
                    "version": "v2",
                    "idleTimeoutSeconds": 300,
                    "securityContext": k8s_pods.UNPRIVILEGED,
                    "resources": {name: {"cpu": "500m", "memory": "1Gi"} for name in ("requests", "limits")},
                    "env": [{"name": "HOME", "value": k8s_pods.TMP["mountPath"]}],
                    "volumeMounts": [k8s_pods.TMP],
                },
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0"},
                    "template": k8s_pods.template("head", HEAD, image, [], affinity=OFF_GPU_NODES),
                },
                "workerGroupSpecs": list(_groups(found, image)),
            },
        },
    }


def serve_config(config: Tree, found: Sequence[Application]) -> Tree:
    """The config as the cluster runs it: it listens for other pods, and each deployment that needs no GPU says where it belongs."""
    made = deepcopy(config)
    made["http_options"] = {**made.get("http_options", {}), "host": "0.0.0.0", "port": k8s_pods.PORTS["all"]["serve"]}
    for application, tree in zip(found, made["applications"], strict=True):
        places: dict[str, tuple[str, float]] = {"ingress": ("front", application.ingress.cpus)}
        if application.store:
            places["retriever"] = ("front", application.store.cpus)
        places |= {name: ("compute", model.cpus) for name, model in application.models if not model.gpus}
        overrides: dict[str, Tree] = {override["name"]: override for override in tree.get("deployments", [])}
        for name, (group, cpus) in places.items():
            override = overrides.setdefault(name, {"name": name})
            # Ray takes these options as a whole, so what the settings say of CPUs is said again.
            options: Tree = {"num_cpus": cpus, **override.get("ray_actor_options", {})}
            override["ray_actor_options"] = {**options, "resources": {**options.get("resources", {}), group: SHARE}}
        tree["deployments"] = list(overrides.values())
    return made


def _groups(found: Sequence[Application], image: str) -> Iterator[Tree]:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {**k8s_pods.PART_OF, "app.kubernetes.io/component": "front"}},
    }
    env = list(_store_secrets(found))
    yield _group("front", k8s_sizing.front(found), image, env, affinity=OFF_GPU_NODES, topologySpreadConstraints=[spread])
    models = [model for application in found for _, model in application.models]
    if pods := k8s_sizing.on_gpus(models):
        tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        yield _group("gpu", pods, image, [], nodeSelector={GPU_NODES: "true"}, tolerations=tolerations)
    if pods := k8s_sizing.on_cpus(models):
        yield _group("compute", pods, image, [], affinity=OFF_GPU_NODES)


def _group(name: str, pods: Pods, image: str, env: list[Tree], **spec: Any) -> Tree:
    return {
        "groupName": name,
        "replicas": pods.least,
        "minReplicas": pods.least,
        "maxReplicas": pods.most,
        "rayStartParams": {},
        # On pods with a GPU that is what places a model; the others have a resource of their group's name.
        **({} if pods.gpus else {"resources": {"CPU": str(pods.cpus), name: "1"}}),
        "template": k8s_pods.template(name, pods, image, env, **spec),
    }


def _store_secrets(found: Sequence[Application]) -> Iterator[Tree]:
    """The settings name the variable that holds a store's key: `api_key_env`, `token_env`."""
    stores = [application.store for application in found if application.store]
    for variable in dict.fromkeys(name for store in stores for name in _variables(store)):
        yield k8s_pods.secret(variable, f"{NAME}-store", "key")


def _variables(store: RemoteStoreSettings) -> Iterator[str]:
    yield from (value for field, value in store if field.endswith("_env") and value)
