"""All methods by name: those of this package, found by walking the family folders, and those of entry points `modelward.methods`."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType

from modelward.core.errors import UsageError
from modelward.core.method import Method
from modelward.core.nearest import nearest

FOLDERS = ("modelward.attacks.evasion", "modelward.attacks.theft", "modelward.ownership", "modelward.locks")


def methods_in(module: ModuleType) -> Iterator[type[Method]]:
    """Yield the concrete methods that ``module`` itself defines."""
    for _, value in inspect.getmembers(module, inspect.isclass):
        if issubclass(value, Method) and value.__module__ == module.__name__ and not inspect.isabstract(value) and "card" in vars(value):
            yield value


def _own() -> Iterator[type[Method]]:
    """Yield the methods of every module in the family folders."""
    for folder in FOLDERS:
        package = importlib.import_module(folder)
        for info in pkgutil.iter_modules(package.__path__):
            yield from methods_in(importlib.import_module(f"{folder}.{info.name}"))


def _foreign() -> Iterator[type[Method]]:
    """Yield the methods that installed packages offer; a broken one is named in a warning and skipped."""
    for point in entry_points(group="modelward.methods"):
        try:
            loaded = point.load()
        except Exception as error:  # noqa: BLE001  # a stranger's import may raise anything
            warnings.warn(f"the method {point.name!r} of {point.value!r} cannot be imported: {error}", stacklevel=2)
            continue
        if inspect.isclass(loaded) and issubclass(loaded, Method):
            yield loaded
        elif inspect.ismodule(loaded):
            yield from methods_in(loaded)


@functools.cache
def catalogue() -> dict[str, type[Method]]:
    """Return every method class by its card's name, sorted."""
    found: dict[str, type[Method]] = {}
    for method in (*_own(), *_foreign()):
        if found.get(method.card.name, method) is not method:
            message = f"two methods are called {method.card.name!r}: {found[method.card.name].__module__} and {method.__module__}"
            raise UsageError(message)
        found[method.card.name] = method
    return dict(sorted(found.items()))


def find(name: str) -> type[Method]:
    """Return the method class called ``name``; raises `UsageError` with the nearest name."""
    known = catalogue()
    if name not in known:
        message = f"there is no method {name!r}{nearest(name, known)}; `modelward methods` lists them"
        raise UsageError(message)
    return known[name]
