"""Which attacks a protection has to face: rules from its mechanism, as in the survey (Xue et al., arXiv 2011.13564), and its own adaptive ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelward.core.card import Mechanism
from modelward.core.catalogue import catalogue
from modelward.core.errors import UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.nearest import nearest
from modelward.core.ownership import Attack
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
    >>> from modelward.core.catalogue import find
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
    own: dict[str, list[Attack]] = {}
    for attack in method.adaptive_attacks():
        own.setdefault(attack.method, []).append(attack)
    made: list[TheftSpec] = []
    for name in names(method):
        grid = known.get(name, [])[:1] if name == "overwrite" else known.get(name, [])
        if profile == "quick":
            grid = grid[len(grid) // 2 :][:1]
        special = [attack for attack in own.get(name, ()) if attack.settings or not grid]
        if special and not (grid and profile == "smoke"):
            grid = [_adaptive(attack, grid) for attack in special]
        made += [_of_own_kind(spec, method) for spec in grid]
    return made


def _adaptive(attack: Attack, grid: list[TheftSpec]) -> TheftSpec:
    """Return an adaptive attack as a theft, with the thief's architecture that the battery gives the same method."""
    group, arch = (grid[0].group, grid[0].arch) if grid else (f"adaptive: {attack.method}", None)
    return TheftSpec(attack.method, group, dict(attack.settings), attack.labels, arch)


def _of_own_kind(spec: TheftSpec, method: OwnershipMethod) -> TheftSpec:
    """Return an overwriting by the very scheme that is to be overwritten; what is no mark is overwritten by the marks of others."""
    if spec.method != "overwrite" or not method.marks:
        return spec
    return replace(spec, fields={**spec.fields, "method": method.card.name})
