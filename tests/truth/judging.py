"""Every owner's keys against every suspect, through `protect` and `judge`; a part is written when it is done, and read when it was done before."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.foreign.suspects import Suspected
from tests.truth.worlds import Scene, base_of
from torch import nn

from modelward.core.commitment import Commitment
from modelward.core.errors import InputError, ModelwardError
from modelward.core.families import OwnershipMethod
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.siblings import EXTRACTED, Siblings, TuningThief
from modelward.core.suspect import Access, Suspect
from modelward.evaluation.sibling_starts import SAME_START
from modelward.marking.unit_orders import same_start_p
from modelward.ownership import CAE, SAC, SACJC, InFIP, IPGuard, UnitMatch, UnitOrder, WeightDistance

BEGINNERS = 6
ACCEPTED = Commitment("00" * 32, "rfc3161", "2026-01-01T00:00:00Z", "an authority that the checker trusts", seen="2026-06-01")
FINGERPRINTS: dict[str, OwnershipMethod] = {
    "sac-jc": SACJC(), "sac": SAC(), "ipguard": IPGuard(), "cae": CAE(surrogates=3), "infip": InFIP(), "unit-order": UnitOrder(),
    "unit-match": UnitMatch(), "weight-distance": WeightDistance(),
}  # fmt: skip


def levels(method: OwnershipMethod) -> tuple[Access, ...]:
    """Return the ways to ask a suspect that make a difference to a method."""
    if method.needs is Access.WEIGHTS:
        return (Access.WEIGHTS,)
    return (Access.LABEL,) if isinstance(method, IPGuard | CAE) else (Access.PROBABILITIES, Access.LABEL)


@dataclass(frozen=True, eq=False)
class Family:
    """The models of a scene that owners share."""

    siblings: tuple[nn.Module, ...]
    tuning: tuple[nn.Module, ...]
    thieves: tuple[TuningThief, ...]

    @classmethod
    def of(cls, scene: Scene, folder: Path, *, tuned: bool = True) -> Family:
        """Read a scene's family."""
        stolen = scene.tuning_thieves(folder) if tuned else []
        return cls(
            tuple(one.model(folder) for one in scene.siblings()),
            tuple(one.model(folder) for one in scene.tuning()),
            tuple(TuningThief(n, one.model(folder), one.kind if one.had == "weights" else EXTRACTED) for n, one in stolen),
        )

    def given(self, scene: Scene, *, thieves: bool = True) -> Siblings:
        """Return what `protect` is given."""
        return Siblings(
            models=self.siblings, origin="models", start=scene.start, images=scene.world.images, tuning=self.tuning,
            thieves=self.thieves if thieves else (),
        )  # fmt: skip


def row(method: OwnershipMethod, key: Key, model: nn.Module, access: Access, commitment: Commitment = ACCEPTED) -> dict[str, Any]:
    """Return one verdict; a suspect that cannot be read is said to be so."""
    try:
        found = method.verify(Suspect.of_model(model, access=access), key, commitment=commitment)
    except InputError as error:
        return {"decision": "unreadable", "why": str(error)[:120]}
    told: dict[str, Any] = {"decision": found.decision.value, "p": None if found.p_value is None else round(found.p_value, 6)}
    return told | ({} if found.decision.value != "undecided" else {"why": found.caveats[0][:120]})


def verdicts(method: OwnershipMethod, key: Key, suspects: Iterable[tuple[Suspected, nn.Module]]) -> list[dict[str, Any]]:
    """Return a row a suspect and way of asking."""
    return [
        {"kind": one.kind, "name": one.name, "had": one.had, "access": access.value, **row(method, key, model, access)}
        for one, model in suspects for access in levels(method)
    ]  # fmt: skip


def named(scene: Scene, name: str, folder: Path) -> dict[str, Any]:
    """Return what one method says of all strangers and thieves of the owner that has a name."""
    method, family = FINGERPRINTS[name], Family.of(scene, folder)
    began = time.perf_counter()
    _, key = method.protect(scene.world.owner.model(folder), scene.pool, siblings=family.given(scene), rng=generator(11))
    spent = time.perf_counter() - began
    every = [(one, one.model(folder)) for one in (*scene.strangers(), *scene.thieves(folder))]
    return {"method": name, "start": scene.start, "protect_seconds": round(spent, 1), "thieves_tried": key.facts["draws"].get("thieves"),
            "rows": verdicts(method, key, every)}  # fmt: skip


TOGETHER = ("sac-jc", "sac", "ipguard", "unit-order", "unit-match")
"""Keys that one commitment names, the one that decides alone first."""


