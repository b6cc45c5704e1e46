"""Work of the activeguard recipe: users, forgers, strangers and thieves of one guarded network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelward.core.catalogue import find
from modelward.core.errors import InputError, ModelwardError, UsageError
from modelward.core.families import TheftMethod
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.core.view import AttackerView
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.rows import Row, from_interval, rate
from modelward.keys.derive import derive
from modelward.locks.activeguard import ActiveGuard
from modelward.locks.control_layer import ANSWERS, ControlLayer, stripped
from modelward.locks.gate import Gate, Roster
from modelward.models import load_model, save_model
from modelward.reproduce.activeguard_forging import Guarded, forging_rows, strangers
from modelward.statistics import binomial_p, mean_interval, upper_bound


def guarded(job: Job) -> Guarded:
    """Lock the victim and enrol the users: settings ``fields``, ``users``; inputs ``victim``, ``owner``. The same cell seed gives the same."""
    torch.set_num_threads(job.threads)
    method = ActiveGuard.configured(dict(job.settings["fields"]))
    victim, owner = get_model(job.store, job.inputs["victim"]), get_images(job.store, job.inputs["owner"])
    secret = derive_seed("secret", job.seed).to_bytes(8, "big") * 4
    locked, key = method.lock(victim, owner, secret=secret, rng=generator(job.seed))
    given = {f"user{number}": derive(secret, "user", str(number)) for number in range(int(job.settings["users"]))}
    ready, credentials = method.enrol(locked, key, given, rng=generator(derive_seed("enrol", job.seed)))
    return Guarded(method, victim, ready, key, method.unlock(ready, key), credentials, given)


def guard(job: Job) -> Outcome:
    """Measure what users, strangers, forgers and the owner get.

    Settings: ``fields``, ``users``, ``tries``. Inputs: ``victim``, ``owner``, ``attacker``, ``test``, ``null/I``.
    """
    made = guarded(job)
    attacker, test = (get_images(job.store, job.inputs[part]) for part in ("attacker", "test"))
    nulls = [get_model(job.store, job.inputs[name]) for name in sorted(job.inputs) if name.startswith("null/")]
    pools = dict(strangers(made, attacker, test, seed=job.seed))
    rows = [*_users(made), *_delivered(made, test, job), *_owner(made, nulls), *_labels(made, nulls)]
    rows += _revoked(made) if made.method.variant == "hardened" else []
    rows += forging_rows(made, pools, get_images(job.store, job.inputs["owner"]), tries=int(job.settings["tries"]), seed=job.seed)
    return _outcome(rows, made, test, job)


def endure(job: Job) -> Outcome:
    """Steal the opened network in several ways, and see what is left of windows, classes and bits.

    Settings: ``fields``, ``users``, ``thefts`` (method, settings, labels). Inputs: ``victim``, ``owner``, ``attacker``, ``test``.
    """
    made = guarded(job)
    attacker, test = (get_images(job.store, job.inputs[part]) for part in ("attacker", "test"))
    rows = _left(made, made.net, test, "none", "")
    for name, fields, labels in job.settings["thefts"]:
        theft = find(name).configured(dict(fields))
        if not isinstance(theft, TheftMethod):
            message = f"{name} is no theft"
            raise UsageError(message)
        stolen = theft.steal(
            AttackerView.of_model(made.net, attacker, labels=labels), rng=generator(derive_seed(job.seed, name, fields))
        ).model
        rows += _left(made, stolen, test, name, ", ".join(f"{field} {value}" for field, value in fields.items()))
    return _outcome(rows, made, test, job)


def _outcome(rows: list[Row], made: Guarded, test: ImageSet, job: Job) -> Outcome:
    """Return rows with what all of them share."""
    told = {"method": "activeguard", "variant": made.method.variant, "seed": job.seed, "data": test.name}
    return Outcome([{**row.as_json(), **told} for row in rows])


def _right(net: nn.Module, test: ImageSet) -> int:
    """Return how many test images a network classifies rightly."""
    return int((predict(net, test.pixels).argmax(1) == test.labels).sum())


def _users(made: Guarded) -> list[Row]:
    """Return how many users were crafted for, and are known again from PNG files, and how many come in as somebody else."""
    fits = made.roster.fits(made.answers(made.net))
    count, own = len(fits), int(fits.diagonal().sum())
    alone = int((fits.diagonal() & (fits.sum(1) == 1)).sum())
    distances = [float(key.facts["distance"]) for key in made.credentials.values()]
    return [
        rate("crafted", own, count), rate("identified", alone, count, attack="png"),
        rate("misattributed", int(fits.sum()) - own, count * (count - 1), attack="png"),
        from_interval("distance", mean_interval(distances), unit="L2"),
    ]  # fmt: skip


def _delivered(made: Guarded, test: ImageSet, job: Job) -> Iterator[Row]:
    """Yield accuracies of who holds a credential, who holds none, and who edits the file, for each way of delivery."""
    count = len(test)
    yield rate("original", _right(made.victim, test), count, extra={"classes": len(test.classes)})
    credential = next(iter(made.credentials.values()))
    opened = made.method.unlock(made.locked, credential)
    yield rate("authorised", _right(opened, test), count, attack=made.method.delivery)
    same = (predict(opened, test.pixels) == predict(made.net, test.pixels)).all(1)
    yield rate("bit_identical", int(same.sum()), count)
    for answers in ANSWERS[:-1]:  # the last refuses: nothing to count
        layer = ControlLayer(answers=answers, seed=job.seed).assemble([made.net])
        yield rate("unauthorised", _right(layer, test), count, attack=answers)
    yield rate("unauthorised", _right(made.locked, test), count, attack=made.method.delivery)
    if made.method.variant == "paper":
        yield rate("stripped", _right(stripped(made.locked), test), count, attack="layer")
        return
    gate = Gate(made.net, made.key.model_digest, made.user_secrets.__getitem__)
    yield rate("authorised", _right(gate.authenticate(credential).net, test), count, attack="server")
    for mode, net in (("server", made.net), ("layer", made.net), ("bound", stripped(made.locked))):
        yield rate("stripped", _right(net, test), count, attack=mode)


def _owner(made: Guarded, nulls: Sequence[nn.Module]) -> Iterator[Row]:
    """Yield the owner's bits in the network from its file, in the bound file without its layer, and in independent networks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        save_model(path, made.net)
        again = load_model(path).model
    able = [null for null in nulls if _reads(made, null)]
    verdict = made.method.verify_owner(again, made.key, nulls=able)
    count = int(made.key.fact(dict, "watermark")["bits"])
    extra = {"p": verdict.p_value, "binomial_p": verdict.p_value, "nulls": verdict.nulls, "decision": verdict.decision.value}
    yield rate("bit_errors", round(verdict.statistic * count), count, attack="saved and loaded", extra=extra)
    locked = made.method.verify_owner(made.locked, made.key).statistic
    yield rate("bit_errors", round(locked * count), count, attack="bound file, stripped")
    found = [made.method.verify_owner(null, made.key).statistic for null in able]
    if len(found) > 1:
        yield from_interval("null_bit_errors", mean_interval(found), attack="null models", extra={"least": min(found)})


