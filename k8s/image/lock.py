"""Writes the image's hashed requirements anew, from pyproject.toml and constraints.txt: `python k8s/image/lock.py`, with uv on the path.

torch and what only its CUDA build needs stand apart, since an image for CPUs goes without. torch-cpu.txt is written by hand: its index is
not PyPI's.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
EXTRAS = [part for extra in ("serve", "qdrant", "milvus", "vespa", "data", "tracing") for part in ("--extra", extra)]
OPTIONS = ("--constraints", "constraints.txt", "--generate-hashes", "--no-annotate", "--no-header", "--quiet")
PLATFORM = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28")
OF_CUDA = re.compile(r"(torch|triton|cuda-.*|nvidia-.*)==")


def lock(*source: str, requirements: str = "") -> list[str]:
    """Each requirement with its version and hashes, as uv writes it."""
    command = ["uv", "pip", "compile", *source, *OPTIONS, *PLATFORM]
    text = subprocess.run(command, cwd=HERE.parent.parent, input=requirements, stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.findall(r"^[\w.-]+==.*?(?=^[\w.-]+==|\Z)", text, re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    pinned = lock("pyproject.toml", *EXTRAS)
    for file, chosen in {
        "requirements.txt": [one for one in pinned if not OF_CUDA.match(one)],
        "torch-cuda.txt": [one for one in pinned if OF_CUDA.match(one)],
        "build.txt": lock("-", requirements="hatchling\n"),
    }.items():
        (HERE / file).write_text("".join(chosen))