def together(scene: Scene, folder: Path) -> dict[str, Any]:
    """Return what an owner with all keys says: the first decides, another one where its p times their number is small enough."""
    family, model = Family.of(scene, folder), scene.world.owner.model(folder)
    keys = [
        (FINGERPRINTS[name], FINGERPRINTS[name].protect(model, scene.pool, siblings=family.given(scene), rng=generator(11))[1])
        for name in TOGETHER
    ]
    rows = []
    for one in (*scene.strangers(), *scene.thieves(folder)):
        suspect = one.model(folder)
        told = [
            row(method, key, suspect, levels(method)[0], replace(ACCEPTED, place=place, count=len(keys)))
            for place, (method, key) in enumerate(keys)
        ]
        claimed = [name for name, found in zip(TOGETHER, told, strict=True) if found["decision"] in {"stolen", "related"}]
        decision = "stolen" if claimed else told[0]["decision"]
        rows.append({"kind": one.kind, "name": one.name, "had": one.had, "access": "weights", "decision": decision, "by": claimed})
    return {"method": f"all {len(TOGETHER)} keys", "rows": rows}


def starts(scene: Scene, innocent: Scene, folder: Path) -> dict[str, Any]:
    """Return whether an owner who began at a public network and says ``--base none`` is refused, and one who tells the truth is not."""
    base, found = base_of(folder), []
    for told, asked in (("began at the public network", scene), ("drew the initial weights", innocent)):
        for one in asked.siblings()[:BEGINNERS]:
            p = same_start_p(one.model(folder), base, rng=generator(0))
            found.append({"kind": told, "name": one.name, "p": p, "refused": p <= SAME_START})
    return {"rows": found}


def rate(scene: Scene, name: str, folder: Path) -> dict[str, Any]:
    """Return the p-values of all owners of a recipe for the strangers that share nothing with any of them."""
    from tests.truth.worlds import SHARED_START

    method, family = FINGERPRINTS[name], Family.of(scene, folder, tuned=False)
    every = [(one, one.model(folder)) for one in scene.strangers() if one.kind not in SHARED_START]
    owners = []
    for number in range(scene.owners):
        _, key = method.protect(
            scene.owner(number).model(folder), scene.pool, siblings=family.given(scene, thieves=False), rng=generator(number)
        )
        owners.append(_short(verdicts(method, key, every)))
    return {"method": name, "suspects": [one.name for one, _ in every], "kinds": [one.kind for one, _ in every], "owners": owners}


def _short(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the p-values by way of asking, and words where nothing was decided for another reason."""
    found: dict[str, list[Any]] = {}
    for one in rows:
        claimed = one["decision"] in {"stolen", "related"}
        said = one["decision"] if one.get("p") is None else one["p"]
        found.setdefault(one["access"], []).append([said, claimed])
    return found


def guard(scene: Scene, folder: Path) -> dict[str, Any]:
    """Return how many owners of another recipe, and of the siblings' own, the guard refuses."""
    from modelward.training import accuracy

    method, family = SACJC(count=100), Family.of(scene, folder, tuned=False)
    usual = sum(accuracy(one, scene.world.images) for one in family.siblings) / len(family.siblings)
    found = []
    own = [scene.owner(number) for number in range(scene.owners)]
    for one in (*scene.misfits(), *own):
        model = one.model(folder)
        gap = accuracy(model, scene.world.images) - usual
        try:
            _, key = method.protect(model, scene.pool, siblings=family.given(scene, thieves=False), rng=generator(3))
            verdict = method.verify(family.tuning[0], key)
            said = verdict.caveats[0] if verdict.caveats[0].startswith("Uncalibrated") else ""
        except ModelwardError as error:
            said = str(error)
        found.append({"name": one.name, "kind": one.kind, "gap": round(gap, 4), "refused": bool(said), "why": said[:160]})
    return {"usual": usual, "rows": found}


def kept(folder: Path, part: str, make: Any) -> dict[str, Any]:
    """Return the rows of a part, from its file when it was done before."""
    place = folder / "rows" / f"{part.replace(' ', '-')}.json"
    if place.exists():
        done: dict[str, Any] = json.loads(place.read_text())
        return done
    began = time.perf_counter()
    found: Mapping[str, Any] = make()
    told = {**found, "seconds": round(time.perf_counter() - began, 1)}
    place.parent.mkdir(parents=True, exist_ok=True)
    part_file = place.with_suffix(".part")
    part_file.write_text(json.dumps(told, sort_keys=True))
    part_file.rename(place)
    print(f"{part}: {told['seconds']} s", flush=True)
    return told