def _reads(made: Guarded, null: nn.Module) -> bool:
    """Return whether a network has the layer that carries the bits."""
    try:
        made.method.verify_owner(null, made.key)
    except InputError:
        return False
    return True


def _labels(made: Guarded, nulls: Sequence[nn.Module]) -> Iterator[Row]:
    """Yield how many users their classes alone name, with a p from how often null models give these probes these classes."""
    roster = made.roster
    classes, m = roster.windows[:, :, 0].long(), made.method.count
    if not nulls:
        return
    hits = sum(int((made.answers(null).argmax(2) == classes).sum()) for null in nulls)
    p0 = upper_bound(hits, len(nulls) * classes.numel())
    labels = made.answers(made.net).argmax(2)
    found = [roster.by_labels(row, p0) for row in labels]
    right = sum(name == user for (name, _, _), user in zip(found, roster.users, strict=True))
    extra = {"p0": p0, "p_one_user": binomial_p(m, m, p0), "p_any_user": max(p for _, _, p in found)}
    yield rate("identified_by_labels", right, len(labels), extra=extra)
    named = sum(int((made.answers(null).argmax(2) == classes).all(1).sum()) for null in nulls)
    yield rate("null_identified_by_labels", named, len(nulls) * len(labels), attack="null models")


def _revoked(made: Guarded, count: int = 10) -> list[Row]:
    """Return how many revoked users the next file refuses, and how many others it still opens for."""
    gone = list(made.credentials)[:count]
    locked = made.locked
    for user in gone:
        locked = made.method.revoke(locked, made.credentials[user])
    stay = list(made.credentials)[count : 2 * count]
    opens = {user: _opens(made.method, locked, made.credentials[user]) for user in (*gone, *stay)}
    rows = [rate("revoked_refused", sum(not opens[user] for user in gone), len(gone))]
    return [*rows, rate("others_open", sum(opens[user] for user in stay), len(stay))] if stay else rows


def _opens(method: ActiveGuard, locked: nn.Module, credential: Key) -> bool:
    """Return whether a credential opens a file."""
    try:
        method.unlock(locked, credential)
    except ModelwardError:
        return False
    return True


def _left(made: Guarded, net: nn.Module, test: ImageSet, attack: str, budget: str) -> list[Row]:
    """Return what a network still has of every user's windows, probes and classes, and of the owner's bits."""
    answers, roster = made.answers(net), made.roster
    classes = answers.argmax(2) == roster.windows[:, :, 0].long()
    whole = roster.fits(answers).diagonal()
    each = torch.stack([Roster(roster.users, roster.windows[:, [j]]).fits(answers[:, [j]]).diagonal() for j in range(classes.shape[1])])
    count = int(made.key.fact(dict, "watermark")["bits"])
    wrong = round(made.method.verify_owner(net, made.key).statistic * count)
    told: dict[str, Any] = {"attack": attack, "budget": budget}
    return [
        rate("accuracy", _right(net, test), len(test), **told), rate("windows", int(whole.sum()), len(whole), **told),
        rate("probes_in_window", int(each.sum()), each.numel(), **told), rate("classes", int(classes.sum()), classes.numel(), **told),
        rate("bit_errors", wrong, count, **told),
    ]  # fmt: skip
