"""The pods in which Ray runs: unprivileged, on a read-only root, with the environment that the front needs. Knows Kubernetes, no models.

Probes are left to KubeRay, which puts its own into every Ray container: the raylet's health, and on workers the front's.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from bgeserve.api.keyring import KEYS_FILE_VARIABLE
from graphs.front import FRONT
from graphs.k8s_config import Tree
from graphs.k8s_sizing import SHARED_MEMORY_GIB, Pods

PART_OF = {"app.kubernetes.io/part-of": "bge-serve"}
"""By which disruption budgets and network policies find our pods: KubeRay names a cluster anew with each upgrade."""
SECRET = "bge-serve"
"""With the keys file of the API, as `keys.yaml`."""
MODELS = "/models"
UNPRIVILEGED: Tree = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
USER: Tree = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 100,
    "fsGroup": 100,
    # A volume of weights has thousands of files: not at each start.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
TMP = {"name": "tmp", "mountPath": "/tmp"}
KEYS = "/etc/bge-serve/keys.yaml"
"""A Secret as a folder, not as an environment: what is exchanged there reaches running pods, within about a minute."""
WEIGHTS = {"name": "models", "persistentVolumeClaim": {"claimName": "bge-models", "readOnly": True}}
PORTS = {"head": {"gcs-server": 6379, "dashboard": 8265, "client": 10001}, "all": {"metrics": 8080, "serve": 8000}}
"""KubeRay makes its services from the ports that the head names: without `serve` there would be none for the front."""


def template(component: str, pods: Pods, image: str, env: list[Tree], **spec: Any) -> Tree:
    """A pod template of a Ray node; component: head, front, or the group of models that it computes."""
    is_head = component == "head"
    computes = component not in ("head", "front")
    resources: Tree = {"cpu": str(pods.cpus), "memory": f"{pods.memory_gib}Gi"} | ({"nvidia.com/gpu": str(pods.gpus)} if pods.gpus else {})
    container: Tree = {
        "name": "ray-head" if is_head else "ray-worker",
        "image": image,
        "securityContext": UNPRIVILEGED,
        "env": [*_environment(computes), *env],
        "ports": [{"name": name, "containerPort": port} for name, port in ((PORTS["head"] if is_head else {}) | PORTS["all"]).items()],
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [TMP, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    volumes: list[Tree] = [
        # Ray's session (logs, sockets, what its object store spills), HAProxy's files, and every library's cache.
        {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{SHARED_MEMORY_GIB}Gi"}},
    ]
    if computes:
        container["volumeMounts"] = [*container["volumeMounts"], {"name": "models", "mountPath": MODELS, "readOnly": True}]
        volumes.append(WEIGHTS)
    if component == "front":
        keys = {"name": "keys", "mountPath": str(PurePosixPath(KEYS).parent), "readOnly": True}
        container["env"] = [*container["env"], {"name": KEYS_FILE_VARIABLE, "value": KEYS}]
        container["volumeMounts"] = [*container["volumeMounts"], keys]
        volumes.append({"name": "keys", "secret": {"secretName": SECRET, "defaultMode": 0o440}})
    return {
        "metadata": {"labels": {**PART_OF, "app.kubernetes.io/component": component}},
        "spec": {
            "securityContext": USER,
            # The head's autoscaler talks to the API server; nobody else has reason to.
            **({} if is_head else {"automountServiceAccountToken": False}),
            # Above what a replica may take to finish what it has accepted.
            "terminationGracePeriodSeconds": 60,
            **spec,
            "containers": [container],
            "volumes": volumes,
        },
    }


def secret(name: str, secret: str, key: str) -> Tree:
    """An environment variable whose value no manifest holds."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _environment(computes: bool) -> list[Tree]:
    """What Ray and the models read when they start, the same on every node where it concerns Ray."""
    # gRPC's own handlers of a fork crash, now and then, the process that the head starts for a Ray Client (ray-project/ray#63202).
    variables = {**FRONT, "RAY_USAGE_STATS_ENABLED": "0", "GRPC_ENABLE_FORK_SUPPORT": "0", "HOME": TMP["mountPath"]}
    if computes:
        # The hub's cache, as the job has filled it: a hub name in the config means what is there, and nothing is downloaded.
        variables |= {"HF_HOME": MODELS, "HF_HUB_OFFLINE": "1"}
    return [{"name": name, "value": value} for name, value in variables.items()]
