"""The sample-specific lock: who can use the network, and what opens it without the generator, the paper's recipe and the hardened one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from modelward.core.errors import ModelwardError, UsageError
from modelward.core.rng import derive_seed
from modelward.data import Study, load_data, study
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.farm import TheftSpec, applies
from modelward.evaluation.locks import Attempts, Locking, attempts, lock_cell, rows_of
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import NullSpec, null_recipe, put_parts, train_cell
from modelward.reproduce.fingerprint_tables import SMOKE, Rows
from modelward.reproduce.sample_lock_tables import tables

WORK = "modelward.reproduce.sample_lock_work:pairs"
Fields = dict[str, Any]
VARIANTS = ("paper", "hardened")
RATES, SHARES = (1e-4, 1e-3, 1e-2), (0.01, 0.05, 0.1)
NOISE, BLUR, JPEG = (0.02, 0.05, 0.1, 0.2), (0.5, 1.0), (90, 75, 50)
PRUNING = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Scale:
    """How large a profile is: data set, images a split, (architecture, seeds), stolen pairs, epochs of who learns from them, fields."""

    data: str
    limit: int | None
    archs: tuple[tuple[str, int], ...]
    pairs: int = 500
    epochs: int = 60
    fields: Fields = field(default_factory=dict)
    rates: tuple[float, ...] = RATES
    shares: tuple[float, ...] = SHARES
    pruning: tuple[float, ...] = PRUNING


SCALES = {
    "smoke": Scale(
        "fashion-mini",
        300,
        (("cnn:width=4", 1),),
        20,
        1,
        {"epochs": 1, "warm": 1, "width": 4, "identity_bits": 16},
        (1e-2,),
        (0.1,),
        (0.5,),
    ),
    "quick": Scale("fashion-mini", None, (("lenet5", 3), ("resnet8", 1))),
    "full": Scale("cifar10-jpeg", 10_000, (("resnet8", 3),)),
}


@dataclass(frozen=True, eq=False)
class Scene:
    """One architecture and seed: the parts of the data, the model that is locked, and its locks by variant."""

    arch: str
    number: int
    scale: Scale
    study: Study
    parts: dict[str, str]
    source: Cell
    seed: int

    def locking(self, variant: str) -> Locking:
        """Return a variant as it is measured here."""
        return Locking("sample-lock", variant, dict(self.scale.fields))

    def locked(self, variant: str) -> Cell:
        """Return the cell that locks."""
        return lock_cell(self.locking(variant), self.source, self.parts, self.study, self.arch, seed=self.seed)


def sample_lock(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Lock, open, steal, trace; return the results document.

    Raises
    ------
    UsageError
        for an unknown profile.
    ModelwardError
        when a lock could not be made or measured.
    """
    if profile not in SCALES:
        message = f"profile is {', '.join(SCALES)}, not {profile!r}"
        raise UsageError(message)
    scale, engine = SCALES[profile], Engine(store, jobs=jobs)
    scenes = [_scene(scale, arch, number, seed, store) for arch, seeds in scale.archs for number in range(seeds)]
    plain: list[tuple[Scene, str, Cell]] = []
    tried: list[tuple[Scene, Attempts]] = []
    for place, scene in enumerate(scenes):
        for variant in VARIANTS:
            other = scenes[(place + 1) % len(scenes)].locked(variant) if len(scenes) > 1 else scene.locked(_other(variant))
            plain.append((scene, variant, _pairs_cell(scene, variant, other)))
            specs = [*_wrapping(), *(_training(scene) if scene.number == 0 else [])]
            locking, locked = scene.locking(variant), scene.locked(variant)
            tried.append((scene, attempts(locking, locked, scene.source, scene.arch, scene.parts, scene.study, specs, seed=scene.seed)))
    run = engine.run([*(cell for *_, cell in plain), *(c for _, t in tried for c in (t.cell, *t.cells))], task="sample-lock")
    if run.failed:
        message = f"{len(run.failed)} parts could not be measured: {next(iter(run.failed.values()))}"
        raise ModelwardError(message)
    rows: Rows = [{**row, "profile": profile, "command": command} for row in _rows(run, plain, tried)]
    words = [*([SMOKE] if profile == "smoke" else []), *_words(scale)]
    return {"title": f"sample-lock, profile {profile}", "paragraphs": words, "tables": tables(rows), "rows": rows}


