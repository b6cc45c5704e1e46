"""Work of the recipe `advparams`: how far a lock is climbed, what parts of its key open, what two builds and odd values give away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelward.attacks.theft.fill_outliers import outlyingness
from modelward.core.errors import ModelwardError
from modelward.core.guard import predict, private_copy
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_key, get_model, pack_key, pack_model
from modelward.evaluation.rows import Row, from_interval, rate
from modelward.evaluation.store import Store
from modelward.locks.advparams import AdvParams, outliers
from modelward.marking.saliency import band, bits_of, lockable, put_bits
from modelward.statistics import auc_delong

DRAWS = 5
FRACTIONS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def _rate(metric: str, model: nn.Module, test: ImageSet, **rest: Any) -> Row:
    """Return the accuracy of ``model`` as a row."""
    right = predict(model, test.pixels).argmax(1) == test.labels
    return rate(metric, int(right.sum()), len(test), data=test.name, **rest)


def _positions(key: Key) -> dict[str, Tensor]:
    """Return the places that a key speaks of, by tensor."""
    return {name: key.tensor(f"index/{number}") for number, name in enumerate(key.fact(list, "names"))}


def climb(job: Job) -> Outcome:
    """Lock with the largest budget; the artefact holds the locked model and the order of its moves. Settings: ``fields``."""
    torch.set_num_threads(job.threads)
    method, victim = AdvParams.configured(dict(job.settings["fields"])), get_model(job.store, job.inputs["victim"])
    made = method.trail(victim, get_images(job.store, job.inputs["owner"]), rng=generator(job.seed))
    names = sorted({move.name for move in made.moves})
    order = np.array([[names.index(move.name), move.place] for move in made.moves], dtype=np.int64)
    packed = pack_model(made.locked, {"names": json.dumps(names)})
    return Outcome(arrays={**packed.arrays, "key/order": order}, facts=packed.facts)


def cut(job: Job) -> Outcome:
    """Return the lock after its first moves: what the budget ``share`` of all parameters would have made. Settings: ``fields``, ``share``."""
    torch.set_num_threads(job.threads)
    method = AdvParams.configured({**job.settings["fields"], "share": job.settings["share"]})
    victim, top = get_model(job.store, job.inputs["victim"]), get_model(job.store, job.inputs["climb"])
    arrays, facts = Store(job.store).get(job.inputs["climb"])
    names, order = json.loads(facts["names"]), torch.from_numpy(arrays["key/order"].copy())
    locked = private_copy(victim)
    after, ends = lockable(locked, statistics=True), lockable(top, statistics=True)
    budget = method.budget(victim)
    for number, name in enumerate(names):
        mine = order[:budget][order[:budget, 0] == number, 1]
        put_bits(after[name], mine, bits_of(ends[name])[mine])
    key, test = method.key_of(victim, locked.eval()), get_images(job.store, job.inputs["test"])
    packed = pack_key(key, locked)
    return Outcome([_rate("unauthorised", locked, test).as_json(), *_count_rows(victim, locked, key, method)], packed.arrays, packed.facts)


def inspect(job: Job) -> Outcome:
    """Count what a lock changed, try its moves at random places, see what sticks out, and open it with parts of the key.

    Settings: ``fields``. Inputs: ``victim``, ``locked``, ``test``.
    """
    torch.set_num_threads(job.threads)
    method, key = AdvParams.configured(dict(job.settings["fields"])), get_key(job.store, job.inputs["locked"])
    victim, locked = (get_model(job.store, job.inputs[name]) for name in ("victim", "locked"))
    test = get_images(job.store, job.inputs["test"])
    rows = [
        *_controls(victim, locked, key, test, job.seed),
        *_outliers(victim, key, "original"),
        *_outliers(locked, key, "locked"),
        *_partial(method, locked, key, test, job.seed),
    ]
    return Outcome([*_count_rows(victim, locked, key, method), *(row.as_json() for row in rows)])


def _count_rows(victim: nn.Module, locked: nn.Module, key: Key, method: AdvParams) -> list[dict[str, Any]]:
    """Return how many entries were changed, of how many, and how many of them lie inside the band of the original tensor."""
    before, after, inside = lockable(victim, statistics=True), lockable(locked, statistics=True), 0
    for name, places in _positions(key).items():
        inset = method.inset if method.variant == "paper" or (method.landing == "edge" and before[name].ndim >= 2) else 0.0
        low, high = band(before[name], inset)
        values = after[name].detach().reshape(-1)[places]
        inside += int(((values >= low) & (values <= high)).sum())
    entries, changed = int(key.fact(float, "entries")), _changed(before, after)
    total = sum(parameter.numel() for parameter in victim.parameters())
    return [
        rate("inside_band", inside, entries).as_json(),
        Row(metric="entries", value=entries, n=1, unit="entries", extra={"changed": changed, "share": entries / total}).as_json(),
    ]


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> int:
    """Return how many entries differ in their bits."""
    return sum(int(bits_of(before[name]).ne(bits_of(after[name])).any(1).sum()) for name in before)


def _controls(victim: nn.Module, locked: nn.Module, key: Key, test: ImageSet, seed: int) -> list[Row]:
    """Return the accuracy with the same moves at random places, one row a draw: anywhere in the network, and within the same tensors."""
    rows = []
    for draw in range(DRAWS):
        for metric, anywhere in (("random_places", True), ("random_places_same_tensors", False)):
            moved = _scattered(victim, locked, key, anywhere=anywhere, rng=generator(derive_seed(seed, "control", metric, draw)))
            rows.append(_rate(metric, moved, test, extra={"draw": draw}))
    return rows


def _scattered(victim: nn.Module, locked: nn.Module, key: Key, *, anywhere: bool, rng: torch.Generator) -> nn.Module:
    """Return ``victim`` with every move of a lock made at another place, drawn among all entries that the lock could have moved."""
    moved, ends = private_copy(victim).eval(), lockable(locked, statistics=True)
    tensors = {
        name: t for name, t in lockable(moved, statistics=key.variant == "hardened").items() if t.ndim >= 2 or key.variant == "hardened"
    }
    flats = {name: tensor.detach().view(-1) for name, tensor in tensors.items()}
    moves = {name: (ends[name].detach().reshape(-1) - flats[name])[places] for name, places in _positions(key).items()}
    if anywhere:
        everything, every = torch.cat(list(flats.values())), torch.cat(list(moves.values()))
        everything[torch.randperm(len(everything), generator=rng)[: len(every)]] += every
        for flat, part in zip(flats.values(), everything.split([len(flat) for flat in flats.values()]), strict=True):
            flat.copy_(part)
    else:
        for name, delta in moves.items():
            flats[name][torch.randperm(len(flats[name]), generator=rng)[: len(delta)]] += delta
    for name, flat in flats.items():
        if name.endswith("running_var"):
            flat.clamp_(min=0)  # a variance below 0 would make NaN, not errors
    return moved


def _outliers(model: nn.Module, key: Key, what: str) -> list[Row]:
    """Return how well the entries of the key are told from all others by how far they stick out of their tensor."""
    mine, rest = outliers(model, key)
    extra = {"median": float(np.median(mine)), "largest": float(mine.max()), "largest of the others": float(rest.max())}
    return [from_interval("outlier_auc", auc_delong(mine, rest), attack=what, unit="auc", extra=extra)]


def _partial(method: AdvParams, locked: nn.Module, key: Key, test: ImageSet, seed: int) -> list[Row]:
    """Return the accuracy over the share of the entries that are known, and how many wrong keys are refused."""
    whole, rows = int(key.fact(float, "entries")), []
    for fraction in FRACTIONS:
        for draw in range(1 if fraction in {0.0, 1.0} else DRAWS):
            rng = generator(derive_seed(seed, "partial", fraction, draw))
            known = torch.zeros(whole, dtype=torch.bool)
            known[torch.randperm(whole, generator=rng)[: min(round(fraction * whole), whole - (fraction < 1))]] = True
            opened, start = private_copy(locked).eval(), 0
            state = opened.state_dict()
            for number, (name, places) in enumerate(_positions(key).items()):
                mine, start = known[start : start + len(places)], start + len(places)
                put_bits(state[name], places[mine], key.tensor(f"bits/{number}")[mine])
            rows.append(_rate("partial_key", opened, test, budget=f"{fraction:g}", extra={"draw": draw, "entries": int(known.sum())}))
    number = max(range(len(key.fact(list, "names"))), key=lambda n: len(key.tensor(f"index/{n}")))
    index, bits = f"index/{number}", f"bits/{number}"
    wrong = {
        "one entry missing": {index: key.tensor(index)[1:], bits: key.tensor(bits)[1:]},
        "entries shuffled": {bits: key.tensor(bits).roll(1, 0)},
    }
    refused = {what: _refused(method, locked, replace(key, tensors={**key.tensors, **tensors})) for what, tensors in wrong.items()}
    refused["key of another build"] = _refused(method, locked, replace(key, model_digest="0" * 64))
    return rows + [rate("refused", int(held), 1, attack=what) for what, held in refused.items()]


def _refused(method: AdvParams, locked: nn.Module, key: Key) -> bool:
    """Return whether a key opens nothing."""
    try:
        method.unlock(locked, key)
    except ModelwardError:
        return True
    return False


def differential(job: Job) -> Outcome:
    """Compare two builds of one model without any key, and put together what differs. Inputs: ``victim``, ``first``, ``second``, ``test``."""
    torch.set_num_threads(job.threads)
    first, second = (get_model(job.store, job.inputs[name]) for name in ("first", "second"))
    keys = [_positions(get_key(job.store, job.inputs[name])) for name in ("first", "second")]
    test, merged = get_images(job.store, job.inputs["test"]), private_copy(first).eval()
    told = {name: {int(j) for j in torch.nonzero(_differ(first, second, name)).flatten()} for name in lockable(first, statistics=True)}
    pairs = [{(name, int(j)) for name, places in key.items() for j in places} for key in keys]
    known = {(name, j) for name, places in told.items() for j in places}
    _merge(merged, second, told)
    rows = [
        rate("overlap", len(pairs[0] & pairs[1]), len(pairs[0])),
        rate("revealed", len(known & pairs[0]), len(pairs[0])),
        rate("revealed_unshared", len(known & (pairs[0] ^ pairs[1])), len(pairs[0] ^ pairs[1])),
        rate("false_alarms", len(known - (pairs[0] | pairs[1])), max(1, len(known))),
        _rate("recovered", merged, test, attack="two builds merged"),
        _rate("cross_key", _crossed(first, get_key(job.store, job.inputs["second"])), test),
    ]
    return Outcome([row.as_json() for row in rows])


def _differ(first: nn.Module, second: nn.Module, name: str) -> Tensor:
    """Return which entries of a tensor differ between two builds (n,)."""
    one, other = (bits_of(lockable(model, statistics=True)[name]) for model in (first, second))
    return one.ne(other).any(1)


def _merge(merged: nn.Module, second: nn.Module, told: Mapping[str, set[int]]) -> None:
    """Give every differing entry of ``merged``, in place, that of the two values which sticks out less."""
    others = lockable(second, statistics=True)
    for name, tensor in lockable(merged, statistics=True).items():
        places = sorted(told[name])
        if places:
            mine, theirs = outlyingness(tensor)[places], outlyingness(others[name])[places]
            flat, rival = tensor.detach().view(-1), others[name].detach().reshape(-1)
            flat[places] = torch.where(theirs < mine, rival[places], flat[places])


def _crossed(locked: nn.Module, key: Key) -> nn.Module:
    """Return a build with the entries of another build's key put in, without any check."""
    opened = private_copy(locked).eval()
    state = opened.state_dict()
    for number, (name, places) in enumerate(_positions(key).items()):
        put_bits(state[name], places, key.tensor(f"bits/{number}"))
    return opened
