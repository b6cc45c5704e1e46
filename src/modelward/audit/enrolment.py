"""Enrol a model with an ownership method, and judge a suspect with the key."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelward.audit.calibrating import Calibrating, family, family_plan
from modelward.audit.doors import probe_names
from modelward.audit.question import Ground, Question, cell_seed, check_fit, prepare
from modelward.audit.run import Estimate, estimate
from modelward.core.canonical import canonical_json, digest_bytes
from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import LockMethod
from modelward.core.rng import generator
from modelward.core.siblings import TUNING, Siblings
from modelward.evaluation.engine import Engine
from modelward.evaluation.parcels import get_model, put_model
from modelward.evaluation.siblings import thefts_of
from modelward.evaluation.store import Store
from modelward.evaluation.work_clean import intake_checks
from modelward.io.atomic import write_bytes
from modelward.io.images import png_bytes
from modelward.locks.credentials import probes_of
from modelward.models import load_model
from modelward.ownership.mark import with_power


@dataclass(frozen=True, eq=False)
class Protected:
    """What protecting a model gives: the model to publish, the key to keep, whether the model is another one than before, and the siblings."""

    model: nn.Module
    key: Key
    changed: bool
    siblings: Siblings = field(default_factory=Siblings)


def ownership(method: str, settings: dict[str, Any]) -> OwnershipMethod:
    """Return the ownership method called ``method``; raises `UsageError` for another family."""
    found = find(method).configured(settings)
    if not isinstance(found, OwnershipMethod):
        message = f"{method} is of the family {found.family}, it proves no ownership; `modelward methods` lists the ownership methods"
        raise UsageError(message)
    return found


def dry_run_enrol(
    method: str, settings: dict[str, Any], question: Question, asked: Calibrating, *, store: Store, jobs: int | None = None
) -> Estimate:
    """Return what calibrating would cost; nothing for a mark, whose draws are other secrets."""
    chosen = ownership(method, settings)
    if chosen.marks:
        return Estimate(0, 0, 0.0, 0, [])
    made = family_plan(asked, prepare(question, store), store, ranked=chosen.drawn_over == "siblings")
    return estimate(made.cells if made else [], store, jobs)


def enrol(
    method: str, settings: dict[str, Any], question: Question, *, calibrating: Calibrating | None = None, nulls: Path | None = None, store: Store,
    jobs: int | None = None, secret: bytes | None = None,
) -> Protected:  # fmt: skip
    """Return the key of a model, and the model to publish.

    Parameters
    ----------
    method, settings
        an ownership method by name, and its hyper-parameters.
    question
        the model and its data.
    calibrating
        how siblings of a fingerprint's model come to be; a mark needs none, and a fingerprint without them decides nothing.
    nulls
        a folder of safetensors files of independent models: asked as suspects, so that the key tells how often it accuses such.
    secret
        what the mark is derived from; drawn when absent.
    """
    chosen, asked = ownership(method, settings), calibrating or Calibrating()
    if chosen.marks and (asked.wanted or asked.base or asked.start) and asked.profile is None:
        message = (
            f"{method} is a mark: its p-value is drawn over other secrets, and siblings tell it nothing; --calibrate tries thefts of the marked model, "
            "leave the other options of calibration away"
        )
        raise UsageError(message)
    ground = prepare(question, store)
    independent = null_folder(nulls, ground) if nulls is not None else []
    members = (
        Siblings()
        if chosen.marks
        else family(asked, ground, family_plan(asked, ground, store, ranked=chosen.drawn_over == "siblings"), store, jobs)
    )
    rng = generator(cell_seed(ground, "enrol"))
    data = ground.study.owner if chosen.marks else _untrained(ground.study.probes, members)
    model, key = chosen.protect(ground.loaded.model, data, secret=secret, siblings=members, nulls=independent, rng=rng)
    if chosen.marks and asked.profile is not None:
        key = _robbed(key, model, ground, asked, store, jobs)
    facts = {
        **key.facts,
        "data": ground.splits.name,
        "parts": ground.study.digests(),
        "arch": ground.loaded.arch,
        "calibrate": asked.profile or (members.origin if len(members) else ""),
        **_intake(ground),
    }
    return Protected(model, Key(key.method, key.variant, key.model_digest, facts, key.tensors), changed=chosen.marks, siblings=members)


def _robbed(key: Key, model: nn.Module, ground: Ground, asked: Calibrating, store: Store, jobs: int | None) -> Key:
    """Return the key of a mark that knows how many thefts of the marked model it misses; one of the profile smoke decides nothing."""
    if asked.profile == "smoke":
        return replace(key, facts={**key.facts, "draws": {**key.fact(dict, "draws"), "smoke": True}})
    study = ground.study
    cells = thefts_of([put_model(store, model)] * TUNING, ground.loaded.arch, study.attacker, study.test, store)
    run = Engine(store, jobs=jobs).run([cell for _, _, cell in cells], task="thefts of the marked model")
    stolen = [
        (spec.group, get_model(str(store.folder), str(done.artifact))) for _, spec, cell in cells if (done := run.of(cell)) is not None
    ]
    return with_power(key, stolen)


def _untrained(images: ImageSet, members: Siblings) -> ImageSet:
    """Return the images that the siblings were not trained on; says how many were left out."""
    if members.images is None:
        return images
    known = members.images.image_digests
    free = [place for place, digest in enumerate(images.each_digest) if digest not in known]
    if len(free) < len(images):
        warnings.warn(
            f"{len(images) - len(free)} images of --data are among those the model was trained on, and were left out", stacklevel=3
        )
    if not free:
        raise InputError("every image of --data is one the model was trained on; pass others to make probes of")
    return images if len(free) == len(images) else images.take(torch.tensor(free))


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
