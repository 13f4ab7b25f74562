"""Models are scaled by our policy, as Serve's controller gets it and calls it, which cannot import anything of ours."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bgeserve.replica_settings import ModelReplicas
from bgeserve.settings import EmbedderSettings, IngressSettings
from graphs.parts import embedders, ingress

CONTROLLER = """
    import sys
    for ours in ("bgeserve", "deployments", "graphs"):
        sys.modules[ours] = None
    from ray import cloudpickle
    from ray.serve._private.autoscaling_state import _resolve_policy_callable
    from ray.serve._private.common import TimeStampedValue
    from ray.serve.autoscaling_policy import _apply_autoscaling_config
    from ray.serve.config import AutoscalingContext

    config = cloudpickle.loads(sys.stdin.buffer.read())
    policy = _apply_autoscaling_config(_resolve_policy_callable(config.policy))

    def wanted(now, running, asked_for, queued_requests=0, queued_tokens=None):
        loads = {"tokens_per_s": 1000, "queued_tokens": queued_tokens, "waiting_tokens": 0, "computed_tokens": 0, "refused_tokens": 0}
        raw = {} if queued_tokens is None else {name: {"r": [TimeStampedValue(now, value)]} for name, value in loads.items()}
        count, state = policy(AutoscalingContext(
            deployment_id=None, deployment_name="m", app_name="a", running_replicas=[], aggregated_metrics={}, policy_state={},
            current_num_replicas=running, target_num_replicas=asked_for, raw_metrics=raw, config=config, current_time=now,
            total_num_requests=queued_requests, total_queued_requests=queued_requests, last_scale_up_time=None, last_scale_down_time=None,
            capacity_adjusted_min_replicas=config.min_replicas, capacity_adjusted_max_replicas=config.max_replicas,
        ))
        return count

    print(wanted(0, 0, 0), wanted(1, 0, 0, queued_requests=3), wanted(2, 1, 1, queued_tokens=100), wanted(3, 1, 1, queued_tokens=1e6),
          wanted(4, 8, 8, queued_tokens=0), wanted(8, 8, 8, queued_tokens=0), wanted(20, 1, 1, queued_tokens=0))
"""


def test_the_controller_scales_by_it_without_any_of_our_code(tmp_path: Path) -> None:
    replicas = {"min": 0, "max": 8, "cold_start_s": 10, "hold_down_s": 3, "idle_s": 9}
    settings = EmbedderSettings.model_validate({"model": "m", "replicas": replicas})
    deployment = embedders({"m": settings})["m"].handle._bound_deployment  # pyright: ignore[reportPrivateUsage]
    config = deployment._deployment_config.autoscaling_config  # pyright: ignore[reportPrivateUsage]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CONTROLLER)],
        input=pickle.dumps(config),
        capture_output=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    # At zero; the first request; little to do; much; none any more, held; given back but for one; idle.
    assert run.stdout.split() == b"0 1 1 8 8 1 0".split()


def test_what_does_not_scale_has_no_policy_and_an_ingress_counts_requests() -> None:
    fixed = embedders({"m": EmbedderSettings(model="m")})["m"].handle._bound_deployment  # pyright: ignore[reportPrivateUsage]
    assert fixed._deployment_config.autoscaling_config is None  # pyright: ignore[reportPrivateUsage]
    door = ingress(IngressSettings.model_validate({"replicas": {"min": 1, "max": 2}}), {}, {}, None)._bound_deployment  # pyright: ignore[reportPrivateUsage]
    config = door._deployment_config.autoscaling_config  # pyright: ignore[reportPrivateUsage]
    assert config is not None
    assert config.policy.is_default_policy_function()
    assert config.target_ongoing_requests == 64


def test_a_backlog_that_a_replica_would_refuse_is_no_target() -> None:
    with pytest.raises(ValueError, match=r"target_backlog_s is 2.0 and max_queue_s is 2:"):
        EmbedderSettings.model_validate({"model": "m", "replicas": {"max": 2, "target_backlog_s": 2}})


def test_a_replica_is_held_for_two_cold_starts_unless_the_settings_say_how_long() -> None:
    assert ModelReplicas(cold_start_s=45).rule.hold_down_s == 90
    assert ModelReplicas(cold_start_s=45, hold_down_s=10).rule.hold_down_s == 10
