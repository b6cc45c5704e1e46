"""Fingerprints of labels: images crafted so that a copy answers them as the source does and a model of its own does not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from modelward.core import progress
from modelward.core.card import Capacity, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.deciding import Finding
from modelward.core.errors import InputError
from modelward.core.guard import frozen, predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.rng import generator, spawn
from modelward.core.suspect import Access, Suspect
from modelward.ownership.candidates import Candidates
from modelward.ownership.fingerprint import Fingerprint, Kit
from modelward.ownership.probes import MIN_PROBES

MATCHING = Taxonomy(
    Scenario.BLACK_BOX_LABEL, Mechanism.FINGERPRINT_ADVERSARIAL, capacity=Capacity.ZERO_BIT, protection=Protection.PASSIVE,
    functions=(Function.OWNERSHIP,),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Crafted:
    """Query images as uint8 (n, C, H, W), the positions of the images they were made from, and what is to be said of the making."""

    pixels: Tensor
    index: Tensor
    facts: dict[str, Any] = field(default_factory=dict)


def matching_rate(answers: Tensor, labels: Tensor) -> float:
    """Return the share of probes that a suspect gives the fingerprint's label, in [0, 1].

    Parameters
    ----------
    answers, labels
        int64 (n,).

    Raises
    ------
    InputError
        when there is not one answer a probe, or no probe.

    Examples
    --------
    >>> matching_rate(torch.tensor([1, 2, 0, 1]), torch.tensor([1, 2, 2, 2]))
    0.5
    """
    if answers.shape != labels.shape or not len(labels):
        message = f"{len(labels)} probes need as many labels, got {tuple(answers.shape)}"
        raise InputError(message)
    return float((answers == labels).double().mean())


def robustness_uniqueness(copies: ArrayLike, independents: ArrayLike) -> tuple[list[tuple[float, float, float]], float]:
    r"""Return the robustness-uniqueness curve of matching rates and the area under it (Cao, Jia, Gong, AsiaCCS 2021).

    At a threshold :math:`\tau` robustness R is the share of copies with a rate of at least :math:`\tau`, uniqueness U that of independent
    models below it; the area is :math:`\int_0^1 \min(R, U) \, d\tau`: 1 when copies answer all probes alike and strangers none, and .5 when
    one may put the threshold anywhere in half of the range.

    Parameters
    ----------
    copies, independents
        matching rates in [0, 1].

    Returns
    -------
    curve
        ``(threshold, robustness, uniqueness)`` at every rate that occurs, and at 1.
    area
        in [0, 1]; exact, since R and U change at those rates alone.

    Raises
    ------
    InputError
        for no rate on one side, or rates outside [0, 1].

    Examples
    --------
    >>> curve, area = robustness_uniqueness([1.0, 0.75], [0.25])
    >>> area, curve[0], curve[1]
    (0.625, (0.25, 1.0, 0.0), (0.75, 1.0, 1.0))
    """
    held, free = (np.asarray(rates, dtype=np.float64) for rates in (copies, independents))
    for rates in (held, free):
        if rates.ndim != 1 or not len(rates) or not bool(((rates >= 0) & (rates <= 1)).all()):
            raise InputError("matching rates are numbers in [0, 1], at least one for the copies and one for the independent models")
    points = np.unique(np.concatenate([held, free, [1.0]]))
    curve = [(float(tau), float((held >= tau).mean()), float((free < tau).mean())) for tau in points]
    # between two rates that occur, R and U are those of the upper one
    area = sum(min(r, u) * (tau - before) for (tau, r, u), before in zip(curve, [0.0, *points[:-1]], strict=True))
    return curve, float(area)


@dataclass(frozen=True, kw_only=True)
class MatchingMethod(Fingerprint):
    r"""Ask a suspect for the labels of crafted images; the statistic is :math:`1 - MR`, MR the share that has the candidate's label.

    Images are crafted for the source and for every sibling, by one procedure from the same start images, and the suspect is asked all of them: the
    p-value is the rank of the source's rate among the siblings'.

    ``variant="hardened"`` divides by what the tuning siblings leave, :math:`(1 - MR) / (1 - \overline{MR}_{tuning})`: points that every model of the
    family answers alike tell nothing. ``variant="paper"`` puts its threshold midway between the mean statistics of validation thieves and of null
    models; it stands beside the rank, and may only take claims away.

    Parameters
    ----------
    count
        number of probes a candidate.
    """

    needs: ClassVar[Access] = Access.LABEL

    count: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(count=(self.count >= MIN_PROBES, f">= {MIN_PROBES}"))

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return adversarial training, which moves the boundaries that the probes lie at, and the refusal of images that are out of the way."""
        return (
            Attack("ft-adversarial", {}, "true"),
            Attack("extract-adv"),
            Attack("detect-ood", {}, "none"),
            Attack("wrap-jpeg", {}, "none"),
        )

    @abstractmethod
    def _craft(self, model: nn.Module, data: ImageSet, references: Sequence[nn.Module], *, rng: torch.Generator) -> Crafted:
        """Return the probes of one candidate, 8-bit, the best first; ``model`` is frozen."""

    def _enrol(self, candidates: Candidates, data: ImageSet, *, rng: torch.Generator) -> Kit:
        seed, tuning = spawn(rng), candidates.family.tuning

        def crafted(model: nn.Module, references: Sequence[nn.Module]) -> Crafted:
            with frozen(model):
                made = self._craft(model, data, references, rng=generator(seed))  # the same draws for every candidate
            if len(made.pixels) < MIN_PROBES:
                message = f"{self.card.name}: only {len(made.pixels)} crafted images hold as 8-bit files, {MIN_PROBES} are needed; pass more images"
                raise InputError(message)
            return made

        every = list[Crafted]()
        for model in candidates.models:
            progress.advance(self.card.name, len(every), len(candidates.models), "crafting")
            every.append(crafted(model, tuning))
        size = min(len(made.pixels) for made in every)

        def part(model: nn.Module, made: Crafted, references: Sequence[nn.Module]) -> dict[str, Tensor]:
            pixels = made.pixels[torch.arange(size) % len(made.pixels)]
            labels = predict(model, pixels).argmax(1)
            usual = [matching_rate(predict(net, pixels).argmax(1), labels) for net in references] or [0.0]
            return {"probes": pixels, "labels": labels, "usual": torch.tensor(sum(usual) / len(usual), dtype=torch.float64)}

        def make(model: nn.Module, number: int) -> dict[str, Tensor]:
            others = [*tuning[:number], *tuning[number + 1 :]]
            return part(model, crafted(model, others), others)

        parts = [part(model, made, tuning) for model, made in zip(candidates.models, every, strict=True)]
        each = {name: torch.stack([one[name] for one in parts]) for name in parts[0]}
        facts = {"crafting": {"references": len(tuning), **every[candidates.own].facts}}
        return Kit({}, each, make, facts)

    def probes(self, key: Key) -> Tensor:
        """Return the query images of all candidates, uint8 ((m + 1) n, C, H, W), one candidate after the other."""
        return key.tensor("probes").flatten(0, 1)

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        return Observation(suspect.access, {"answers": suspect.labels(self.probes(key).to(torch.float32).div(255))})

    def _rates(self, answers: Tensor, key: Key) -> Tensor:
        """Return one minus the matching rate of every candidate, float64 (m + 1,)."""
        labels = key.tensor("labels")
        if answers.shape != (labels.numel(),):
            message = f"{labels.numel()} probes need as many labels, got {tuple(answers.shape)}"
            raise InputError(message)
        return 1 - (answers.view(labels.shape) == labels).double().mean(1)

    def _beyond(self, rates: Tensor, key: Key) -> Tensor:
        """Return the rates of the hardened variant, 1 for a suspect that matches as tuning siblings do."""
        spare = 1 - key.tensor("usual")
        return torch.where(spare > 0, rates / spare.clamp_min(1e-12), 1.0) if self.variant == "hardened" else rates

    def _parts(self, model: nn.Module, key: Key, place: int) -> dict[str, Tensor]:
        return {"labels": predict(model, key.tensor("probes")[place]).argmax(1)}

    def _same(self, observed: Observation, key: Key) -> bool:
        """Return whether the suspect gives every one of the owner's probes his label: as his very model does, and hardly another."""
        if "draws" not in key.facts:
            return False
        labels, answers = key.tensor("labels"), observed.tensors["answers"]
        own = int(key.fact(float, "draws", "own"))  # `family_of` has seen that it is a place
        return observed.access is not Access.WEIGHTS and bool((answers.view(labels.shape)[own] == labels[own]).all())

    def _figures(self, key: Key, nulls: Sequence[nn.Module], thieves: Sequence[nn.Module]) -> dict[str, Any]:
        """Return the paper's threshold, midway between the means of validation thieves and null models."""
        if self.variant != "paper" or not nulls or not thieves:
            return {}
        own = int(key.facts["draws"]["own"])
        rates = [[float(self._rates(predict(net, self.probes(key)).argmax(1), key)[own]) for net in group] for group in (nulls, thieves)]
        return {"paper_threshold": sum(sum(group) / len(group) for group in rates) / 2}

    def _distances(self, observed: Observation, key: Key) -> tuple[Tensor, Finding]:
        found, count = self._rates(observed.tensors["answers"], key), key.tensor("labels").shape[1]
        limit = key.fact(float, "paper_threshold") if "paper_threshold" in key.facts else None
        return self._beyond(found, key), Finding(0.0, f"probes labelled otherwise (of {count} a candidate)", ceiling=limit)
