"""What every benchmark says about where and when it ran."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path


def describe_machine() -> str:
    """Such as `2 cores of Intel(R) Xeon(R) 6975P-C, Linux, 2026-01-31`."""
    return f"{os.cpu_count()} cores of {_processor()}, {platform.system()}, {date.today().isoformat()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    named = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    )
    return named[0] if named else platform.processor() or platform.machine()
