"""Siblings: what the owner could just as well have made, by the same code on the same images with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from modelward.core.errors import UsageError
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed

STARTS = ("none", "base", "start", "unsaid")
ORIGINS = ("code", "recipe", "models", "matched")
TUNING = 5
EXTRACTED = "extracted"  # a thief who had answers alone: his weights are his own


def sibling_seed(root: str, images: str, code: str | None, start: str | None, number: int, *, kind: str = "sibling") -> int:
    """Return the seed of a sibling: it follows from digests of model, images, code and start, so that nobody chooses it.

    >>> sibling_seed("aa", "bb", "cc", None, 1) == sibling_seed("aa", "bb", "cc", None, 2)
    False
    """
    return derive_seed("sibling", root, images, code, start, kind, number)


@dataclass(frozen=True)
class Failed:
    """A sibling that was to be made and could not be: its number, seed and the reason. It is never left out in silence."""

    number: int
    seed: int
    why: str


@dataclass(frozen=True, eq=False)
class TuningThief:
    """A theft of a tuning sibling: which of them, the stolen model, and what kind of theft it is."""

    of: int
    model: nn.Module
    kind: str


@dataclass(frozen=True, eq=False)
class Siblings:
    """Models by the owner's code on exactly the owner's images, with other seeds, and how they came to be.

    Parameters
    ----------
    models
        those that the owner is ranked among, in the order of their numbers.
    origin
        ``"code"``: by the owner's own function; ``"recipe"``: by the recipe that the owner's file carries; ``"models"``: the owner brought them, so
        nobody knows whether some were left out; ``"matched"``: by a recipe fitted to the owner's accuracy, which is an approximation and decides
        nothing.
    start
        the owner's word on where training began: at a public ``"base"``, at initial weights that others may have (``"start"``), or at weights
        drawn anew each time (``"none"``). ``"unsaid"`` decides nothing.
    start_digest, code
        SHA-256 of the weights that every sibling began with, and of the code that trained them.
    images
        the exact training set.
    seeds
        of ``models``, one each; derived, never chosen.
    failed
        those that could not be made.
    tuning, thieves
        further siblings that are never ranked, and thefts of them: they tell how many thieves would be missed.
    smoke
        made in seconds to try the machinery: such a key decides nothing.
    root
        what seeds are derived from where the siblings were planned before the model was trained; ``None``: the model's digest.
    """

    models: tuple[nn.Module, ...] = ()
    origin: str = "models"
    start: str = "unsaid"
    start_digest: str | None = None
    code: str | None = None
    images: ImageSet | None = None
    seeds: tuple[int, ...] = ()
    failed: tuple[Failed, ...] = ()
    tuning: tuple[nn.Module, ...] = ()
    thieves: tuple[TuningThief, ...] = field(default=())
    smoke: bool = False
    root: str | None = None

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS or self.start not in STARTS:
            message = f"origin is {', '.join(ORIGINS)} and start {', '.join(STARTS)}; got {self.origin!r} and {self.start!r}"
            raise UsageError(message)
        if self.seeds and len(self.seeds) != len(self.models):
            message = f"{len(self.models)} siblings need as many seeds, got {len(self.seeds)}"
            raise UsageError(message)
        if any(not 0 <= thief.of < len(self.tuning) for thief in self.thieves):
            message = f"a thief is of one of the {len(self.tuning)} tuning siblings"
            raise UsageError(message)

    def __len__(self) -> int:
        return len(self.models)

    @classmethod
    def of(cls, given: Siblings | Sequence[nn.Module]) -> Siblings:
        """Return siblings as they are, and plain models as such that the owner brought."""
        return given if isinstance(given, Siblings) else cls(models=tuple(given))


def chosen(draws: Mapping[str, Any]) -> bool:
    """Return whether nothing shows that no sibling was left out: the owner brought them, or their seeds do not follow from his model.

    Parameters
    ----------
    draws
        what a key says of its draws.
    """
    seeds = [
        member.get("seed")
        for place, member in enumerate(draws.get("members", []))
        if place != draws.get("own") and isinstance(member, dict)
    ]
    return (
        draws.get("origin") not in {"code", "recipe"} or draws.get("root") is not None or any(not isinstance(seed, int) for seed in seeds)
    )
