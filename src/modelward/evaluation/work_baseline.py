"""Work: embed one mark, steal the marked model in every way of a list, and read the mark from what the thieves got."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.families import TheftMethod
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.core.suspect import Access, Suspect
from modelward.core.view import AttackerView, Labels
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.rows import Row, rate
from modelward.evaluation.work_fingerprint import group_of
from modelward.evaluation.work_theft import MAX_DROP
from modelward.keys.derive import derive
from modelward.models import Net
from modelward.ownership.mark import MarkMethod


def endure(job: Job) -> Outcome:
    """Mark, steal, verify.

    Settings: ``method``, ``fields``, ``thefts`` (each ``method``, ``fields``, ``labels``). Inputs: ``victim``, ``owner``, ``attacker``, ``test``,
    ``null/I``, ``stranger/I`` (independent models; the key tells how many of the former it accuses).

    Rows, one a model and metric: ``statistic`` (small is marked) and ``test_accuracy``; models are ``marked``, ``unmarked`` (the source), each
    theft, each null and stranger; ``claimed`` and ``forged`` are keys that nothing was trained on.
    """
    torch.set_num_threads(job.threads)
    method = find(job.settings["method"]).configured(dict(job.settings["fields"]))
    if not isinstance(method, MarkMethod):
        message = f"{job.settings['method']} is no mark"
        raise UsageError(message)
    owner, attacker, test = (get_images(job.store, job.inputs[part]) for part in ("owner", "attacker", "test"))
    source = get_model(job.store, job.inputs["victim"])
    nulls, strangers = ([get_model(job.store, d) for d in group_of(job, part).values()] for part in ("null", "stranger"))
    secret = derive(derive_seed(job.seed, "secret").to_bytes(8, "big") * 4, "baseline")
    model, key = method.protect(source, owner, secret=secret, nulls=nulls, rng=generator(job.seed))
    desk = _Desk(method, key, test, secret, job)
    rows = [desk.row("marked", model), desk.row("unmarked", source)]
    arch = source.arch if isinstance(source, Net) else None
    rows += [desk.row(_name(theft), _stolen(model, attacker, theft, arch, job), parent=model) for theft in job.settings["thefts"]]
    rows += [row for net in nulls if (row := desk.readable("null", net)) is not None]
    rows += [row for net in strangers if (row := desk.readable("stranger", net)) is not None]
    rng = generator(derive_seed(job.seed, "controls"))
    for what, make in (("claimed", method.claim), ("forged", method.forge)):
        try:
            rows.append(desk.row(what, source, key=make(source, owner, secret=derive(secret, what), nulls=nulls, rng=rng)))
        except InputError as error:
            rows.append(Row(metric="statistic", value=float("nan"), n=0, attack=what, flags=(str(error),)))
    common = {"method": method.card.name, "variant": method.variant, "seed": job.seed}
    return Outcome([{**row.as_json(), **common} for row in rows])


def _name(theft: Mapping[str, Any]) -> str:
    """Return what a theft is called in the rows.

    >>> _name({"method": "prune", "fields": {"sparsity": 0.5}})
    'prune 0.5'
    """
    return " ".join([str(theft["method"]), *(str(value) for value in theft["fields"].values())])


def _stolen(model: nn.Module, images: ImageSet, theft: Mapping[str, Any], arch: str | None, job: Job) -> nn.Module:
    """Return what one thief makes of the marked model."""
    method = find(theft["method"]).configured(dict(theft["fields"]))
    if not isinstance(method, TheftMethod):
        message = f"{theft['method']} is no theft"
        raise UsageError(message)
    view = AttackerView(Suspect.of_model(model), images, Labels(theft["labels"]), arch)
    return method.steal(view, rng=generator(derive_seed(job.seed, _name(theft)))).model


class _Desk:
    """Reads one mark from many models."""

    def __init__(self, method: MarkMethod, key: Key, test: ImageSet, secret: bytes, job: Job) -> None:
        self.method, self.key, self.test, self.job = method, key, test, job
        unseen = getattr(method, "unseen", None)
        self.unseen = None
        where = test.labels == int(key.facts.get("source", -1))
        if unseen is not None and getattr(method, "kind", "") != "unrelated" and bool(where.any()):
            self.unseen = unseen(test.pixels[where], key, derive(secret, method.card.name, method.user))

    def row(self, what: str, model: nn.Module, *, key: Key | None = None, parent: nn.Module | None = None) -> Row:
        """Return the statistic of one model, with its accuracy, its verdict, and the hits on images that no key holds."""
        key = self.key if key is None else key
        verdict = self.method.verify(Suspect.of_model(model), key)
        correct = self._correct(model)
        extra: dict[str, Any] = {
            "accuracy": correct / len(self.test), "p": verdict.p_value, "parametric_p": verdict.parametric_p, "matches": verdict.matches,
            "decision": verdict.decision.value, "threshold": verdict.threshold, "statistic": verdict.statistic_name,
        }  # fmt: skip
        if parent is not None:
            drop = (self._correct(parent) - correct) / len(self.test)
            extra |= {"drop": drop, "useful": drop <= MAX_DROP}
        if self.unseen is not None:
            hits = int((predict(model, self.unseen).argmax(1) == int(key.facts.get("target", -1))).sum())
            extra["unseen"] = [hits, len(self.unseen)]
        many = max(1, self.method.enrolled(key).counted(key))
        return rate("statistic", round(verdict.statistic * many), many, attack=what, extra={**extra, "exact": verdict.statistic})

    def readable(self, what: str, model: nn.Module) -> Row | None:
        """Return the row of an independent model; none where it is of another architecture and has nothing that a mark in weights could be read from."""
        try:
            return self.row(what, model)
        except InputError:
            if self.method.needs is not Access.WEIGHTS:
                raise
            return None

    def _correct(self, model: nn.Module) -> int:
        """Return how many test images a model answers rightly; an extra class is never right."""
        return int((predict(model, self.test.pixels).argmax(1) == self.test.labels).sum())
