"""ActiveGuard: who comes in by which images, what strangers get, and what thieves of the network leave of windows, classes and bits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from modelward.core.errors import ModelwardError, UsageError
from modelward.core.rng import derive_seed
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.candidate import Candidate
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.farm import TheftSpec, applies
from modelward.evaluation.locks import Attempts, attempts, lock_cell
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import null_cells
from modelward.reproduce.activeguard_tables import tables
from modelward.reproduce.fingerprint_tables import SMOKE, Rows
from modelward.reproduce.scenes import Ground, Plan, ground

USES = tuple(
    f"modelward.locks.{name}"
    for name in ("activeguard", "control_layer", "credentials", "enrolment", "gate", "probing", "sealing", "watermark", "windows")
)
Theft = tuple[str, dict[str, Any], str]
TUNING: tuple[Theft, ...] = tuple(
    ("ftal", {"images": images, "epochs": epochs, "lr": lr, "optimizer": "adam"}, "true")
    for images in (400,) for epochs, lr in ((1, 1e-4), (3, 1e-4), (1, 1e-3), (3, 1e-3), (10, 1e-3))
)  # fmt: skip
THEFTS: tuple[Theft, ...] = (
    *TUNING, ("ftal", {}, "true"), *(("prune", {"sparsity": share}, "none") for share in (0.1, 0.3, 0.5, 0.7, 0.9)),
    *(("quantise", {"bits": bits}, "none") for bits in (8, 4)), ("distil", {}, "stolen"),
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How large a profile is: data, images a split, architectures, seeds, users, forged credentials of each kind, null models, thefts."""

    data: str
    limit: int | None
    archs: tuple[str, ...]
    seeds: int
    users: int
    tries: int
    nulls: int
    thefts: tuple[Theft, ...] = THEFTS
    fields: dict[str, Any] = field(default_factory=dict)


SMALL = {"nulls": 32, "steps": 200, "seeds": 32, "bits": 16, "epochs": 1, "share": 0.001, "images": 32, "users": 6}
SCALES = {
    "smoke": Scale("fashion-mini", 400, ("mlp:width=32",), 1, 6, 60, 2, (TUNING[0], THEFTS[6]), SMALL),
    "quick": Scale("fashion-mini", None, ("lenet5",), 3, 100, 10_000, 28),
    "full": Scale("cifar10-jpeg", 10_000, ("lenet5", "resnet8"), 3, 100, 10_000, 28),
}

OF_LOCKS = ("recovered", "latency", "lock_seconds", "issue_seconds")  # the rest is measured by this recipe's own work


@dataclass(frozen=True, eq=False)
class Scene(Ground):
    """One architecture and seed at the scale of a profile, and independent models of its kind (in the first scene only)."""

    scale: Scale
    nulls: list[Cell]

    def cell(self, work: str, variant: str, **settings: Any) -> Cell:
        """Return a cell of this recipe's work for one variant; all works of a scene and variant guard the same network."""
        inputs: dict[str, str | Cell] = {"victim": self.source, **{part: self.parts[part] for part in ("owner", "attacker", "test")}}
        if work == "guard":
            inputs |= {f"null/{index:03d}": cell for index, cell in enumerate(self.nulls)}
        fields = {**self.scale.fields, "variant": variant}
        return Cell(
            work=f"modelward.reproduce.activeguard_work:{work}", settings={"fields": fields, "users": self.scale.users, **settings}, inputs=inputs,
            seed=derive_seed(self.seed, "guarded", variant), label=f"{work} {self.arch} {variant} #{self.number}", uses=USES,
            seconds=40 + train_seconds(self.arch, len(self.study.owner), 10, self.study.test.shape),
        )  # fmt: skip


def activeguard(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Guard, let in, forge, steal; return the results document.

    Raises
    ------
    UsageError
        for an unknown profile.
    ModelwardError
        when something could not be measured.
    """
    if profile not in SCALES:
        message = f"profile is {', '.join(SCALES)}, not {profile!r}"
        raise UsageError(message)
    scale, engine = SCALES[profile], Engine(store, jobs=jobs)
    plan = Plan()
    for arch in scale.archs:
        for number in range(scale.seeds):
            scene = _scene(scale, arch, number, seed, store)
            plan.plain += [(scene.told(variant), scene.cell("guard", variant, tries=scale.tries)) for variant in ("paper", "hardened")]
            if number == 0:
                plan.plain.append(
                    (scene.told("hardened"), scene.cell("endure", "hardened", thefts=[list(theft) for theft in scale.thefts]))
                )
                plan.tried.append((scene.told("hardened"), _recovery(scene, profile)))
    run = engine.run(plan.cells(), task="activeguard")
    if broken := plan.broken(run):
        message = f"{len(broken)} parts could not be measured: {broken[0]}"
        raise ModelwardError(message)
    rows: Rows = [{**row, "profile": profile, "command": command} for row in plan.rows(run, OF_LOCKS)]
    return {"title": f"activeguard, profile {profile}", "paragraphs": [*([SMOKE] if profile == "smoke" else []), *_words(scale)],
            "tables": tables(rows), "rows": rows}  # fmt: skip


def _scene(scale: Scale, arch: str, number: int, seed: int, store: Store) -> Scene:
    """Return the ground of one architecture and seed."""
    here = ground("activeguard", scale.data, scale.limit, arch, number, seed=seed, store=store)
    nulls = null_cells(arch, here.study, here.parts, profile="quick", seed=derive_seed("activeguard", seed, number)) if number == 0 else []
    return Scene(**vars(here), scale=scale, nulls=nulls[: scale.nulls])


def _recovery(scene: Scene, profile: str) -> Attempts:
    """Return thieves who strip the layer off a bound file and train on few images of their own, beside training from scratch."""
    locking = Candidate("activeguard", "hardened", scene.scale.fields)
    locked = lock_cell(locking, scene.source, scene.parts, scene.study, scene.arch, seed=scene.seed)
    shares = (0.1,) if profile == "smoke" else (0.01, 0.05, 0.1)
    specs = [
        TheftSpec("ftal", "fine-tuning", {"images": max(2, round(share * len(scene.study.owner))), "epochs": 2 if profile == "smoke" else 10,
                                          "optimizer": "adam", "lr": 0.001, "batch": 16})
        for share in shares
    ]  # fmt: skip
    specs += [TheftSpec("bn-recalibrate", "BN recalibration", {}, "none")] if applies("bn-recalibrate", scene.arch) else []
    return attempts(locking, locked, scene.source, scene.arch, scene.parts, scene.study, specs, seed=scene.seed)


def _words(scale: Scale) -> list[str]:
    """Return what was done, in words."""
    return [
        (
            "ActiveGuard (arXiv 2103.01527) gives every user an adversarial example of one class and one confidence. The paper's variant lets in "
            "whoever brings an image that falls into a window; the hardened one asks for four probes, a MAC over user and pixels, and seals the key "
            "of a network that is locked itself."
        ),
        (
            f"{scale.users} users; every image went through PNG. Forged credentials are put together at random from images of one kind, "
            f"{scale.tries:,} of each; intervals are Wilson's, over credentials, not over networks. Thieves of the opened network have the "
            "attacker's images, none of the owner's."
        ),
        (
            "A user's whole set under small noise is a stolen credential, not a forged one: the windows alone let part of it in, so it stands in a row "
            "of its own. The MAC refuses it; the exact file of a user is let in until the user is revoked."
        ),
    ]
