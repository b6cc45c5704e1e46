"""The secret that a protection leaves behind, in memory. `modelward.keys` writes and reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from torch import Tensor

from modelward.core.errors import FormatError

T = TypeVar("T", dict[str, Any], list[Any], str, bool, float)
REMEDY = "it was altered, or made by another version of modelward; enrol the model again"
KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    dict: ("table", (dict,)), list: ("list", (list, tuple)), str: ("text", (str,)), bool: ("yes or no", (bool,)), float: ("number", (int, float)),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Key:
    """What a verifier needs and a thief must not have.

    Parameters
    ----------
    method, variant
        who made it, and by which recipe.
    model_digest
        SHA-256 of the protected model's state (`core.guard.state_digest`).
    facts
        JSON values: hyper-parameters, calibration scores, provenance. Never a secret by itself.
    tensors
        arrays: probes, and what every candidate answers to them.
    """

    method: str
    variant: str
    model_digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Name the key without showing what is in it."""
        return f"Key(method={self.method!r}, variant={self.variant!r}, model={self.model_digest[:12]}, tensors=***)"

    def fact(self, kind: type[T], *path: str) -> T:
        """Return the fact at ``path``, which is a ``dict``, ``list``, ``str``, ``bool`` or, as ``float``, a number.

        A key is the owner's own file: its digests say that nobody else changed it, not that what is in it makes sense.

        Raises
        ------
        FormatError
            when the key lacks it, or holds something else there.

        Examples
        --------
        >>> key = Key("sac", "paper", "00", {"settings": {"count": 100}})
        >>> key.fact(float, "settings", "count")
        100
        >>> key.fact(list, "scores", "label")
        Traceback (most recent call last):
        modelward.core.errors.FormatError: this sac key lacks 'scores.label': it was altered, or made by another version of modelward; enrol the ...
        """
        found: Any = self.facts
        for step in path:
            if not isinstance(found, Mapping) or step not in found:
                message = f"this {self.method} key lacks {'.'.join(path)!r}: {REMEDY}"
                raise FormatError(message)
            found = found[step]
        word, known = KINDS[kind]
        if not isinstance(found, known) or isinstance(found, bool) > (kind is bool) or (kind is float and not _finite(found)):
            message = f"{'.'.join(path)!r} of this {self.method} key is no {word}: {REMEDY}"
            raise FormatError(message)
        return cast("T", found)

    def tensor(self, name: str) -> Tensor:
        """Return an array of the key; raises `FormatError` when it lacks it."""
        if name not in self.tensors:
            message = f"this {self.method} key lacks the array {name!r}: {REMEDY}"
            raise FormatError(message)
        return self.tensors[name]

    @property
    def calibrated(self) -> bool:
        """True when draws stand behind the key: siblings, other secrets, or orders of units."""
        return bool(self.facts.get("calibrated", False))


def _finite(number: Any) -> bool:
    """Return whether a number is finite, and within every float's reach if it is whole."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
