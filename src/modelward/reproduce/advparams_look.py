"""Work of the recipe `advparams`: which entries of a lock each thief takes for moved, beside who flags as many blindly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from modelward.attacks.theft.fill_outliers import outlyingness
from modelward.attacks.theft.filling import Filling
from modelward.attacks.theft.nearest_sibling import foremost
from modelward.attacks.theft.undoing import bench
from modelward.core.catalogue import find
from modelward.core.families import TheftMethod
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.core.view import AttackerView
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_key, get_model
from modelward.evaluation.rows import Row, rate
from modelward.marking.saliency import bits_of, lockable

OUTLIERS = "fill-outliers"
Flags = Mapping[str, Tensor]


def look(job: Job) -> Outcome:
    """Count what thieves find of a lock. Settings: ``finders``, names with their fields. Inputs: ``locked``, ``attacker``."""
    torch.set_num_threads(job.threads)
    locked, key = get_model(job.store, job.inputs["locked"]), get_key(job.store, job.inputs["locked"])
    view = AttackerView.of_model(locked, get_images(job.store, job.inputs["attacker"]))
    rows = []
    for name, fields in job.settings["finders"]:
        rng = generator(derive_seed(job.seed, "look", name))
        rows.append(_row(name, flags_of(name, fields, locked, view, share=_share(locked, key), rng=rng), locked, key))
    return Outcome([row.as_json() for row in rows])


def _share(locked: nn.Module, key: Key) -> float:
    """Return which share of all entries was moved; a thief who ranks is told it."""
    return key.fact(float, "entries") / sum(tensor.numel() for tensor in lockable(locked, statistics=False).values())


def flags_of(
    name: str, fields: Mapping[str, object], locked: nn.Module, view: AttackerView, *, share: float, rng: torch.Generator
) -> Flags:
    """Return which entries a thief takes for moved: what he says, or what differs in his copy; bool (n,) by tensor."""
    if name == OUTLIERS:
        return foremost({known: outlyingness(tensor) for known, tensor in lockable(locked, statistics=False).items()}, share)
    method = find(name).configured(dict(fields))
    if isinstance(method, Filling):
        return method.flags(bench(view, images=method.images, norms=False), view, rng=rng)
    if not isinstance(method, TheftMethod):
        raise TypeError(name)
    after, before = (lockable(model, statistics=False) for model in (method.steal(view, rng=rng).model, locked))
    return {known: bits_of(after[known]).ne(bits_of(before[known])).any(1) for known in before}


def _row(name: str, flags: Flags, locked: nn.Module, key: Key) -> Row:
    """Return how many of the moved entries were flagged, and the chance of that."""
    moved = {known: key.tensor(f"index/{number}") for number, known in enumerate(key.fact(list, "names"))}
    hits, chance = found_by_chance(flags, moved)
    flagged = sum(int(found.sum()) for found in flags.values())
    sizes = {known: tensor.numel() for known, tensor in lockable(locked, statistics=True).items()}
    expected = sum(int(flags[known].sum()) * len(where) / sizes[known] for known, where in moved.items() if known in flags)
    return rate(
        "found", hits, int(key.fact(float, "entries")), attack=name, extra={"flagged": flagged, "expected": expected, "chance": chance}
    )


def found_by_chance(flags: Flags, moved: Mapping[str, Tensor]) -> tuple[int, float]:
    """Return how many of the ``moved`` places are flagged, and the chance that as many blind flags in each tensor hit as many at least.

    Exact: the number of hits is a sum of independent hypergeometric counts, one a tensor.

    >>> hits, chance = found_by_chance({"w": torch.tensor([True, True, False, False])}, {"w": torch.tensor([0, 1])})
    >>> hits, round(chance, 3)
    (2, 0.167)
    """
    from scipy.stats import hypergeom

    hits, counts = 0, np.ones(1)
    for name, where in moved.items():
        if name in flags and len(where):
            flagged = int(flags[name].sum())
            hits += int(flags[name][where].sum())
            known = np.arange(min(len(where), flagged) + 1)
            counts = np.convolve(counts, hypergeom.pmf(known, len(flags[name]), len(where), flagged))
    return hits, float(min(1.0, counts[hits:].sum()))
