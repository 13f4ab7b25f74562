"""The quickstart service as its users start it, with an index of its own in a folder that is given."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.serving.processes import Program
from bgeserve.client import Client
from graphs.ports import free_port

COMMAND = Path(sys.executable).parent / "bge-serve"
CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
EMBEDDER = "all-minilm"
INDEX = "quickstart"
"""Name of the folder of its index, inside the given one."""
START_S = 240
"""More than any start takes on a busy machine of two cores."""


@contextmanager
def quickstart(folder: Path, **embedder: object) -> Iterator[tuple[str, Program]]:
    """Its URL and its processes, ready and empty. embedder: settings of the embedder that are other than the quickstart's."""
    port = free_port()
    config = yaml.safe_load(CONFIG.read_text())
    config["http_options"]["port"] = port
    config["applications"][0]["args"]["embedders"][EMBEDDER] |= embedder
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [COMMAND, "up", folder / "config.yaml"]
    program = Program(command, folder / "log", {"BGE_SERVE_DATA": str(folder)})
    try:
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            client.wait_until_ready(START_S)
        yield url, program
    finally:
        program.stop()


def handle_environment(said: str) -> dict[str, str]:
    """As `bge-serve up` tells people to set it, for a program that wants handles. said: what it printed."""
    stated = re.search(r"Handles: (.*) python", said)
    assert stated is not None
    return os.environ | dict(part.split("=", 1) for part in stated[1].split())