def _other(variant: str) -> str:
    return next(name for name in VARIANTS if name != variant)


def _scene(scale: Scale, arch: str, number: int, seed: int, store: Store) -> Scene:
    """Return the ground of one architecture and seed."""
    own = derive_seed("sample-lock", seed, number)
    made = study(load_data(scale.data, limit=scale.limit), seed=own)
    parts = put_parts(store, made)
    source = train_cell(NullSpec(arch, "owner", 1.0, "source", number), null_recipe(arch), parts, made, derive_seed(own, "source"))
    return Scene(arch, number, scale, made, parts, source, derive_seed(own, arch))


def _pairs_cell(scene: Scene, variant: str, other: Cell) -> Cell:
    """Return the cell of those who have stolen pairs of images."""
    inputs: dict[str, str | Cell] = {
        "locked": scene.locked(variant), "other": other, "attacker": scene.parts["attacker"], "test": scene.parts["test"],
    }  # fmt: skip
    settings = {"fields": {**scene.scale.fields, "variant": variant}, "pairs": scene.scale.pairs, "epochs": scene.scale.epochs}
    return Cell(work=WORK, settings=settings, inputs=inputs, seed=derive_seed(scene.seed, "pairs", variant), seconds=60,
                label=f"stolen pairs, {variant} {scene.arch} #{scene.number}")  # fmt: skip


def _wrapping() -> list[TheftSpec]:
    """Return what is done to every question, or to every answer."""
    return [
        *(TheftSpec("wrap-noise", "noise", {"std": std}, "none") for std in NOISE),
        *(TheftSpec("wrap-blur", "blur", {"std": std}, "none") for std in BLUR),
        *(TheftSpec("wrap-jpeg", "JPEG", {"quality": quality}, "none") for quality in JPEG),
        TheftSpec("label-remap", "answers renamed", {"images": 40}, "true"),
        TheftSpec("head-surgery", "answers read anew", {"how": "remap", "images": 40}, "true"),
    ]


def _training(scene: Scene) -> list[TheftSpec]:
    """Return what is done to the weights."""
    scale, arch = scene.scale, scene.arch
    few = [
        TheftSpec("ftal", "fine-tuning", {"images": max(2, round(share * len(scene.study.owner))), "lr": lr, "epochs": 10, "batch": 16})
        for share in scale.shares for lr in scale.rates
    ]  # fmt: skip
    few += [TheftSpec("prune", "pruning", {"sparsity": sparsity}, "none") for sparsity in scale.pruning]
    if applies("fine-prune", arch):
        few.append(TheftSpec("fine-prune", "fine-pruning", {"images": max(2, round(0.1 * len(scene.study.owner))), "batch": 16}))
    return few + ([TheftSpec("bn-recalibrate", "BN recalibration", {}, "none")] if applies("bn-recalibrate", arch) else [])


def _rows(run: Run, plain: list[tuple[Scene, str, Cell]], tried: list[tuple[Scene, Attempts]]) -> Rows:
    """Return all rows with architecture, seed and variant."""
    made: Rows = []
    for scene, variant, cell in plain:
        told = {"arch": scene.arch, "scene": scene.number, "configuration": variant}
        finished = run.of(cell)
        made += [{**row, **told} for row in (finished.rows if finished else [])]
    for scene, found in tried:
        told = {"arch": scene.arch, "scene": scene.number, "configuration": found.locking.variant}
        made += [{**row, **told} for row in rows_of(found, run)]
    return made


def _words(scale: Scale) -> list[str]:
    """Return what was done, in words."""
    archs = " and ".join(f"{arch} ({seeds} seeds)" for arch, seeds in scale.archs)
    claim = (
        "Wu, Xue et al., AICAS 2022, name no figures in their abstract; that of the extension (SSAT, ACM TOMM 2024) is remembered as 1.00 % "
        "without and 97.67 % with the trigger, and users traced in 100 %."
    )
    here = (
        f"Here: {scale.data}, {archs}. All images are 8-bit and went through PNG. Settings were found on another split of "
        "the small set's images, whose test images are partly those of this one: only figures on other data are free of that choice. "
        f"A thief with stolen pairs has {scale.pairs} images before and after; the other generator is that of a lock with another secret."
    )
    how = (
        "Fine-tuning, pruning and fine-pruning are measured on the first seed. Intervals are Wilson's over test images, pooled over seeds."
    )
    return [claim, here, how]
