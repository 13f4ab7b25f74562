"""Out of memory costs speed, not answers: with the real allocator failing under a real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GIVES_BACK_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""glibc otherwise keeps freed tensors, and gives 64 MiB of them back at a moment of its own: then the batch would fit after all."""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_a_batch_that_does_not_fit_into_memory_is_computed_in_halves() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.batching.out_of_memory"],
        cwd=Path(__file__).parents[2],
        env=os.environ | GIVES_BACK_AT_ONCE,
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
