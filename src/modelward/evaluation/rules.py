"""Which attacks a protection has to face: rules from its mechanism, as in the survey (Xue et al., arXiv 2011.13564), and its own adaptive ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelward.core.card import Mechanism
from modelward.core.catalogue import catalogue, find
from modelward.core.errors import UsageError
from modelward.core.families import OwnershipMethod, TheftMethod
from modelward.core.nearest import nearest
from modelward.evaluation.farm import TheftSpec, battery

ALWAYS = ("ftll", "ftal", "rtll", "rtal", "prune", "quantise", "weight-noise", "cast")
_WEIGHTS = ("overwrite", "weight-shift", "permute", "rescale", "fold-bn")
_TRIGGER = ("overwrite", "fine-prune", "neural-cleanse", "gan-removal", "wrap-blur", "wrap-jpeg", "wrap-reconstruct", "extract-l", "distil")
_FINGERPRINT = ("extract-l", "extract-p", "distil", "ft-adversarial", "ft-smooth-labels", "transfer")
BY_MECHANISM: Mapping[Mechanism, tuple[str, ...]] = {
    Mechanism.PARAMETER: _WEIGHTS,
    Mechanism.PASSPORT_STRUCTURE: _WEIGHTS,
    Mechanism.BACKDOOR_TRIGGER: _TRIGGER,
    Mechanism.FINGERPRINT_INTRINSIC: _FINGERPRINT,
    Mechanism.FINGERPRINT_ADVERSARIAL: _FINGERPRINT,
}
GRIDS = {"smoke": "smoke", "quick": "standard", "full": "full"}


def names(method: OwnershipMethod) -> list[str]:
    """Return the thefts that ``method`` faces, each once: what all face, what its mechanism faces, and its own.

    Examples
    --------
    >>> names(find("zhang")())[:3], "gan-removal" in names(find("zhang")()), "gan-removal" in names(find("sac")())
    (['ftll', 'ftal', 'rtll'], True, False)
    """
    own = tuple(attack.method for attack in method.adaptive_attacks())
    chosen = dict.fromkeys((*ALWAYS, *BY_MECHANISM.get(method.card.taxonomy.mechanism, ()), *own))
    return [name for name in chosen if name in catalogue()]


def specs(method: OwnershipMethod, arch: str, profile: str) -> list[TheftSpec]:
    """Return the thefts that ``method`` faces on a victim of architecture ``arch``, with settings.

    Parameters
    ----------
    profile
        ``"smoke"``: each with hardly any training; ``"quick"``: each at one setting; ``"full"``: the grids of the battery.

    Raises
    ------
    UsageError
        for another profile.
    """
    if profile not in GRIDS:
        message = f"profile is {', '.join(GRIDS)}, not {profile!r}{nearest(profile, GRIDS)}"
        raise UsageError(message)
    known: dict[str, list[TheftSpec]] = {}
    for spec in battery(arch, profile=GRIDS[profile]):
        known.setdefault(spec.method, []).append(spec)
    own = {attack.method: attack for attack in method.adaptive_attacks()}
    made: list[TheftSpec] = []
    for name in names(method):
        grid = known.get(name, [])
        if profile == "quick":
            grid = grid[len(grid) // 2 :][:1]
        if name in own and (not grid or (own[name].settings and profile != "smoke")):
            grid = [_adaptive(name, dict(own[name].settings), own[name].labels, grid)]
        made += [_of_own_kind(spec, method) for spec in grid]
    return made


def _adaptive(name: str, settings: dict[str, Any], labels: str, grid: list[TheftSpec]) -> TheftSpec:
    """Return an adaptive attack as a theft, with the thief's architecture that the battery gives the same method."""
    arch = grid[0].arch if grid else None
    return TheftSpec(name, f"adaptive: {name}" if not grid else grid[0].group, settings, labels, arch)


def _of_own_kind(spec: TheftSpec, method: OwnershipMethod) -> TheftSpec:
    """Return an overwriting by the very scheme that is to be overwritten."""
    if spec.method != "overwrite" or ("method" in spec.fields and spec.fields["method"] == method.card.name):
        return spec
    return replace(spec, fields={**spec.fields, "method": method.card.name})


def needs_weights(spec: TheftSpec) -> bool:
    """Return whether a theft takes more than answers."""
    kind = find(spec.method)
    return issubclass(kind, TheftMethod) and kind.needs.value == "weights"
