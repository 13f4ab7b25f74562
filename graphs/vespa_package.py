"""`bge-serve vespa-package CONFIG...`: the application package of a Vespa that is to keep what these configs index.

Knows which vectors a config's index has. Does not know what is in a package (`bgeserve.stores.vespa_package`), and asks no server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bgeserve.catalog import find_embedder
from bgeserve.cli.vespa_package import add_arguments
from bgeserve.errors import BgeServeError, SettingsError
from bgeserve.models.checkpoint import Checkpoint
from bgeserve.models.hub import locate
from bgeserve.settings import EmbedderSettings, SearchGraphSettings
from graphs.check import parse, read

SEARCH_GRAPH = "graphs.search:build"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bge-serve vespa-package", description="Write the application package that a Vespa store needs.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        for schema in write(args.configs, args.to):
            print(schema)
    except BgeServeError as error:
        print(f"bge-serve: {error.message}", file=sys.stderr)
        return 1
    return 0


def write(configs: Sequence[Path], folder: Path) -> list[str]:
    """The document types of the package that it makes in `folder`. Raises SettingsError or CheckpointError."""
    if find_spec("vespa") is None:
        raise SettingsError("this command needs pyvespa: pip install 'bge-serve[vespa]'")
    from bgeserve.stores.vespa_package import Shape, application_package

    shapes: list[Shape] = []
    for settings in (found for config in configs for found in search_graphs(config)):
        legs = settings.search.legs
        for dimensions in map(_dimensions, settings.embedders.values()):
            shapes.append(Shape(dimensions, "sparse" in legs, dimensions if "multi_vector" in legs else None))
    package = application_package(shapes)
    package.to_files(folder)
    return [schema.name for schema in package.schemas]


def search_graphs(config: Path) -> list[SearchGraphSettings]:
    parsed, _ = parse(read(config))
    found = [SearchGraphSettings.model_validate(app.args) for app in parsed.applications if app.import_path == SEARCH_GRAPH]
    if not found:
        raise SettingsError(f"{config} has no application of {SEARCH_GRAPH}: only that keeps an index")
    return found


def _dimensions(embedder: EmbedderSettings) -> int:
    """Of its dense vectors, and of each of its token vectors."""
    row = find_embedder(embedder.like or embedder.model)
    return row.dimensions if row else Checkpoint.read(locate(embedder.model, embedder.revision)).hidden_size


if __name__ == "__main__":
    sys.exit(main())
