"""The secret that a protection leaves behind, in memory. `modelward.keys` writes and reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


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
        arrays: probes, reference outputs, null scores.
    """

    method: str
    variant: str
    model_digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Name the key without showing what is in it."""
        return f"Key(method={self.method!r}, variant={self.variant!r}, model={self.model_digest[:12]}, tensors=***)"

    @property
    def calibrated(self) -> bool:
        """True when null models stand behind the key."""
        return bool(self.facts.get("calibrated", False))
