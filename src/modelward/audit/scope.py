"""What an audit tests: the attacks with their budgets, everyday changes, thefts and fingerprints; by profile, or as a plan file says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.families import EvasionMethod, OwnershipMethod, TheftMethod
from modelward.core.nearest import nearest
from modelward.core.suspect import Access
from modelward.evaluation.farm import TheftSpec, battery, thefts
from modelward.evaluation.work_corruption import LEVELS
from modelward.evaluation.zoo import OTHERS
from modelward.models.nets import describe

ATTACKED = {"smoke": 64, "quick": 512, "full": 2048}
COPIES = {"smoke": 1, "quick": 3, "full": 6}
EPS = {"linf": tuple(k / 255 for k in (1, 2, 4, 8, 16, 32, 128)), "l2": (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0)}
PASSES = {"pgd": 20.0, "fgsm": 1.0, "noise": 0.5}


@dataclass(frozen=True)
class Attack:
    """An evasion attack over a list of radii."""

    method: str
    norm: str
    eps: tuple[float, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> float:
        """Forward and backward passes an image and radius."""
        return PASSES.get(self.method, float(getattr(find(self.method).configured(self.settings), "steps", 20)))


class Fingerprint(NamedTuple):
    """An ownership method and the access a suspect grants it."""

    method: str
    settings: dict[str, Any]
    access: str = "weights"


@dataclass(frozen=True)
class Scope:
    """What is tested.

    Parameters
    ----------
    images
        how many test images are attacked.
    attacks, corruptions, theft, fingerprints
        what is tried; an empty tuple leaves that part out.
    """

    images: int
    attacks: tuple[Attack, ...]
    corruptions: tuple[str, ...]
    theft: tuple[TheftSpec, ...]
    fingerprints: tuple[Fingerprint, ...]

    def curves(self) -> dict[str, Attack]:
        """Return the attacks by a name of their own: ``"pgd linf"``, ``"pgd linf #2"``."""
        named: dict[str, Attack] = {}
        for attack in self.attacks:
            name = f"{attack.method} {attack.norm}"
            copies = sum(known == name or known.startswith(f"{name} #") for known in named)
            named[f"{name} #{copies + 1}" if copies else name] = attack
        return named

    def checked(self) -> Scope:
        """Return the scope, or raise `UsageError` for a method, setting, norm or kind that there is not: before hours of work."""
        for attack in self.attacks:
            require_family(attack.method, EvasionMethod, "evasion").configured(
                {**attack.settings, "norm": attack.norm, "eps": attack.eps[0]}
            )
        for spec in self.theft:
            _check_theft(spec)
        for fingerprint in self.fingerprints:
            require_family(fingerprint.method, OwnershipMethod, "ownership").configured(fingerprint.settings)
            require_one_of(fingerprint.access, [*Access], f"access of {fingerprint.method}")
        for kind in self.corruptions:
            require_one_of(kind, LEVELS, "a corruption")
        return self


@dataclass(frozen=True)
class Choice:
    """The parts of a scope that somebody chose; ``None`` leaves a part to the profile."""

    images: int | None = None
    attacks: tuple[Attack, ...] | None = None
    corruptions: tuple[str, ...] | None = None
    theft: tuple[TheftSpec, ...] | None = None
    fingerprints: tuple[Fingerprint, ...] | None = None

    def over(self, usual: Scope) -> Scope:
        """Return ``usual`` with what was chosen."""
        return replace(usual, **{name: value for name, value in vars(self).items() if value is not None})


def _check_theft(spec: TheftSpec) -> None:
    """Raise `UsageError` for a theft that cannot be run."""
    method = require_family(spec.method, TheftMethod, "theft")
    method.configured(spec.fields)
    require_one_of(spec.labels, method.labels, f"labels of {spec.method}")
    if spec.arch is not None:
        describe(spec.arch)


def require_family(name: str, family: type[Any], word: str) -> Any:
    """Return the method class called ``name``; raises `UsageError` when it is of another family than ``word``."""
    found = find(name)
    if not issubclass(found, family):
        message = f"{name} is of the family {found.family}, not {word}; `modelward methods` lists them"
        raise UsageError(message)
    return found


def require_one_of(value: str, known: Sequence[str] | dict[str, Any], what: str) -> None:
    """Raise `UsageError` with the nearest name unless ``value`` is one of ``known``."""
    names = [str(name) for name in known]
    if value not in names:
        message = f"{what} is {', '.join(names)}, not {value!r}{nearest(value, names)}"
        raise UsageError(message)


def usual_scope(profile: str, arch: str, thieves: str | None = None) -> Scope:
    """Return what a profile tests on a model of architecture ``arch``; ``thieves`` names a battery of thefts instead of the profile's.

    Examples
    --------
    >>> len(usual_scope("smoke", "lenet5").theft)
    12
    >>> usual_scope("smoke", "lenet5", "standard").theft == tuple(battery("lenet5", profile="standard"))
    True
    """
    others = [name for name in OTHERS if name != arch.partition(":")[0]][:1]
    return Scope(
        images=ATTACKED[profile],
        attacks=tuple(Attack(method, norm, eps) for norm, eps in EPS.items() for method in PASSES),
        corruptions=tuple(LEVELS),
        theft=tuple(battery(arch, profile=thieves) if thieves else thefts(arch, COPIES[profile], others)),
        fingerprints=(Fingerprint("sac-jc", {}), Fingerprint("sac-jc", {}, "label"), Fingerprint("unit-order", {})),
    )
