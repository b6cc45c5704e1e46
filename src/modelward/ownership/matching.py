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

from modelward.core.card import Capacity, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.errors import InputError
from modelward.core.families import OwnershipMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Verdict
from modelward.ownership.calibration import Calibration
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
class MatchingMethod(OwnershipMethod):
    r"""Ask a suspect for the labels of crafted images; the statistic is :math:`1 - MR`, MR the share that has the source's label.

    ``variant="paper"`` puts the threshold midway between the mean statistics of validation thieves and of null models;
    ``variant="hardened"`` takes it from the ranks of the null models.

    Parameters
    ----------
    count
        number of probes, at most.
    references
        that many of the null models, the first ones, serve the crafting (at most a quarter of them all); they calibrate nothing.
    alpha
        a suspect is stolen when its rank p-value is at most this.
    """

    needs: ClassVar[Access] = Access.LABEL

    count: int = 100
    references: int = 6
    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            count=(self.count >= MIN_PROBES, f">= {MIN_PROBES}"), references=(self.references >= 0, ">= 0"),
            alpha=(0 < self.alpha < 1, "in (0, 1)"),
        )  # fmt: skip

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return adversarial training, which moves the boundaries that the probes lie at, and the refusal of images that are out of the way."""
        return (
            Attack("ft-adversarial", {}, "true"),
            Attack("extract-adv"),
            Attack("detect-ood", {}, "none"),
            Attack("wrap-jpeg", {}, "none"),
        )

    def siblings(self, nulls: int) -> int:
        """Return how many of ``nulls`` null models serve the crafting."""
        return min(self.references, nulls // 4)

    @abstractmethod
    def _craft(self, model: nn.Module, data: ImageSet, references: Sequence[nn.Module], *, rng: torch.Generator) -> Crafted:
        """Return the probes, 8-bit; ``model`` is frozen."""

    def _protect(
        self,
        model: nn.Module,
        data: ImageSet,
        *,
        secret: bytes | None,
        nulls: Sequence[nn.Module],
        thieves: Sequence[nn.Module],
        rng: torch.Generator,
    ) -> tuple[nn.Module, Key]:
        del secret
        split = self.siblings(len(nulls))
        references, nulls = nulls[:split], nulls[split:]
        made = self._craft(model, data, references, rng=rng)
        if len(made.pixels) < MIN_PROBES:
            message = (
                f"{self.card.name}: only {len(made.pixels)} crafted images hold as 8-bit files, {MIN_PROBES} are needed; pass more images"
            )
            raise InputError(message)
        labels = predict(model, made.pixels).argmax(1)
        null, theft = ([1 - matching_rate(predict(net, made.pixels).argmax(1), labels) for net in group] for group in (nulls, thieves))
        facts: dict[str, Any] = {
            "settings": self.settings(), "calibrated": bool(nulls), "scores": {"label": vars(Calibration.split(null, theft, self.alpha))},
            "classes": list(data.classes), "candidates": {"name": data.name, "digest": data.digest, "size": len(data)},
            "crafting": {"references": split, **made.facts},
        }  # fmt: skip
        tensors = {"probes": made.pixels, "labels": labels, "index": made.index}
        return model, Key(self.card.name, self.variant, state_digest(model), facts, tensors)

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        return Observation(suspect.access, {"answers": suspect.labels(key.tensor("probes").to(torch.float32).div(255))})

    def _judge(self, observed: Observation, key: Key) -> Verdict:
        method = self.enrolled(key)
        statistic = 1 - matching_rate(observed.tensors["answers"], key.tensor("labels"))
        name = f"probes labelled otherwise (of {len(key.tensors['labels'])})"
        calibration = Calibration.of(key.fact(dict, "scores", "label"))
        return calibration.verdict(statistic, observed, method=self.card.name, variant=method.variant, name=name)
