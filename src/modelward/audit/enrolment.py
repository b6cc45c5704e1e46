"""Enrol a model with an ownership method, and judge a suspect with the key."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from modelward.audit.doors import probe_names
from modelward.audit.question import Ground, Question, cell_seed, check_fit, prepare
from modelward.audit.run import Estimate, estimate
from modelward.audit.scope import COPIES
from modelward.core.canonical import canonical_json, digest_bytes
from modelward.core.catalogue import find
from modelward.core.errors import InputError, ModelwardError, UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.key import Key
from modelward.core.locking import LockMethod
from modelward.core.rng import generator
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.farm import theft_cell, thefts
from modelward.evaluation.store import Store
from modelward.evaluation.work_clean import intake_checks
from modelward.evaluation.zoo import models_of, null_cells
from modelward.io.atomic import write_bytes
from modelward.io.images import png_bytes
from modelward.locks.credentials import probes_of
from modelward.models import load_model

CALIBRATIONS = tuple(COPIES)


@dataclass(frozen=True, eq=False)
class Protected:
    """What protecting a model gives: the model to publish, the key to keep, and whether the model is another one than before."""

    model: nn.Module
    key: Key
    changed: bool


def ownership(method: str, settings: dict[str, Any]) -> OwnershipMethod:
    """Return the ownership method called ``method``; raises `UsageError` for another family."""
    found = find(method).configured(settings)
    if not isinstance(found, OwnershipMethod):
        message = f"{method} is of the family {found.family}, it proves no ownership; `modelward methods` lists the ownership methods"
        raise UsageError(message)
    return found


def _calibration(ground: Ground, profile: str, *, marks: bool) -> tuple[list[Cell], list[Cell]]:
    """Return the cells of the null models and of the validation thieves; thieves of a model before it was marked would tell a mark nothing."""
    if profile not in CALIBRATIONS:
        message = f"--calibrate is {', '.join(CALIBRATIONS)}, not {profile!r}"
        raise UsageError(message)
    arch = ground.loaded.arch
    seed = cell_seed(ground, "validation")
    validation = [
        theft_cell(spec, ground.victim, arch, ground.parts, ground.study, seed=seed) for spec in ([] if marks else thefts(arch, 1))
    ]
    return null_cells(arch, ground.study, ground.parts, profile=profile, seed=ground.question.seed), validation


def dry_run_enrol(question: Question, *, calibrate: str, store: Store, jobs: int | None = None, marks: bool = False) -> Estimate:
    """Return what calibrating would cost; ``marks`` says that the method trains the model."""
    nulls, validation = _calibration(prepare(question, store), calibrate, marks=marks)
    return estimate([*nulls, *validation], store, jobs)


def enrol(
    method: str, settings: dict[str, Any], question: Question, *, calibrate: str | None = None, nulls: Path | None = None, store: Store,
    jobs: int | None = None, secret: bytes | None = None,
) -> Protected:  # fmt: skip
    """Return the key of a model, and the model to publish.

    Parameters
    ----------
    method, settings
        an ownership method by name, and its hyper-parameters.
    question
        the model and its data.
    calibrate
        train null models and validation thieves (cached): ``smoke``, ``quick`` or ``full``.
    nulls
        a folder of safetensors files of independent models instead. Without either the key is uncalibrated.
    secret
        what the mark is derived from; drawn when absent.
    """
    chosen = ownership(method, settings)
    ground = prepare(question, store)
    independent, thieves = list[nn.Module](), list[nn.Module]()
    if nulls is not None:
        independent = null_folder(nulls, ground)
    elif calibrate is not None:
        cells, validation = _calibration(ground, calibrate, marks=chosen.marks)
        run = Engine(store, jobs=jobs).run([*cells, *validation], task="calibration")
        if run.failed:
            message = f"calibration failed: {next(iter(run.failed.values()))}"
            raise ModelwardError(message)
        independent = [model for _, model in models_of(run, cells, store)]
        thieves = [model for _, model in models_of(run, validation, store)]
    rng = generator(cell_seed(ground, "enrol"))
    data = ground.study.owner if chosen.marks else ground.study.probes
    model, key = chosen.protect(ground.loaded.model, data, secret=secret, nulls=independent, thieves=thieves, rng=rng)
    facts = {
        **key.facts,
        "data": ground.splits.name,
        "parts": ground.study.digests(),
        "arch": ground.loaded.arch,
        "calibrate": calibrate or "nulls" * bool(nulls),
        **_intake(ground),
    }
    return Protected(model, Key(key.method, key.variant, key.model_digest, facts, key.tensors), changed=chosen.marks)


def _intake(ground: Ground) -> dict[str, list[str]]:
    """Return the intake checks that failed, each in a sentence; nothing when all passed."""
    checks = intake_checks(ground.loaded.model, ground.study.probes.few(256))
    failed = [f"{check['name']}: {check['text']}; {check['fix']}" for check in checks if check["status"] == "failed"]
    return {"intake": failed} if failed else {}


def null_folder(folder: Path, ground: Ground) -> list[nn.Module]:
    """Return the independent models in ``folder``, sorted by name."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        message = (
            f"--nulls {folder.name}: no safetensors files there; save independent models with their architecture, or use --calibrate quick"
        )
        raise InputError(message)
    models: list[nn.Module] = []
    for path in files:
        loaded = load_model(path, size=ground.loaded.model.size)
        remark = check_fit(loaded, ground.splits)
        if remark:
            warnings.warn(f"--nulls {path.name}: {remark}", stacklevel=2)
        models.append(loaded.model)
    return models


def _shown(key: Key) -> Tensor:
    """Return the images that the holder of a user's key of a lock shows, uint8 (m, C, H, W)."""
    if "probes" not in key.tensors:
        message = f"this key of {key.method} holds no images: its holder shows none, and the owner's key has none"
        raise UsageError(message)
    return probes_of(key)


def write_probes(key: Key, folder: Path) -> int:
    """Write the key's probes as PNG files with ``probes.json`` (digest, order); return how many."""
    if key.facts.get("bare") and "probes" not in key.tensors:
        raise UsageError("this key holds a user's secret alone, and no images to show")
    pixels = _shown(key) if issubclass(find(key.method), LockMethod) else ownership(key.method, {}).probes(key)
    files = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(probe_names(len(pixels)), pixels, strict=True):
        data = png_bytes(image.numpy())
        write_bytes(folder / name, data)
        files[name] = digest_bytes(data)
    listing = {"schema": "modelward/probes", "version": 1, "method": key.method, "order": list(files), "digests": files,
               "answer_with": "answers.csv: header file,label or file,p0,...,pK-1 or file,label1,p1,label2,p2,..., one line per file"}  # fmt: skip
    write_bytes(folder / "probes.json", canonical_json(listing))
    return len(files)
