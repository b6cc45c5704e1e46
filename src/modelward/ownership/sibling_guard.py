"""Guards against siblings that were not trained as the owner's model was, or are copies. They catch gross errors, and show no exchangeability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.errors import FormatError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY

LEVEL = 0.01
BINS = 10
MOST = 2000  # images a figure, at most
SAME = 1e-6
FAR, OUTLYING = 4.0, 3.5  # a pair is too near at a quarter of the usual distance, or that much further out than the nearest tenth
BARELY = 0.01  # of their spread: logits of models that were trained each by itself differ by more
NEEDED = 256
CLASSES = 10  # shares of classes are looked at where there are no more: each further figure makes all of them tell less
UNCALIBRATED = (
    "Uncalibrated: the siblings were not trained as your model was ({what}: {mine:.4g} against {mean:.4g} +- {sd:.2g} of the siblings)."
)
COLLAPSED = (
    "Where training collapses now and then, the function that trains siblings has to do what was done for the model: train again, and return what "
    "would have been released."
)
ALL_ALIKE = "Near copies: the logits of two candidates differ by {apart:.2g} of their spread; draws are trained each by itself."


@dataclass(frozen=True)
class Figures:
    """Right answers of n for each set of images; mean confidence and calibration error on the probes."""

    right: Mapping[str, tuple[int, int]]
    confidence: float
    error: float
    chance: float

    @classmethod
    def of(cls, member: Any) -> Figures:
        """Read the figures of a candidate back from a key; raises `FormatError` when they make no sense."""
        try:
            told = member["figures"]
            right = {str(name): (int(pair[0]), int(pair[1])) for name, pair in told["right"].items()}
            found = cls(right, float(told["confidence"]), float(told["error"]), float(told["chance"]))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            message = f"a sibling of this key has no figures: {REMEDY}"
            raise FormatError(message) from error
        counts = all(0 <= hits <= n and 0 < n <= 2**53 for hits, n in right.values())
        if not counts or not all(map(math.isfinite, (found.confidence, found.error, found.chance))):
            message = f"the figures of a sibling of this key make no sense: {REMEDY}"
            raise FormatError(message)
        return found

    def values(self) -> dict[str, float]:
        """Return the five figures on scales that are near to normal: accuracies as logits with half a case added."""
        found = {f"accuracy on {name}": math.log((hits + 0.5) / (n - hits + 0.5)) for name, (hits, n) in self.right.items()}
        return {**found, "mean confidence": self.confidence, "calibration error": self.error}


def figures_of(model: nn.Module, sets: Mapping[str, ImageSet | None]) -> dict[str, Any]:
    """Return a candidate's figures as JSON values: right answers on each set that is there, and confidence and calibration on the probes."""
    right = dict[str, list[int]]()
    confidence, error, chance = 0.0, 0.0, 0.0
    for name, images in sets.items():
        if images is None:
            continue
        part = images.few(MOST)
        top, answers = predict(model, part.pixels).softmax(1).max(1)
        hits = answers == part.labels
        right[name] = [int(hits.sum()), len(part)]
        if name == "probes":
            confidence, error, chance = float(top.double().mean()), calibration_error(top, hits), 1 / max(1, len(part.classes))
    return {"right": right, "confidence": confidence, "error": error, "chance": chance}


def calibration_error(top: Tensor, hits: Tensor) -> float:
    """Return the expected calibration error of largest probabilities (n,) and right answers (n,), over ten bins of equal width.

    >>> calibration_error(torch.tensor([0.8, 0.8]), torch.tensor([True, False]))
    0.3
    """
    total, place = 0.0, (top * BINS).long().clamp(max=BINS - 1)
    for one in place.unique():
        among = place == one
        total += float((top[among].double().mean() - hits[among].double().mean()).abs()) * float(among.double().mean())
    return round(total, 6)


def behaviour(tensors: Mapping[str, Tensor], count: int) -> list[dict[str, float]]:
    """Return further figures of every candidate, from what a key holds of each: size of its answers, maps or weights, and confidence on the probes.

    A quirk that shows on the method's own probes alone, such as answers that are too sure, is seen here and nowhere else.

    Parameters
    ----------
    tensors
        of a key; those in floating point with one entry a candidate are looked at.
    count
        number of candidates, m + 1.
    """
    found: list[dict[str, float]] = [{} for _ in range(count)]
    for name, tensor in sorted(tensors.items()):
        if not tensor.is_floating_point() or tensor.ndim < 2 or len(tensor) != count or name == "clean_answers":
            continue
        values = {f"size of {name}": tensor.double().flatten(1).square().mean(1).clamp_min(1e-300).log()}
        if name == "answers" and tensor.ndim == 3:
            values = _on_probes(tensor, tensors.get("labels"))
        _enter(found, values)
    if "clean_answers" in tensors and len(tensors["clean_answers"]) == count:
        _enter(found, {"distance to the others": _to_others(tensors["clean_answers"])})
    return found


