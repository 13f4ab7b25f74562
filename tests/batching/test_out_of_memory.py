"""Out of memory costs speed, not answers: with the real allocator failing under a real model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_a_batch_that_does_not_fit_into_memory_is_computed_in_halves() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.batching.out_of_memory"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed_before"] == 0
    assert found["failed"] > 0
    assert found["difference"] < 1e-5
