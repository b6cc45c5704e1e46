"""What a survey measures: a method in one of its variants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from modelward.core.catalogue import find
from modelward.core.method import Method


@dataclass(frozen=True)
class Candidate:
    """One row of a survey: a method, its variant and its settings.

    Examples
    --------
    >>> row = Candidate("advparams", "paper", {"layers": 3})
    >>> row.name, row.configured().layers
    ('advparams, paper', 3)
    """

    method: str
    variant: str = "hardened"
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.method}, {self.variant}"

    def configured(self) -> Method:
        """Return the method with its settings."""
        return find(self.method).configured({**self.fields, "variant": self.variant})
