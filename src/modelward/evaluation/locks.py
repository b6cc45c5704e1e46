"""Locks as cells: a model is locked, thieves without the key try to use it, and each stands beside training from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.locking import ModelLock
from modelward.core.nearest import nearest
from modelward.core.rng import derive_seed
from modelward.data import Study
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.candidate import Candidate
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Run
from modelward.evaluation.farm import TheftSpec, applies, theft_cell
from modelward.evaluation.scratch import BATCH, EPOCHS, TRAINED, beside, facts_of, scratch_spec
from modelward.evaluation.zoo import null_recipe

SHARES = {"smoke": (0.1,), "quick": (0.01, 0.1), "full": (0.01, 0.05, 0.1)}
SPARSITIES = {"smoke": (0.5,), "quick": (0.1, 0.3, 0.5), "full": tuple(s / 10 for s in range(1, 10))}
OPTIMIZERS = {"sgd": 0.01, "adam": 0.001}
ALWAYS = ("ftal", "combined")  # tried on every lock, whatever its card names
PAIRS = {"smoke": (20, 1), "quick": (500, 60), "full": (500, 60)}  # stolen pairs, and epochs of a generator that learns from them


def lock_of(locking: Candidate) -> ModelLock:
    """Return the lock of a candidate; raises `UsageError` for a method that locks no model."""
    made = locking.configured()
    if not isinstance(made, ModelLock):
        message = f"{locking.method} locks no model"
        raise UsageError(message)
    return made


def lock_cell(locking: Candidate, victim: Cell, parts: Mapping[str, str], study: Study, arch: str, *, seed: int) -> Cell:
    """Return the cell that locks ``victim`` with the owner's images and measures it; its artefact is a victim for thefts."""
    method = lock_of(locking)
    epochs = float(getattr(method, "epochs", 10))
    return Cell(
        work="modelward.evaluation.work_lock:lock", inputs={"victim": victim, "owner": parts["owner"], "test": parts["test"]},
        settings={"method": locking.method, "fields": {**locking.fields, "variant": locking.variant}}, label=f"lock: {locking.name}",
        seed=derive_seed(seed, "lock", locking.method, locking.variant, locking.fields), uses=(type(method).__module__,),
        seconds=train_seconds(arch, len(study.owner), epochs, study.test.shape),
    )  # fmt: skip


def asides(
    locking: Candidate, locked: Cell, source: Cell, arch: str, parts: dict[str, str], study: Study, *, profile: str, seed: int
) -> tuple[Aside, ...]:
    """Return the cells of those who hold keys of another build of the same model, and of who draws triggers himself where that opens a lock.

    ``seed``: of the other build and of training from scratch; another one than the lock's.
    """
    other, method = lock_cell(locking, source, parts, study, arch, seed=seed), lock_of(locking)
    fields = {**locking.fields, "variant": locking.variant}
    given: dict[str, str | Cell] = {"locked": locked, "other": other, "test": parts["test"]}
    keys = Cell(
        work="modelward.evaluation.work_keys:keys", settings={"method": locking.method, "fields": fields}, label=f"keys of another build: {locking.name}",
        inputs={**given, "victim": source, "owner": parts["owner"]}, seed=derive_seed(seed, "keys", locking.name), uses=(type(method).__module__,),
        seconds=20,
    )  # fmt: skip
    if locking.method != "sample-lock":
        return (Aside(keys),)
    pairs, epochs = PAIRS[profile]
    drawn = Cell(
        work="modelward.evaluation.work_triggers:triggers", settings={"fields": fields, "pairs": pairs, "epochs": epochs},
        inputs={**given, "attacker": parts["attacker"]}, seed=derive_seed(seed, "triggers", locking.name), label=f"triggers: {locking.name}", seconds=60,
    )  # fmt: skip
    alone = theft_cell(TheftSpec("scratch", "from scratch", {"images": pairs, **TRAINED}), source, arch, parts, study, seed=seed)
    return Aside(keys), Aside(drawn, {"generator from labels": alone})


def images_cell(locking: Candidate, surrogate: Cell, parts: Mapping[str, str], study: Study, arch: str, *, seed: int) -> Cell:
    """Return the cell that locks the owner's images, and trains networks of ``arch`` on them with and without the key."""
    return Cell(
        work="modelward.evaluation.work_lock_images:lock", label=f"lock: {locking.name}", uses=(find(locking.method).__module__,),
        inputs={"victim": surrogate, **{name: parts[name] for name in ("owner", "attacker", "test")}},
        settings={"method": locking.method, "fields": {**locking.fields, "variant": locking.variant}, "arch": arch},
        seed=derive_seed(seed, "lock", locking.method, locking.variant, locking.fields),
        seconds=train_seconds(arch, len(study.owner), 13 * null_recipe(arch).epochs, study.test.shape),
    )  # fmt: skip


