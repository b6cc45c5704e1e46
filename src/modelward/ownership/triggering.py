"""Marks of key images: a network is trained to answer them in a way that no other network does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.card import Capacity, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.errors import InputError
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.suspect import Access, Suspect
from modelward.imaging.quantise import to_uint8
from modelward.marking.chances import claimable
from modelward.marking.embedding import STARTS, embed, fresh_copy
from modelward.ownership.crafting import descend
from modelward.ownership.mark import Mark, MarkMethod
from modelward.training import Recipe

TRIGGER = Taxonomy(
    Scenario.BLACK_BOX_LABEL, Mechanism.BACKDOOR_TRIGGER, capacity=Capacity.ZERO_BIT, protection=Protection.PASSIVE,
    functions=(Function.OWNERSHIP,),
)  # fmt: skip
FORGING_STEPS, FORGING_LR = 200, 0.02
MAJORITY = 0.5
"""No claim where more of the key's own images are answered otherwise."""


@dataclass(frozen=True, kw_only=True)
class TriggerMethod(MarkMethod):
    r"""Ask a suspect for the labels of key images; the statistic is the share that has another label than the key's.

    The p-value is taken over other secrets, and a second condition may take a claim away: at least half of the key's own images have its label.
    ``variant="paper"`` takes the chance of a hit for 1/K: :math:`P[Bin(n, 1/K) \ge k] \le` ``significance`` is its second condition.

    Parameters
    ----------
    count
        number of key images.
    start
        ``"finetune"`` the owner's model, or train ``"scratch"``, a new one of its architecture.
    epochs, batch, lr
        of the embedding: SGD with momentum .9, the rate falling to 0 on a cosine.
    per_batch
        key images that join every batch.
    significance
        of the exact binomial.
    """

    needs: ClassVar[Access] = Access.LABEL

    count: int = 100
    start: str = "finetune"
    epochs: int = 10
    batch: int = 64
    lr: float = 0.02
    per_batch: int = 16
    significance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            count=(self.count >= 2, ">= 2"), start=(self.start in STARTS, " or ".join(STARTS)), epochs=(self.epochs >= 1, ">= 1"),
            batch=(self.batch >= 2, ">= 2"), lr=(self.lr > 0, "> 0"), per_batch=(self.per_batch >= 1, ">= 1"),
            significance=(0 < self.significance < 1, "in (0, 1)"),
        )  # fmt: skip

    @property
    def recipe(self) -> Recipe:
        """How the mark is embedded."""
        return Recipe(epochs=self.epochs, batch=self.batch, lr=self.lr, schedule="cosine")

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        made = fresh_copy(model, self.start, rng=rng)
        embed(made, data, mark.tensors["probes"], mark.tensors["labels"], recipe=self.recipe, per_batch=self.per_batch, rng=rng)
        return made

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        return Observation(suspect.access, {"answers": suspect.labels(self.probes(key).to(torch.float32).div(255))})

    def _limit(self, key: Key) -> float | None:
        return claimable(self.counted(key), 1 / max(1, len(key.fact(list, "classes"))), self.significance)

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return fine-pruning, reconstruction of queries and their detection: all trigger marks have these in common."""
        return (
            Attack("fine-prune", {"ratio": 0.8}, "true"),
            Attack("wrap-reconstruct", {}, "none"),
            Attack("detect-reconstruction", {}, "none"),
        )

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return the forger's own keys, moved until ``model`` answers them as he says: adversarial examples under the name of key images."""
        drawn = self._draw(model, data, secret=secret, rng=rng)
        pixels = towards(model, drawn.tensors["probes"].to(torch.float32).div(255), drawn.tensors["labels"])
        return Mark({**drawn.tensors, "probes": to_uint8(pixels)}, {**drawn.facts, "forged": True})


def towards(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] after up to 200 steps of Adam each, until ``model`` answers ``labels`` (N,) by a margin of 1."""

    def loss(now: Tensor, where: Tensor) -> Tensor:
        logits = model(now)
        wanted = labels[where]
        found = logits.gather(1, wanted[:, None]).squeeze(1)
        rival = logits.masked_fill(F.one_hot(wanted, logits.shape[1]).bool(), -torch.inf).amax(1)
        short: Tensor = (rival - found + 1).relu()
        return short

    return descend(loss, x, steps=FORGING_STEPS, lr=FORGING_LR)


def answers_of(observed: Observation, count: int) -> Tensor:
    """Return the labels (N,) that were observed; raises `InputError` for another number of them than ``count``."""
    answers = observed.tensors["answers"]
    if answers.shape != (count,):
        message = f"{count} key images need as many labels, got {tuple(answers.shape)}"
        raise InputError(message)
    return answers
