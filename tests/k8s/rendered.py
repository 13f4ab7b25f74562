"""`python -m tests.k8s.rendered FOLDER`: every variant as one file of what the API server would get, for policy checkers.

Such a checker knows no RayService: the pods that KubeRay makes of its templates stand beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from tests.k8s.schemas import pods
from tests.k8s.variants import BESIDE, SERVICES, documents


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*SERVICES, *BESIDE):
        made = documents(name)
        made += [pod for document in made if document["kind"] == "RayService" for pod in pods(document)]
        path = folder / f"{name.replace(' ', '-')}.yaml"
        path.write_text(yaml.safe_dump_all(made, sort_keys=False))
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
