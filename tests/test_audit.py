"""No version that we pin is known to be vulnerable, as far as PyPI's advisories go."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pip_audit", reason="pip-audit is not installed (it is in the dev extra)")

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
ACCEPTED: Mapping[str, str] = {}
"""Advisories that do not concern us: id, and why."""
PROBE = "starlette"


def audit(requirements: Path) -> list[dict[str, Any]]:
    """What is known of each. Skips the test where the advisories cannot be had."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, "--requirement", str(requirements)], capture_output=True, text=True, timeout=600, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        pytest.skip(f"the advisories cannot be reached: {done.stderr.strip().rpartition(chr(10))[2][:200]}")
    if unknown := [one["name"] for one in found if "skip_reason" in one]:
        # A mirror serves packages and no advisories; pip-audit calls that "no known vulnerabilities".
        pytest.skip(f"the package index has no advisories for {len(unknown)} of {len(found)}, such as {unknown[0]}")
    return found


def test_no_pinned_version_is_known_to_be_vulnerable(tmp_path: Path) -> None:
    probe = tmp_path / "probe.txt"
    probe.write_text("".join(line for line in CONSTRAINTS.read_text().splitlines(keepends=True) if line.startswith(f"{PROBE}==")))
    assert [one["name"] for one in audit(probe)] == [PROBE]
    found = {(one["name"], known["id"]) for one in audit(CONSTRAINTS) for known in one["vulns"] if known["id"] not in ACCEPTED}
    assert found == set()
