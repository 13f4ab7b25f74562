"""`bge-serve k8s render CONFIG`: one product YAML to the manifests that follow from it.

Knows which file holds what. What does not depend on a config lies in k8s/ as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bgeserve.cli.k8s import HARDWARE, add_arguments
from bgeserve.errors import SettingsError
from graphs.k8s_config import Tree, applications, load, on_hardware
from graphs.k8s_rayservice import rayservice
from graphs.k8s_weights import job
from graphs.k8s_yaml import to_yaml

GROUPS = "/spec/rayClusterConfig/workerGroupSpecs"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bge-serve k8s render", description="Write the Kubernetes manifests that follow from a Serve config."
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    # A user's own modules are found there; last, so that nothing is shadowed.
    sys.path.append(str(Path.cwd()))
    try:
        config = load(args.config)
        if args.into:
            _write(args.into, files(config, args.image))
        else:
            print(to_yaml(rayservice(on_hardware(config, args.overlay) if args.overlay else config, args.image)), end="")
    except SettingsError as error:
        for line in error.message.splitlines():
            print(f"{args.config}: {line}", file=sys.stderr)
        return 1
    return 0


def files(config: Tree, image: str) -> dict[str, str]:
    """What follows from the config, by its path in k8s/. Raises SettingsError."""
    base = rayservice(config, image)
    made: dict[str, object] = {"base/rayservice.yaml": base, "models/job.yaml": job(applications(config), image)}
    for hardware in HARDWARE:
        made[f"overlays/{hardware}/rayservice.yaml"] = patch(base, rayservice(on_hardware(config, hardware), image))
    return {
        path: f"# Written by `bge-serve k8s render`: change the config and write it anew.\n{to_yaml(what)}" for path, what in made.items()
    }


def patch(base: Tree, wanted: Tree) -> list[Tree]:
    """From one RayService to another that differs in its config and in the groups of its models, as a JSON patch."""
    operations: list[Tree] = [{"op": "replace", "path": "/spec/serveConfigV2", "value": wanted["spec"]["serveConfigV2"]}]
    old, new = (one["spec"]["rayClusterConfig"]["workerGroupSpecs"] for one in (base, wanted))
    for i in range(1, max(len(old), len(new))):  # the first is the front, which no hardware changes
        if i >= len(new):
            operations.append({"op": "remove", "path": f"{GROUPS}/{len(new)}"})
        else:
            operations.append({"op": "replace" if i < len(old) else "add", "path": f"{GROUPS}/{i}", "value": new[i]})
    return operations


def _write(folder: Path, made: Mapping[str, str]) -> None:
    """Raises SettingsError where the folder is no copy of k8s/."""
    if missing := [path for path in made if not (folder / path).parent.is_dir()]:
        raise SettingsError(f"{folder} is no copy of k8s/: it has no folder for {missing[0]}")
    for path, text in made.items():
        (folder / path).write_text(text)
        print(folder / path)


if __name__ == "__main__":
    sys.exit(main())
