"""Digest of the code that a result depends on: a module and, transitively, what it imports from this package."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from modelward.core.canonical import digest_of
from modelward.core.errors import UsageError


@functools.cache
def _source(module: str) -> Path:
    """Return the file of ``module`` without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # its package is absent; it is the script itself
        spec = None
    if spec is None or spec.origin is None:
        message = f"module {module!r} cannot be found"
        raise UsageError(message)
    return Path(spec.origin)


def _imports(tree: ast.Module, home: str) -> Iterator[str]:
    """Yield the modules that ``tree``, a module of the package ``home``, imports anywhere from its own top-level package."""
    package = home.partition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == package)
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), home) if node.level else node.module or ""
            if origin.split(".")[0] == package:
                yield origin
                yield from filter(_is_module, (f"{origin}.{alias.name}" for alias in node.names))


@functools.cache
def _is_module(name: str) -> bool:
    """Return whether ``name`` is a module (and not a class or function of one)."""
    parent = _source(name.rpartition(".")[0])
    if parent.name != "__init__.py":
        return False
    leaf = parent.parent / name.rpartition(".")[2]
    return leaf.with_suffix(".py").is_file() or (leaf / "__init__.py").is_file()


@functools.cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """Return (digest of the syntax tree without docstrings, imported modules): comments and prose do not count."""
    source = _source(module)
    tree = ast.parse(source.read_bytes())
    home = module if source.name == "__init__.py" or "." not in module else module.rpartition(".")[0]
    found = tuple(sorted(set(_imports(tree, home))))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0].value.value = ""
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), found


@functools.cache
def code_digest(*modules: str) -> str:
    """Return one digest over ``modules`` and everything they import from their own package."""
    todo, seen = list(modules), dict[str, str]()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen[module], found = _read(module)
            todo.extend(found)
    return digest_of(seen)
