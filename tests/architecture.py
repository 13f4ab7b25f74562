"""What a checkout's modules import, read with `ast`, and the rules that it breaks. Knows nothing of pytest."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("bgeserve", "deployments", "graphs")
BASE_ENTRY_POINTS = ("bgeserve", "bgeserve.client", "bgeserve.sources", "bgeserve.cli")
"""What the base install offers: everything they import at once must do with BASE_LIBRARIES."""
BASE_LIBRARIES = frozenset({"numpy", "httpx", "rich"})
DYNAMIC_IMPORTS = ("import_module", "__import__")

REPLICAS = ("embedder", "reranker", "retriever", "ingress")

FORBIDDEN = [
    ("bgeserve", ("ray", "deployments", "graphs")),
    ("bgeserve.models", ("bgeserve.stores", "bgeserve.api")),
    ("bgeserve.stores", ("bgeserve.models", "bgeserve.api")),
    ("bgeserve.api", ("bgeserve.models", "bgeserve.stores")),
    ("deployments", ("graphs",)),
    *((f"deployments.{one}", tuple(f"deployments.{other}" for other in REPLICAS if other != one)) for one in REPLICAS),
]
"""(package, what nothing in it imports, wherever the import stands)."""


@dataclass(frozen=True, slots=True)
class Import:
    importer: str
    imported: str
    line: int
    at_import: bool
    """Whether importing the importer runs it: not so inside a function, or for type checking alone."""


def modules(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def violations(root: Path) -> list[str]:
    """One line per broken rule, empty when the checkout is as it should be."""
    imports: dict[str, list[Import]] = {module: [] for module in modules(root)}
    for one in all_imports(root):
        imports[one.importer].append(one)
    return [*_crossed_layers(imports), *_heavy_base_imports(imports)]


def all_imports(root: Path) -> list[Import]:
    known = modules(root)
    return [one for module, path in known.items() for one in _imports(module, path, set(known))]


def _crossed_layers(imports: dict[str, list[Import]]) -> Iterator[str]:
    for found in (each for module in imports.values() for each in module):
        for package, forbidden in FORBIDDEN:
            if _within(found.importer, package) and any(_within(found.imported, name) for name in forbidden):
                yield f"{found.importer}:{found.line} imports {found.imported}, which nothing in {package} does"


def _heavy_base_imports(imports: dict[str, list[Import]]) -> Iterator[str]:
    waiting = [module for module in imports if any(module == entry or module.startswith("bgeserve.cli.") for entry in BASE_ENTRY_POINTS)]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for found in imports[module]:
            library = found.imported.split(".")[0]
            if not found.at_import or library in sys.stdlib_module_names | BASE_LIBRARIES:
                continue
            if found.imported in imports:
                waiting.append(found.imported)
            else:
                yield f"{module}:{found.line} imports {found.imported}, which the base install lacks"


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _imports(module: str, path: Path, known: set[str]) -> Iterator[Import]:
    tree = ast.parse(path.read_bytes())
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    deferred = _deferred(tree)
    for node in ast.walk(tree):
        for name in _names(node, package, known):
            yield Import(module, name, getattr(node, "lineno", 0), id(node) not in deferred)


def _deferred(tree: ast.Module) -> set[int]:
    """Nodes inside functions and under `if TYPE_CHECKING`."""
    later: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            later.append(node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            later.extend(node.body)
    return {id(inner) for node in later for inner in ast.walk(node)}


def _names(node: ast.AST, package: str, known: set[str]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=source, names=names, level=level):
            parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            origin = ".".join([*parents, *([source] if source else [])])
            yield origin
            yield from (full for alias in names if (full := f"{origin}.{alias.name}") in known)
        case ast.Call(func=called, args=[ast.Constant(value=str(name)), *_]) if ast.unparse(called).endswith(DYNAMIC_IMPORTS):
            yield name
        case _:
            pass
