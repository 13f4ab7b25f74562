"""Ray's default policy on our clock decides what Ray's own wrapping of it does on the machine's."""

from __future__ import annotations

import random

import pytest
from ray.serve.autoscaling_policy import _apply_autoscaling_config, _core_replica_queue_length_policy
from ray.serve.config import AutoscalingConfig

from benchmarks.autoscale.by_requests import context_of, decide
from bgeserve.scaling import Load
from bgeserve.simulation.policies import Seen


@pytest.mark.parametrize("delays_s", [(0, 0), (3, 10)])
def test_the_same_decisions_as_ray(delays_s: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    config = AutoscalingConfig(
        min_replicas=0, max_replicas=20, target_ongoing_requests=2, upscale_delay_s=delays_s[0], downscale_delay_s=delays_s[1]
    )
    whole = _apply_autoscaling_config(_core_replica_queue_length_policy)
    draw, now, asked_for = random.Random(0), 0.0, 1
    ours: dict[str, object] = {}
    rays: dict[str, object] = {}
    changes = 0
    for _ in range(300):
        now += 1
        running, requests = max(0, asked_for - draw.randint(0, 1)), float(draw.choice([0, 0, 1, 5, 9, 40]))
        monkeypatch.setattr("time.time", lambda now=now: now)
        seen = Seen(now, running, asked_for, 0, 0, Load(0, 0, 0, 0, 0))
        decided, ours = decide(config, seen, requests, ours)
        expected, rays = whole(context_of(config, seen, requests, rays))
        assert decided == expected
        changes += decided != asked_for
        asked_for = min(20, decided)
    assert changes > 5
