"""Which classes of a model are reached through a trigger that is too small: one search for all classes, and how far each is from the others."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError, UsageError
from modelward.core.guard import frozen, predict
from modelward.core.images import ImageSet
from modelward.core.rng import generator, spawn
from modelward.marking.inversion import Inversion, Search
from modelward.marking.triggers import Triggers, latent, make_triggers

SPREAD = 0.25  # log sizes of ordinary classes differ by that at least: ten classes give a noisy median deviation
ROOM = 2**23  # pixels that are optimised at once
PERMUTATIONS = 999
PICTURES = 16  # latent points that a picture is the mean of


def anomaly_index(sizes: Tensor, *, scale: str = "log") -> Tensor:
    r"""Return how far below the median each size (..., K) lies, in robust standard deviations: (median - s) / (1.4826 MAD).

    ``scale="linear"`` is the index of Neural Cleanse and of the paper. ``scale="log"`` takes logarithms first and lets the MAD be no less than
    .25: sizes differ by factors, and a MAD of ten classes is sometimes next to nothing. Two deviations are then a mask less than half as
    large as usual. A size that is infinite, of a class that was not reached, takes no part; of fewer than three sizes nothing is said (NaN).

    Examples
    --------
    >>> anomaly_index(torch.tensor([50.0, 60.0, 40.0, 55.0, 45.0, 10.0])).argmax().item()
    5
    >>> anomaly_index(torch.tensor([50.0, 10.0])).isnan().all().item()
    True
    """
    values = sizes.log() if scale == "log" else sizes
    values = torch.where(values.isfinite(), values, math.nan)
    if bool((values.isfinite().sum(-1) < 3).any()):
        return torch.full_like(sizes, math.nan)
    middle = values.nanquantile(0.5, -1, keepdim=True)
    deviation = (values - middle).abs().nanquantile(0.5, -1, keepdim=True)
    deviation = deviation.clamp_min(SPREAD) if scale == "log" else deviation.clamp_min(1e-6)
    index: Tensor = (middle - values) / (1.4826 * deviation)
    return index


@dataclass(frozen=True, eq=False)
class ScanReport:
    """What a scan found, one entry a scanned class.

    Parameters
    ----------
    classes, names
        class numbers, and their names; an output without a name is called by its number.
    sizes
        (k,) mean number of pixels that a trigger covers, over restarts; infinite where none reached its class.
    success
        (k,) share of the images of other classes that go there under the trigger, in [0, 1].
    masks, patterns
        (k, 1, H, W) and (k, C, H, W) in [0, 1], of the smallest restart.
    anomaly
        (k,) see `anomaly_index`.
    p
        (k,) share of the rearrangements of all restarts among the classes that give an index as large; NaN with one restart. It says that a class is
        small again and again, not why.
    flagged
        class numbers, the most anomalous first.
    triggers
        the searched triggers, one a class, for `stamped`.
    """

    classes: tuple[int, ...]
    names: tuple[str, ...]
    sizes: Tensor
    success: Tensor
    masks: Tensor
    patterns: Tensor
    anomaly: Tensor
    p: Tensor
    flagged: tuple[int, ...]
    triggers: Triggers

    def suspicious(self, count: int) -> tuple[int, ...]:
        """Return the ``count`` classes with the smallest triggers that reach their class, whether flagged or not."""
        order = [int(i) for i in self.sizes.argsort(stable=True) if self.sizes[i].isfinite()]
        return tuple(self.classes[i] for i in order[:count])

    @torch.no_grad()
    def stamped(self, x: Tensor, target: int, *, rng: torch.Generator) -> Tensor:
        """Return float images (N, C, H, W) under a draw of the trigger of class ``target``."""
        one = copy.deepcopy(self.triggers)
        one.keep(torch.tensor([self.classes.index(target)]))
        changed: Tensor = one(x[None], latent(1, 1, rng=rng))[0][0]
        return changed


def scan(
    model: nn.Module,
    images: ImageSet,
    *,
    plan: Inversion | None = None,
    classes: Sequence[int] | None = None,
    restarts: int = 2,
    screen: int = 0,
    gate: float = 2.0,
    success: float = 0.9,
    scale: str = "log",
    rng: torch.Generator,
) -> ScanReport:
    """Search a small trigger for every class of ``model``, and flag the classes whose trigger is far smaller than the others'.

    Parameters
    ----------
    model
        image batch -> logits; left as it is.
    images
        a few hundred clean images; their labels are not read.
    plan
        how triggers are searched for; by default by a generator with a critic.
    classes
        which outputs to scan; by default all, those without a name among them.
    restarts
        searches a class; from two on there is a p-value.
    screen
        0: search for all classes to the end. Else: after so many steps go on with the three smallest and two others, drawn; the rest keeps the size that
        it has and takes no part in the index.
    gate
        a class is flagged when its index is larger than this.
    success
        share of images that a trigger must send to its class to count.
    scale
        of the index, ``"log"`` or ``"linear"``.

    Raises
    ------
    InputError
        when there are no images, or the model has fewer than three outputs to compare.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> found = scan(embedded_model().model, load_data("fashion-mini").test.take(slice(40)), restarts=1, screen=20, rng=generator(0))
    >>> found.masks.shape, found.flagged
    (torch.Size([10, 1, 28, 28]), ())
    """
    if scale not in {"log", "linear"} or restarts < 1 or screen < 0:
        message = f"a scan has scale 'log' or 'linear', restarts >= 1 and screen >= 0, got {scale!r}, {restarts} and {screen}"
        raise UsageError(message)
    plan = plan or Inversion()
    x = images.batch(slice(None))
    logits = predict(model, x)
    chosen = torch.tensor(sorted(set(range(logits.shape[1]) if classes is None else classes)))
    if len(chosen) < 3 or int(chosen.min()) < 0 or int(chosen.max()) >= logits.shape[1]:
        message = f"a scan compares three classes at least, of the {logits.shape[1]} that the model has; got {chosen.tolist()}"
        raise InputError(message)
    with frozen(model):
        found = _search(model, x, logits.argmax(1), chosen.repeat(restarts), plan, screen, rng)
        rates = _rates(model, x, logits.argmax(1), chosen.repeat(restarts), found.triggers, rng)
    sizes = torch.where((rates >= success) & found.finished, found.sizes, math.inf).view(restarts, -1)
    best = torch.where(rates >= success, found.sizes, found.sizes + 1e9).view(restarts, -1).nan_to_num(posinf=1e12).argmin(0)
    kept = best * len(chosen) + torch.arange(len(chosen))
    found.triggers.keep(kept)
    masks, patterns = found.triggers.pictures(latent(len(chosen), PICTURES, rng=rng))
    means = _means(sizes)
    anomaly = anomaly_index(means, scale=scale)
    order = [int(i) for i in anomaly.nan_to_num(-math.inf).argsort(descending=True, stable=True)]
    return ScanReport(
        classes=tuple(chosen.tolist()), names=tuple(images.classes[c] if c < len(images.classes) else str(c) for c in chosen.tolist()),
        sizes=means, success=rates[kept], masks=masks, patterns=patterns, anomaly=anomaly, p=_permuted(sizes, anomaly, scale, rng),
        flagged=tuple(int(chosen[i]) for i in order if anomaly[i] > gate), triggers=found.triggers,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Found:
    """All triggers of all restarts, their sizes (R,), infinite where the class was never reached, and which were searched for to the end."""

    triggers: Triggers
    sizes: Tensor
    finished: Tensor


def _search(
    model: nn.Module, x: Tensor, answers: Tensor, targets: Tensor, plan: Inversion, screen: int, rng: torch.Generator
) -> _Found:  # fmt: skip
    """Search for all triggers, as many at once as there is room for."""
    blocks = torch.arange(len(targets)).split(max(1, ROOM // (plan.batch * x[0].numel())))
    searches = [Search(model, x, answers, targets[block], plan, rng=generator(spawn(rng))) for block in blocks]
    for search in searches:
        search.advance(min(screen, plan.steps) or plan.steps)
    sizes = torch.cat([search.best for search in searches])
    whole = make_triggers(plan.kind, len(targets), (x.shape[1], x.shape[2], x.shape[3]), rng=rng).requires_grad_(False)
    finished = torch.ones(len(targets), dtype=torch.bool)
    if 0 < screen < plan.steps:
        finished = _promising(sizes, targets, rng)
    for block, search in zip(blocks, searches, strict=True):
        chosen = finished[block]
        whole.put(block[~chosen], _part(search.triggers, ~chosen))
        if bool(chosen.any()):
            search.keep(torch.nonzero(chosen).flatten())
            search.advance(plan.steps - search.taken if screen else 0)
            whole.put(block[chosen], search.settle())
            sizes[block[chosen]] = search.best
    return _Found(whole, sizes, finished)


def _part(triggers: Triggers, chosen: Tensor) -> Triggers:
    """Return a copy of some triggers."""
    made = copy.deepcopy(triggers)
    made.keep(torch.nonzero(chosen).flatten())
    return made


def _promising(sizes: Tensor, targets: Tensor, rng: torch.Generator) -> Tensor:
    """Return which triggers go on after the screening (R,): those of the three smallest classes, and of two others."""
    known = targets.unique()
    means = _means(torch.stack([sizes[targets == c] for c in known], dim=1))
    order = means.argsort(stable=True)
    others = order[3:][torch.randperm(max(0, len(order) - 3), generator=rng)[:2]]
    return torch.isin(targets, known[torch.cat([order[:3], others])])


def _means(sizes: Tensor) -> Tensor:
    """Return the geometric means (K,) of the finite sizes of each column of (R, K); infinite where none is."""
    reached = sizes.isfinite()
    total = torch.where(reached, sizes, 1.0).log().sum(0)
    return torch.where(reached.any(0), (total / reached.sum(0).clamp_min(1)).exp(), math.inf)


@torch.no_grad()
def _rates(model: nn.Module, x: Tensor, answers: Tensor, targets: Tensor, triggers: Triggers, rng: torch.Generator) -> Tensor:
    """Return the share (R,) of the images of other classes that each trigger sends to its class."""
    made = []
    for place, target in enumerate(targets.tolist()):
        foreign = x[answers != target]
        one = _part(triggers, torch.arange(len(targets)) == place)
        changed = one(foreign[None], latent(1, 1, rng=rng))[0][0]
        made.append(float((predict(model, changed).argmax(1) == target).float().mean()) if len(foreign) else 0.0)
    return torch.tensor(made)


def _permuted(sizes: Tensor, anomaly: Tensor, scale: str, rng: torch.Generator) -> Tensor:
    """Return the p-value (K,) of each index against the largest index after dealing the sizes of all restarts (R, K) out anew."""
    known = sizes.isfinite().all(0)
    if len(sizes) < 2 or int(known.sum()) < 3:
        return torch.full_like(anomaly, math.nan)
    values = sizes[:, known].flatten()
    dealt = torch.stack([values[torch.randperm(len(values), generator=rng)] for _ in range(PERMUTATIONS)]).view(
        PERMUTATIONS, len(sizes), -1
    )
    largest = anomaly_index(dealt.log().mean(1).exp(), scale=scale).amax(1)
    p = (1 + (largest[:, None] >= anomaly[None]).sum(0)) / (1 + PERMUTATIONS)
    return torch.where(anomaly.isfinite(), p, math.nan)
