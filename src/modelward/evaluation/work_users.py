"""Work: give every user a copy with a codeword, let copies leak and users collude, and trace whose they were."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from modelward.attacks.theft.collude import collude
from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.families import TheftMethod
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.core.view import AttackerView
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.rows import Row, from_interval, rate
from modelward.evaluation.work_fingerprint import group_of
from modelward.keys.derive import derive
from modelward.ownership.deepmarks import DeepMarks
from modelward.statistics import mean_interval

LEAKS: tuple[tuple[str, dict[str, Any]], ...] = (("ftal", {}), ("prune", {"sparsity": 0.5}))


def users(job: Job) -> Outcome:
    """Mark a copy for each user, trace it, and trace what becomes of it.

    Settings: ``fields`` (of `DeepMarks`), ``copies``, ``leaked`` (copies that are stolen from), ``ways`` and ``sizes`` of collusions, ``trials``.
    Inputs: ``victim``, ``owner``, ``attacker``, ``test``, ``null/I``.

    Rows: ``identified`` and ``misattributed`` over copies and leaks, ``collusion_named`` (all colluders and nobody else), ``innocents_named`` over
    collusions, ``innocent_users`` over the users who were in none, ``null_named`` over independent models, ``accuracy_drop``.
    """
    torch.set_num_threads(job.threads)
    settings = job.settings
    owner, attacker, test = (get_images(job.store, job.inputs[part]) for part in ("owner", "attacker", "test"))
    source = get_model(job.store, job.inputs["victim"])
    secret = derive(derive_seed(job.seed, "secret").to_bytes(8, "big") * 4, "users")
    copies: list[nn.Module] = []
    key: Key | None = None
    for number in range(settings["copies"]):
        method = DeepMarks(**settings["fields"], number=number)
        model, made = method.protect(source, owner, secret=secret, rng=generator(job.seed))
        copies.append(model)
        key = made if key is None else key
    if key is None:
        raise UsageError("users: there is no copy to trace")
    nulls = [get_model(job.store, digest) for digest in group_of(job, "null").values()]
    desk = _Tracing(key, copies, job)
    rows = [*desk.own(), *desk.leaked(attacker), *desk.collusions(), desk.nulls(nulls), _fidelity(source, copies, test)]
    common = {"method": "deepmarks", "variant": key.variant, "seed": job.seed}
    return Outcome([{**row.as_json(), **common} for row in rows])


class _Tracing:
    """One key that all copies are traced with."""

    def __init__(self, key: Key, copies: Sequence[nn.Module], job: Job) -> None:
        self.key, self.copies, self.job, self.method = key, copies, job, DeepMarks()

    def named(self, model: nn.Module) -> tuple[int, ...]:
        """Return the users that a model is traced to."""
        return self.method.trace(model, self.key).users

    def own(self) -> list[Row]:
        """Return how many copies are traced to their user, and how many to anybody else."""
        return self._identified([(number, model) for number, model in enumerate(self.copies)], "none")

    def _identified(self, models: list[tuple[int, nn.Module]], attack: str) -> list[Row]:
        found = [(number, self.named(model)) for number, model in models]
        right = sum(named == (number,) for number, named in found)
        wrong = sum(bool(set(named) - {number}) for number, named in found)
        return [rate("identified", right, len(found), attack=attack), rate("misattributed", wrong, len(found), attack=attack)]

    def leaked(self, images: ImageSet) -> list[Row]:
        """Return the same of copies that a thief tuned or pruned."""
        rows = []
        for name, fields in LEAKS:
            theft = find(name).configured(dict(fields))
            if not isinstance(theft, TheftMethod):
                message = f"{name} is no theft"
                raise UsageError(message)
            labels = "none" if name == "prune" else "true"
            models = [
                (number, theft.steal(AttackerView.of_model(self.copies[number], images, labels=labels), rng=generator(number)).model)
                for number in range(min(self.job.settings["leaked"], len(self.copies)))
            ]
            rows += self._identified(models, name)
        return rows

    def collusions(self) -> list[Row]:
        """Return how often all colluders and nobody else were named, and how many innocents were."""
        settings, rows = self.job.settings, list[Row]()
        for way in settings["ways"]:
            for size in settings["sizes"]:
                rng = generator(derive_seed(self.job.seed, way, size))
                groups = [torch.randperm(len(self.copies), generator=rng)[:size].tolist() for _ in range(settings["trials"])]
                found = [set(self.named(collude([self.copies[user] for user in group], way, rng=rng))) for group in groups]
                pairs = list(zip(found, groups, strict=True))
                common = {"attack": f"{way} of {size}", "budget": f"{size} copies"}
                innocent = sum(len(named - set(group)) for named, group in pairs)
                rows += [
                    rate("collusion_named", sum(named == set(group) for named, group in pairs), len(pairs), **common),
                    rate("somebody_named", sum(bool(named & set(group)) for named, group in pairs), len(pairs), **common),
                    rate("innocents_named", sum(bool(named - set(group)) for named, group in pairs), len(pairs), **common),
                    rate("innocent_users", innocent, len(pairs) * (len(self.copies) - size), **common),
                ]
        return rows

    def nulls(self, models: Sequence[nn.Module]) -> Row:
        """Return how many independent models are traced to anybody, of those that have the marked layer."""
        found = []
        for model in models:
            with contextlib.suppress(InputError):
                found.append(bool(self.named(model)))
        return rate("null_named", sum(found), len(found))


def _fidelity(source: nn.Module, copies: Sequence[nn.Module], test: ImageSet) -> Row:
    """Return the mean accuracy that a copy loses, over copies, in [0, 1]."""
    before, *after = ((predict(model, test.pixels).argmax(1) == test.labels).double().mean().item() for model in (source, *copies))
    drops = [before - value for value in after]
    return from_interval("accuracy_drop", mean_interval(drops), extra={"accuracy": before, "worst": max(drops)})
