"""What Serve's controller costs for each replica that reports to it: `python -m benchmarks.autoscale.controller`.

Replicas that do nothing but say how loaded they are, as often as ours do, on a Ray of their own: CPU of the controller's process with few
of them and with many, idle otherwise. What `bgeserve/simulation/limits.py` counts on is the line through both.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

import ray
from ray import serve

from benchmarks.machine import describe_machine
from benchmarks.serving.processes import children_of, cpu_s, title
from bgeserve.replica_settings import ModelReplicas
from bgeserve.settings import EmbedderSettings
from graphs import parts

FEW, MANY = 1, 13
SECONDS = 20


@serve.deployment
class Idle:
    def record_autoscaling_stats(self) -> dict[str, float]:
        return {"queued_tokens": 0.0, "waiting_tokens": 0.0, "tokens_per_s": 1.0, "computed_tokens": 0.0, "refused_tokens": 0.0}


def main() -> None:
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=MANY)
    found = [_ms_per_s(count) for count in (FEW, MANY)]
    ray.shutdown()
    slope = (found[1] - found[0]) / (MANY - FEW)
    sys.stdout.write(f"{describe_machine()}: {FEW} replica {found[0]:.0f} ms of CPU a second, {MANY} replicas {found[1]:.0f}: ")
    sys.stdout.write(f"{found[0] - FEW * slope:.0f} ms and {slope:.2f} ms for each replica\n")


def _ms_per_s(replicas: int) -> float:
    """With our policy, which holds that many for as long as this looks."""
    scaled = ModelReplicas(min=replicas, max=replicas + 1, cold_start_s=10)
    options = parts.model_options(EmbedderSettings(model="none", cpus=0.01, replicas=scaled))
    serve.run(Idle.options(name="idle", **options).bind(), name="idle", route_prefix=None)
    time.sleep(5)
    pid = _controller(_descendants(os.getpid()))
    before, began = cpu_s(pid), time.monotonic()
    time.sleep(SECONDS)
    return 1000 * (cpu_s(pid) - before) / (time.monotonic() - began)


def _controller(pids: Sequence[int]) -> int:
    return next(pid for pid in pids if title(pid).startswith("ray::ServeController"))


def _descendants(pid: int) -> list[int]:
    return [one for child in children_of(pid) for one in (child, *_descendants(child))]


if __name__ == "__main__":
    main()
