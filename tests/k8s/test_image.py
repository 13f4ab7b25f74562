"""The image's requirements are hashed, and are the versions that CI tests; the builder is sent what the Dockerfile copies."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.k8s.variants import K8S, ROOT

IMAGE = K8S / "image"
LOCKS = [IMAGE / name for name in ("requirements.txt", "torch-cuda.txt", "torch-cpu.txt", "build.txt")]
EXTRAS = ("serve", "qdrant", "milvus", "vespa", "data", "tracing")


def pinned(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_everything_is_hashed(path: Path) -> None:
    blocks = re.findall(r"^[\w.-]+==.*?(?=^[\w.-]+==|\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_the_versions_are_those_that_ci_tests() -> None:
    tested = pinned(ROOT / "constraints.txt")
    locked = {name: version for path in LOCKS[:2] for name, version in pinned(path).items()}
    assert {name: version for name, version in locked.items() if tested.get(name, version) != version} == {}
    assert pinned(IMAGE / "torch-cpu.txt") == {"torch": f"{tested['torch']}+cpu"}


def test_nothing_that_we_need_is_missing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    needed = [one for one in needed if not one.startswith("bge-serve")]
    locked = {name: version for path in LOCKS[:2] for name, version in pinned(path).items()}
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement.name


def test_the_image_for_cpus_goes_without_cuda() -> None:
    assert not [name for name in pinned(IMAGE / "requirements.txt") if name.startswith(("nvidia-", "cuda-", "torch", "triton"))]


def test_the_builder_is_sent_what_the_dockerfile_copies() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    lines = [line.split() for line in (K8S / "Dockerfile").read_text().splitlines() if line.startswith("COPY") and "--from" not in line]
    copied = {part for line in lines for part in line[1:-1] if not part.startswith("--")}
    for path in copied:
        assert any(path == one or path.startswith(f"{one}/") for one in sent), path
        assert list(ROOT.glob(path.replace("${TORCH}", "*"))), path
