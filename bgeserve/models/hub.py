"""Where a model's files are: a folder, a Python package, the Hugging Face hub or its cache. Knows names, not what is in the files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from bgeserve.errors import CheckpointError

SPARSE_HEAD = "sparse_linear.pt"
MULTI_VECTOR_HEAD = "colbert_linear.pt"

_DESCRIPTION_FILES = ["*.json", "*.txt", "*.model", SPARSE_HEAD, MULTI_VECTOR_HEAD]


def locate(model: str, revision: str | None = None) -> Path:
    """Folder of a local path, of `package:NAME`, or of a hub name (downloaded unless the cache has it; HF_HUB_OFFLINE is honoured)."""
    local = Path(model).expanduser()
    if revision is not None and (local.is_dir() or model.startswith("package:")):
        raise CheckpointError(f"revision is {revision!r}, but model is {model!r}: only a hub name has revisions", field="revision")
    if model.startswith("package:"):
        return _package_folder(model.removeprefix("package:"))
    if local.is_dir():
        return local
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise CheckpointError(f"model is {model!r}: no such folder, and not a hub name (owner/name) or package:NAME", field="model")
    return _hub_folder(model, revision)


def _package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or found.origin is None:
        raise CheckpointError(f"model is 'package:{name}', but no Python package {name!r} is installed", field="model")
    folder = Path(found.origin).parent / "model"
    if not folder.is_dir():
        raise CheckpointError(f"package {name!r} carries no model: {folder} is not a folder", field="model")
    return folder


def _hub_folder(name: str, revision: str | None) -> Path:
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_DESCRIPTION_FILES, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_DESCRIPTION_FILES, "pytorch_model*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision}," if revision else ""
        message = f"model {name!r} is no folder here, and{at} neither in the hub cache nor downloadable: {error}"
        raise CheckpointError(message, field="model") from error
    return folder
