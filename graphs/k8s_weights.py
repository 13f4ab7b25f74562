"""The job that fetches a config's weights onto the volume from which every replica reads them, before the service starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphs import k8s_pods
from graphs.k8s_config import Application, Tree
from graphs.k8s_yaml import Literal

NAME = "bge-models"
FETCH = """\
import sys
from bgeserve.models.hub import locate
for model in sys.argv[1:]:
    print(model, "is in", locate(*model.split("@")), flush=True)
"""


def job(found: Sequence[Application], image: str) -> Tree:
    """Each model of the config into the hub's cache on the volume, but those in folders; what is there already is not fetched again."""
    resources: Tree = {"cpu": "1", "memory": "2Gi"}
    container: Tree = {
        "name": "fetch",
        "image": image,
        "securityContext": k8s_pods.UNPRIVILEGED,
        # By the code that will look for them: it knows which of a checkpoint's files are read.
        "command": ["python", "-P", "-c", Literal(FETCH), *dict.fromkeys(_hub_names(found))],
        "env": [
            {"name": "HOME", "value": k8s_pods.TMP["mountPath"]},
            {"name": "HF_HOME", "value": k8s_pods.MODELS},
            # Only gated models (Gemma's) need a token.
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hugging-face", "key": "token", "optional": True}}},
        ],
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [k8s_pods.TMP, {"name": "models", "mountPath": k8s_pods.MODELS}],
    }
    labels = {**k8s_pods.PART_OF, "app.kubernetes.io/component": "weights"}
    pod: Tree = {
        "securityContext": k8s_pods.USER,
        "automountServiceAccountToken": False,
        "restartPolicy": "OnFailure",
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "models", "persistentVolumeClaim": {"claimName": NAME}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {"backoffLimit": 4, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def _hub_names(found: Sequence[Application]) -> Iterator[str]:
    for application in found:
        for _, model in application.models:
            if not model.model.startswith((".", "/", "~")):
                yield f"{model.model}@{model.revision}" if model.revision else model.model
