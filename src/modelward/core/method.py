"""A method: a frozen dataclass whose fields are the hyper-parameters; its family's verb does the work."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Self

from modelward.core.canonical import digest_of
from modelward.core.card import Card
from modelward.core.errors import UsageError
from modelward.core.nearest import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """Base of every family. A concrete method sets ``card`` and writes its family's verb."""

    card: ClassVar[Card]
    family: ClassVar[str]

    @classmethod
    def configured(cls, settings: dict[str, Any]) -> Self:
        """Build the method from plain settings, as a plan or a shell command gives them.

        Raises
        ------
        UsageError
            for a setting that the method does not have; the nearest name is suggested.
        """
        known = [field.name for field in dataclasses.fields(cls) if field.init]
        for name in settings:
            if name not in known:
                message = f"{cls.card.name} has no setting {name!r}{nearest(name, known)}; it has {', '.join(known)}"
                raise UsageError(message)
        hints = _hints(typing.cast("Hashable", cls))
        for name, value in settings.items():
            if not _fits(value, hints[name]):
                wanted = str(getattr(hints[name], "__name__", hints[name])).replace("typing.", "")
                message = f"{cls.card.name}: {name} is {wanted}, not {value!r:.80}"
                raise UsageError(message)
        return cls(**settings)

    def _require(self, **rules: tuple[bool, str]) -> None:
        """Raise `UsageError` for the first setting whose rule (holds, words) does not hold."""
        for name, (holds, words) in rules.items():
            if not holds:
                message = f"{self.card.name}: {name} must be {words}, got {getattr(self, name)!r}"
                raise UsageError(message)

    def settings(self) -> dict[str, Any]:
        """Return the hyper-parameters by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    def fingerprint(self) -> str:
        """Return a digest of the method's name and hyper-parameters."""
        return digest_of([self.card.name, self.settings()])


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantMethod(Method):
    """A method that ships the paper's recipe and a repaired one; the repaired one is the default."""

    variant: str = "hardened"

    def __post_init__(self) -> None:
        if self.variant not in {"paper", "hardened"}:
            message = f"variant is 'paper' or 'hardened', not {self.variant!r}"
            raise UsageError(message)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """Return the types of a method's fields; a judge asks for them with every verdict."""
    return typing.get_type_hints(cls)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value is of a simple type; types that plain values do not show are left to the method.

    >>> _fits(1, float), _fits("1", float), _fits(None, float | None), _fits(True, int)
    (True, False, True, False)
    >>> _fits([1, 4], Sequence[int]), _fits([1, "4"], Sequence[int]), _fits(4, Sequence[int])
    (True, False, False)
    """
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in hint.__args__)
    if hint is types.NoneType:
        return value is None
    if typing.get_origin(hint) is Sequence:
        return isinstance(value, list | tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if hint in {int, float}:
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in {bool, str} else True
