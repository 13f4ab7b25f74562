"""The rules that keep the code in the shape of its layout: who imports whom, how long things get, and what they are called."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import PACKAGES, all_imports, modules, violations

ROOT = Path(__file__).parent.parent
MAX_FILE_LINES = 275
MAX_FUNCTION_LINES = 44
LONGER: frozenset[str] = frozenset()
"""Modules and `module:function`s that are allowed to be longer. Meant to stay empty."""
FETCHING = ("httpx", "requests", "aiohttp", "urllib.request", "urllib3", "http.client", "socket", "ftplib", "fsspec", "huggingface_hub")
JUNK_DRAWERS = frozenset({"common", "helper", "helpers", "misc", "shared", "stuff", "tools", "util", "utils"})


def test_nothing_imports_what_its_layer_must_not() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("module", "line", "named"),
    [
        ("bgeserve/search.py", "import ray", "bgeserve.search:1 imports ray"),
        ("bgeserve/models/__init__.py", "from ray import serve", "bgeserve.models:1 imports ray"),
        ("bgeserve/search.py", "def late():\n    from graphs import search", "bgeserve.search:2 imports graphs"),
        ("bgeserve/search.py", "import importlib; importlib.import_module('ray.serve')", "bgeserve.search:1 imports ray.serve"),
        ("bgeserve/models/new.py", "from bgeserve.stores import qdrant", "bgeserve.models.new:1 imports bgeserve.stores"),
        ("bgeserve/stores/new.py", "from .. import api", "bgeserve.stores.new:1 imports bgeserve.api"),
        ("bgeserve/api/new.py", "from ..models import loading", "bgeserve.api.new:1 imports bgeserve.models"),
        ("deployments/embedder.py", "import deployments.ingress", "deployments.embedder:1 imports deployments.ingress"),
        ("deployments/new.py", "import graphs.search", "deployments.new:1 imports graphs.search"),
        ("bgeserve/types.py", "import pydantic", "bgeserve.types:1 imports pydantic, which the base install lacks"),
        ("bgeserve/cli/new.py", "from bgeserve.settings import Strict", "imports pydantic, which the base install lacks"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, module: str, line: str, named: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / module
    path.write_text(f"{line}\n{path.read_text() if path.exists() else ''}")
    assert [found for found in violations(tmp_path) if named in found]


def test_what_is_deferred_to_a_command_or_to_type_checking_costs_the_base_install_nothing(tmp_path: Path) -> None:
    (tmp_path / "bgeserve" / "cli").mkdir(parents=True)
    (tmp_path / "bgeserve" / "cli" / "check.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef run():\n    import pydantic\n"
    )
    assert violations(tmp_path) == []


def test_the_base_install_needs_neither_torch_nor_ray_nor_the_server() -> None:
    program = """
import sys
blocked = {"torch", "ray", "pydantic", "starlette", "transformers", "tokenizers", "orjson", "xxhash", "yaml", "qdrant_edge"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not in the base install", name=name)
sys.meta_path.insert(0, Refuse())
import bgeserve, bgeserve.client, bgeserve.sources
from bgeserve.cli import main
main(["--help"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: bge-serve" in done.stdout


def test_the_packed_path_never_imports_flagembedding() -> None:
    importers = {one.importer for one in all_imports(ROOT) if one.imported.split(".")[0] == "FlagEmbedding"}
    assert importers == {"bgeserve.models.flagembedding"}
    assert {one.importer for one in all_imports(ROOT) if one.imported == "bgeserve.models.flagembedding" and one.at_import} == set()


def test_nothing_that_an_http_request_reaches_can_fetch_a_url() -> None:
    """A URL in a request is a text like any other. The models' own downloads are at start, in other processes."""
    imports = list(all_imports(ROOT))
    # The package itself stands for nothing but the client, which it shows to those who import it.
    reached, waiting = {"bgeserve"}, ["bgeserve.api.app"]
    while waiting:
        reached.add(module := waiting.pop())
        waiting += [
            one.imported for one in imports if one.importer == module and one.imported not in reached and one.imported in modules(ROOT)
        ]
    assert {"bgeserve.api.native", "bgeserve.protocols", "bgeserve.filters"} <= reached
    fetching = {one for one in imports if one.importer in reached and one.imported.startswith(FETCHING)}
    assert {f"{one.importer}:{one.line} imports {one.imported}" for one in fetching} == set()


def test_graph_builders_keep_their_annotations_real() -> None:
    """Ray hands `build` a raw dict instead of its settings when the annotation is a string."""
    for module, path in modules(ROOT).items():
        tree = ast.parse(path.read_bytes())
        builds = any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body)
        deferred = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        assert not (module.startswith("graphs.") and builds and deferred), f"{module} must not import annotations from __future__"


def test_files_and_functions_stay_short() -> None:
    long: dict[str, int] = {}
    for module, path in modules(ROOT).items():
        if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES:
            long[module] = lines
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (lines := _code_lines(node)) > MAX_FUNCTION_LINES:
                long[f"{module}:{node.name}"] = lines
    assert {name: lines for name, lines in long.items() if name not in LONGER} == {}


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From the `def` to the end, its docstring not counted: explaining is not what makes a function long."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_no_module_is_a_junk_drawer() -> None:
    assert [module for module in modules(ROOT) if module.rpartition(".")[2] in JUNK_DRAWERS] == []
