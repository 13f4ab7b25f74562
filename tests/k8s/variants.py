"""Every set of manifests that somebody applies: the service in each of its variants, and what is applied beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.k8s import kustomize
from tests.k8s.kustomize import Read, Tree

ROOT = Path(__file__).parent.parent.parent
K8S = ROOT / "k8s"
HARDWARE = ("cpu", "gpu", "gpu-fractional")
SERVICES: Mapping[str, list[str] | None] = {
    "as committed": None,
    "base": [],
    **{hardware: [f"overlays/{hardware}", "overlays/qdrant"] for hardware in HARDWARE},
    "ha": ["overlays/ha"],
    "everything": ["overlays/gpu", "overlays/qdrant", "overlays/ha", "overlays/monitoring"],
}
"""By the components that each chooses."""
BESIDE = ("models", "jobs", "examples")


def documents(name: str, read: Read = kustomize.read) -> list[Tree]:
    if name in SERVICES:
        return kustomize.build(K8S, read, SERVICES[name])
    if name == "models":
        return kustomize.build(K8S / name, read)
    return [document for path in sorted((K8S / name).glob("*.yaml")) for document in read(path)]


def of_file(path: Path) -> str:
    """A variant that holds what is in the file."""
    first, second, *_ = (*path.relative_to(K8S).parts, "")
    if first == "overlays":
        return second if second in SERVICES else "everything"
    return {"kustomization.yaml": "as committed", "grafana": "everything"}.get(first, first)


def rayservice(name: str) -> Tree:
    (only,) = (document for document in documents(name) if document["kind"] == "RayService")
    return only
