"""Locks as cells: a model is locked, thieves without the key try to use it, and each stands beside training from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from modelward.evaluation.zoo import null_recipe

SHARES = {"smoke": (0.1,), "quick": (0.01, 0.1), "full": (0.01, 0.05, 0.1)}
SPARSITIES = {"smoke": (0.5,), "quick": (0.1, 0.3, 0.5), "full": tuple(s / 10 for s in range(1, 10))}
OPTIMIZERS = {"sgd": 0.01, "adam": 0.001}
EPOCHS, BATCH = 10, 16
TRAINED = ("ftal", "combined")


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


def images_cell(locking: Candidate, surrogate: Cell, parts: Mapping[str, str], study: Study, arch: str, *, seed: int) -> Cell:
    """Return the cell that locks the owner's images, and trains networks of ``arch`` on them with and without the key."""
    return Cell(
        work="modelward.evaluation.work_lock_images:lock", label=f"lock: {locking.name}", uses=(find(locking.method).__module__,),
        inputs={"victim": surrogate, **{name: parts[name] for name in ("owner", "attacker", "test")}},
        settings={"method": locking.method, "fields": {**locking.fields, "variant": locking.variant}, "arch": arch},
        seed=derive_seed(seed, "lock", locking.method, locking.variant, locking.fields),
        seconds=train_seconds(arch, len(study.owner), 8 * null_recipe(arch).epochs, study.test.shape),
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
        if attack.method not in TRAINED
    ]
    if not any(spec.method == "bn-recalibrate" for spec in own):
        own.append(TheftSpec("bn-recalibrate", "BN recalibration", {}, "none"))
    return made + [spec for spec in own if spec.method != "bn-recalibrate" or applies("bn-recalibrate", arch)]


def scratch_spec(spec: TheftSpec) -> TheftSpec | None:
    """Return training from scratch at the budget of ``spec``, with the steps that follow it; ``None`` for an attack that trains nothing.

    >>> scratch_spec(TheftSpec("ftal", "fine-tuning", {"images": 30})).fields, scratch_spec(TheftSpec("prune", "pruning"))
    ({'images': 30}, None)
    >>> scratch_spec(TheftSpec("combined", "two steps", {"steps": [["ftal", {"images": 30}], ["distil", {}]]})).fields
    {'steps': [['scratch', {'images': 30}], ['distil', {}]]}
    """
    if spec.method not in TRAINED:
        return None
    if spec.method == "combined":
        (_, budget), *rest = spec.fields["steps"]
        return TheftSpec("combined", "from scratch", {"steps": [["scratch", budget], *rest]})
    return TheftSpec("scratch", "from scratch", dict(spec.fields))


@dataclass(frozen=True)
class Attempts:
    """The attempts on one locked model: each with its theft, and with training from scratch at the same budget where it trains."""

    locking: Candidate
    cell: Cell
    tries: list[tuple[TheftSpec, Cell, Cell | None]]

    @property
    def cells(self) -> list[Cell]:
        """All cells of the attempts."""
        return [cell for _, theft, scratch in self.tries for cell in (theft, scratch) if cell is not None]


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
        alone = scratch.rows[0] if scratch else None
        extra = {
            "group": spec.group, "log": row["extra"]["log"], "fields": dict(spec.fields), "images": spec.fields.get("images"),
            "from_scratch": alone["value"] if alone else None, "from_scratch_ci": [alone["ci_low"], alone["ci_high"]] if alone else None,
        }  # fmt: skip
        yield {**row, **told, "metric": "recovered", "extra": extra, "seconds": done.seconds}