def _on_probes(answers: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Return figures (m + 1,) of logits (m + 1, n, K) on the method's own probes, by name; ``labels`` (n,) where the probes have such."""
    logp = answers.double().log_softmax(2)
    top, label = logp.exp().max(2)
    found = {
        "confidence": top.mean(1), "share of the commonest answer": _share(label, label.mode(0).values),
        "entropy": -(logp.exp() * logp).sum(2).mean(1), "distance to the others": _to_others(answers),
    }  # fmt: skip
    if answers.shape[2] <= CLASSES:
        each = logp.exp().mean(1).clamp(1e-9, 1 - 1e-9).logit()
        found |= {f"share of class {number}": each[:, number] for number in range(answers.shape[2])}
    if labels is not None and labels.shape == label.shape[1:]:
        found["accuracy"] = _share(label, labels)
    return {f"{what} on the method's probes": value for what, value in found.items()}


def _to_others(answers: Tensor) -> Tensor:
    """Return how far each candidate's probabilities are from those of all others (m + 1,), as a logarithm: what siblings share, and the owner lacks, shows."""
    soft = answers.double().softmax(-1).flatten(1)
    return torch.cdist(soft, soft, p=1).sum(1).clamp_min(1e-300).log()


def _enter(rows: Sequence[dict[str, float]], values: Mapping[str, Tensor]) -> None:
    """Enter figures (m + 1,) by name into the rows of the candidates."""
    for what, each in values.items():
        for row, value in zip(rows, each.tolist(), strict=True):
            row[what] = value


def _share(labels: Tensor, wanted: Tensor) -> Tensor:
    """Return how often each candidate's labels (m + 1, n) are those that are wanted (n,), as a logit with half a case added."""
    hits = (labels == wanted).double().sum(1)
    return ((hits + 0.5) / (labels.shape[1] - hits + 0.5)).log()


def odd_one_out(rows: Sequence[Mapping[str, float]], own: int, *, level: float = LEVEL) -> list[str]:
    r"""Return why the owner's model is not one of its siblings: :math:`t = |x - \bar s| / (sd \sqrt{1 + 1/m})`, Holm's procedure at ``level``.

    ``rows``: the figures of every candidate by name; those that all have are compared.
    """
    from scipy.special import stdtr

    count = len(rows) - 1
    if count < 2:
        return []
    found = []
    for name in set.intersection(*(set(row) for row in rows)):
        others = torch.tensor([row[name] for place, row in enumerate(rows) if place != own], dtype=torch.float64)
        mean, sd, mine = float(others.mean()), float(others.std()), rows[own][name]
        away = abs(mine - mean)
        t = 0.0 if away < 1e-9 else away / max(sd, 1e-12) / math.sqrt(1 + 1 / count)
        found.append((2 * float(stdtr(count - 1, -t)), name, mine, mean, sd))
    found.sort()
    worst = next(iter(found), None)  # Holm: if the smallest p does not pass at level / k, none does
    if worst is None or not worst[0] <= level / len(found):
        return []
    return [UNCALIBRATED.format(what=worst[1], mine=worst[2], mean=worst[3], sd=worst[4])]


def useless(figures: Sequence[Figures], own: int) -> list[str]:
    """Return why some siblings are no draws: their accuracy is below chance + half of (the owner's - chance)."""
    source = _accuracy(figures[own])
    least = figures[own].chance + (source - figures[own].chance) / 2
    weak = sum(_accuracy(one) < least for one in figures)
    if not weak:
        return []
    missing = _missing(len(figures) - 1 - weak)
    return [f"{weak} of the {len(figures) - 1} siblings answer fewer than {least:.0%} of the images rightly: {missing}. {COLLAPSED}"]


def _accuracy(one: Figures) -> float:
    """Return the accuracy on images that nobody trained on."""
    hits, n = (sum(pair[i] for name, pair in one.right.items() if name != "trained on") for i in (0, 1))
    return hits / max(1, n)


def near_copies(members: Sequence[Mapping[str, Any]], answers: Tensor, own: int) -> list[str]:
    """Return why candidates are too alike to be draws: equal digests, equal answers, one pair much nearer than pairs usually are, or all of them."""
    if len({str(member.get("digest")) for member in members}) < len(members):
        return ["Some siblings have the same weights: they are not draws of their own."]
    soft = answers.double().softmax(2).flatten(1)
    away = torch.cdist(soft, soft, p=1) / answers.shape[1]
    upper = away[tuple(torch.triu_indices(len(soft), len(soft), 1))]
    same = sum(bool((torch.tril(away, -1)[place, :place] < SAME).any()) for place in range(len(soft)))
    if same:
        left = len(soft) - 1 - same
        return [f"{same} of the {len(soft) - 1} siblings answer exactly as another one: {_missing(left)}."]
    if len(soft) < 3:
        return []
    others = torch.cat([away[own, :own], away[own, own + 1 :]])
    usual = max(
        float(upper.median()), float(others.median()) / 2
    )  # nineteen copies of one sibling are usual to each other, not to the owner's model
    low, nearest = max(float(upper.quantile(0.1)), 1e-300), float(upper.min())
    if nearest < usual / FAR or math.log(usual / nearest) > OUTLYING * abs(math.log(usual / low)):
        first, second = divmod(int((away + torch.diag(torch.full((len(soft),), torch.inf, dtype=away.dtype))).argmin()), len(soft))
        who = "a sibling and the owner's model" if own in {first, second} else "two siblings"
        return [f"Near copies: {who} answer {nearest:.3g} apart, siblings usually {usual:.3g}; draws are trained each by itself."]
    apart = _spread(answers)
    return [ALL_ALIKE.format(apart=apart)] if apart < BARELY else []


def _spread(answers: Tensor) -> float:
    """Return the median distance between two candidates' centred logits (m + 1, n, K), as a share of their usual length."""
    logits = answers.double()
    flat = (logits - logits.mean(2, keepdim=True)).flatten(1)
    upper = torch.cdist(flat, flat)[tuple(torch.triu_indices(len(flat), len(flat), 1))]
    return float(upper.median()) / max(float(flat.norm(dim=1).median()), 1e-300)


def _missing(left: int) -> str:
    """Return how many draws are left and missing."""
    from modelward.core.deciding import DRAWS

    return f"{left} are left, {DRAWS[0]} are needed" + (f", {DRAWS[0] - left} are missing" if left < DRAWS[0] else "")