def unlock_specs(method: ModelLock, arch: str, images: int, profile: str) -> list[TheftSpec]:
    """Return what thieves without the key try: what all locks face, and what this one's card names.

    Parameters
    ----------
    arch
        the architecture, which decides whether there are batch statistics to measure anew.
    images
        how many images the owner trained on; thieves have 1 to 10 % as many.
    profile
        ``smoke``, ``quick`` or ``full``.

    Examples
    --------
    >>> from modelward.core.catalogue import find
    >>> [spec.method for spec in unlock_specs(find("advparams")(), "lenet5", 3000, "smoke")][:3]
    ['ftal', 'ftal', 'combined']
    """
    if profile not in SHARES:
        message = f"profile is {', '.join(SHARES)}, not {profile!r}{nearest(profile, SHARES)}"
        raise UsageError(message)
    made = [
        TheftSpec("ftal", "fine-tuning", {"images": max(2, round(share * images)), "optimizer": name, "lr": lr, "epochs": EPOCHS, "batch": BATCH})
        for share in SHARES[profile] for name, lr in OPTIMIZERS.items()
    ]  # fmt: skip
    few = {
        "images": max(2, round(max(SHARES[profile]) * images)),
        "optimizer": "adam",
        "lr": OPTIMIZERS["adam"],
        "epochs": EPOCHS,
        "batch": BATCH,
    }
    made.append(TheftSpec("combined", "fine-tuned, then distilled", {"steps": [["ftal", few], ["distil", {}]]}))
    made += [TheftSpec("prune", "pruning", {"sparsity": sparsity}, "none") for sparsity in SPARSITIES[profile]]
    own = [
        TheftSpec(attack.method, f"adaptive: {attack.method}", dict(attack.settings), attack.labels)
        for attack in method.adaptive_attacks()
        if attack.method not in ALWAYS
    ]
    if not any(spec.method == "bn-recalibrate" for spec in own):
        own.append(TheftSpec("bn-recalibrate", "BN recalibration", {}, "none"))
    return made + [spec for spec in own if spec.method != "bn-recalibrate" or applies("bn-recalibrate", arch)]


@dataclass(frozen=True)
class Aside:
    """A cell whose rows are told of a lock as they are; by attack, training from scratch on the labelled images that it has."""

    cell: Cell
    beside: Mapping[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempts:
    """The attempts on one locked model: each with its theft, and with training from scratch on the same labelled images where it has any."""

    locking: Candidate
    cell: Cell
    tries: list[tuple[TheftSpec, Cell, Cell | None]]
    more: tuple[Aside, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """All cells of the attempts."""
        own = [cell for _, theft, scratch in self.tries for cell in (theft, scratch) if cell is not None]
        return own + [cell for aside in self.more for cell in (aside.cell, *aside.beside.values())]


def attempts(
    locking: Candidate, locked: Cell, source: Cell, arch: str, parts: dict[str, str], study: Study, specs: list[TheftSpec], *, seed: int
) -> Attempts:
    """Return the cells of all ``specs`` against ``locked``, and of their references from scratch, which all locks of ``source`` share."""
    tries = []
    for spec in specs:
        twin = scratch_spec(spec)
        reference = None if twin is None else theft_cell(twin, source, arch, parts, study, seed=seed)
        tries.append((spec, theft_cell(spec, locked, arch, parts, study, seed=seed), reference))
    return Attempts(locking, locked, tries)


def rows_of(tried: Attempts, run: Run) -> Iterator[dict[str, Any]]:
    """Yield the rows of a lock and of the attempts on it: ``recovered`` is a thief's accuracy, ``from_scratch`` beside it."""
    finished = run.of(tried.cell)
    yield from finished.rows if finished else ()
    told = {"method": tried.locking.method, "variant": tried.locking.variant}
    for spec, theft, reference in tried.tries:
        done, scratch = run.of(theft), run.of(reference) if reference is not None else None
        if done is None:
            continue
        row = done.rows[0]
        extra = {"log": row["extra"]["log"], **facts_of(spec, scratch)}
        yield {**row, **told, "metric": "recovered", "extra": extra, "seconds": done.seconds}
    for aside in tried.more:
        yield from ({**row, **told} for row in _aside_rows(aside, run))


def _aside_rows(aside: Aside, run: Run) -> Iterator[dict[str, Any]]:
    """Yield the rows of a cell beside the attempts, those of attempts with all that the others say."""
    finished = run.of(aside.cell)
    for row in finished.rows if finished else ():
        if row["metric"] != "recovered":
            yield row
            continue
        reference = aside.beside.get(row["attack"])
        scratch = run.of(reference) if reference is not None else None
        yield {**row, "extra": {"group": row["attack"], "fields": {}, "images": None, **beside(scratch), **row["extra"]}}
