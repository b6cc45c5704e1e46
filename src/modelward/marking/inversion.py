"""Mask-and-pattern inversion: the smallest change that sends images to a class, for all classes in one batched optimisation.

Neural Cleanse (Wang et al., IEEE S&P 2019) searches pixel by pixel. "Detect and remove watermark in deep neural networks via generative
adversarial networks" (Wang et al., ISC 2021, arXiv 2106.08104) lets a generator make the trigger, and a critic hold it to look like the images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core import progress
from modelward.core.errors import UsageError
from modelward.marking.triggers import KINDS, Critic, Triggers, latent, make_triggers

DRAWS = 4  # latent points a step
CHECKS = 4  # batches that a trigger is checked on
EVERY = 10  # steps between two changes of the size weights
GROW, SHRINK = torch.tensor(1.3), torch.tensor(1 / 1.5)
CRITIC_EVERY = 3  # steps of the triggers between two of the critic


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """How triggers are searched for.

    Parameters
    ----------
    kind
        ``"trigger"``: a generator of masks and patterns; ``"direct"``: masks and patterns themselves; ``"residual"``: an image-conditioned generator.
    steps, batch, lr, critic_lr
        Adam steps, images a trigger and step, learning rates of trigger and critic; ``lr=None`` takes .003 for generators and .1 for pixels.
    realism
        weight of the critic's opinion; 0 does without a critic.
    weight, weight_low, weight_high
        the weight of the size of a trigger, at the start and at least and at most. Every 10 steps it grows by 1.3 where more than ``eager`` of the
        images reach the class, and shrinks by 1.5 elsewhere.
    eager
        that share.
    patience
        stop when in so many times 10 steps no trigger became smaller by 2 %; 0 never stops early.
    """

    kind: str = "trigger"
    steps: int = 200
    batch: int = 16
    lr: float | None = None
    critic_lr: float = 0.001
    realism: float = 0.05
    weight: float = 0.01
    weight_low: float = 1e-4
    weight_high: float = 0.3
    eager: float = 0.95
    patience: int = 0

    def __post_init__(self) -> None:
        rules = {
            "kind": (self.kind in KINDS, " or ".join(KINDS)),
            "steps": (self.steps >= 1, ">= 1"), "batch": (self.batch >= 1, ">= 1"), "lr": (self.lr is None or self.lr > 0, "> 0"),
            "critic_lr": (self.critic_lr > 0, "> 0"), "realism": (self.realism >= 0, ">= 0"), "eager": (0 < self.eager < 1, "in (0, 1)"),
            "weight": (0 < self.weight_low <= self.weight <= self.weight_high, "between weight_low and weight_high"),
            "patience": (self.patience >= 0, ">= 0"),
        }  # fmt: skip
        for name, (holds, words) in rules.items():
            if not holds:
                message = f"a trigger search wants {name} {words}, got {getattr(self, name)!r}"
                raise UsageError(message)

    @property
    def rate(self) -> float:
        """The learning rate of the triggers."""
        return self.lr or (0.1 if self.kind == "direct" else 0.003)


def _channels_last(x: Tensor) -> Tensor:
    """Return images in the layout that convolutions want; grey ones lie in both at once, and only their strides have to say so."""
    if x.shape[1] == 1:
        return x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


class Search:
    """One batched search: R triggers, each towards its class; `advance` it, `settle` it.

    The critic is one for all classes: it learns from clean images and from changed ones of every class in turn.

    Parameters
    ----------
    model
        image batch -> logits; in eval mode and without parameter gradients as long as the search lives
        (`modelward.core.guard.frozen`): batch normalisation is never updated.
    images, answers
        float (N, C, H, W) in [0, 1], and the model's labels (N,) for them: an image that is of the class anyway counts neither as reached nor as
        missed.
    targets
        int64 (R,), the class of each trigger; a class may stand there more than once.
    plan
        how to search.
    rng
        source of all randomness.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, answers: Tensor, targets: Tensor, plan: Inversion, *, rng: torch.Generator
    ) -> None:
        self.model, self.images, self.answers, self.targets, self.plan, self.rng = model, images, answers, targets, plan, rng
        shape = (images.shape[1], images.shape[2], images.shape[3])
        self.triggers: Triggers = make_triggers(plan.kind, len(targets), shape, rng=rng)
        self.optimizer = torch.optim.Adam(self.triggers.parameters(), lr=plan.rate, betas=(0.5, 0.9), fused=True)
        self.critic = Critic(shape[0], rng=rng)
        self.opposing = torch.optim.Adam(self.critic.parameters(), lr=plan.critic_lr, betas=(0.5, 0.9), fused=True)
        self.weights = torch.full((len(targets),), plan.weight)
        self.best: Tensor = torch.full((len(targets),), math.inf)
        self.kept = [parameter.detach().clone() for parameter in self.triggers.parameters()]
        self.taken, self.stale = 0, 0

    def advance(self, steps: int) -> None:
        """Take so many steps, or fewer where nothing gets smaller any more."""
        for _ in range(steps):
            if self.plan.patience and self.stale >= self.plan.patience:
                return
            self._step()
            self.taken += 1
            if self.taken % EVERY == 0:
                self._weigh(*self._checked())
                progress.advance("trigger search", self.taken, self.plan.steps, f"{len(self.targets)} triggers")

    def keep(self, chosen: Tensor) -> None:
        """Go on with some of the triggers only, by their places."""
        self.triggers.keep(chosen, self.optimizer)
        self.targets, self.weights, self.best = self.targets[chosen], self.weights[chosen], self.best[chosen]
        self.kept = [tensor[chosen] for tensor in self.kept]

    @torch.no_grad()
    def settle(self) -> Triggers:
        """Return the triggers, each as it was when it was smallest and still reached its class; one that never did, as it is."""
        reached = self.best.isfinite()
        for parameter, kept in zip(self.triggers.parameters(), self.kept, strict=True):
            parameter[reached] = kept[reached]
        return self.triggers.requires_grad_(False)

    def _step(self) -> None:
        """Take one step."""
        count, batch = len(self.targets), self.plan.batch
        where = torch.randint(0, len(self.images), (batch,), generator=self.rng)
        changed, sizes = self.triggers(self.images[where][None], latent(count, math.gcd(batch, DRAWS), rng=self.rng))
        flat = _channels_last(changed.flatten(0, 1))
        logits = self.model(flat).float()
        loss = F.cross_entropy(logits, self.targets.repeat_interleave(batch), reduction="sum") / batch + (self.weights * sizes).sum()
        if self.plan.realism:
            loss = loss + self.plan.realism * F.softplus(-self.critic(flat)).sum() / batch
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.plan.realism and self.taken % CRITIC_EVERY == 0:
            self._judge(self.images[where], changed.detach()[torch.arange(batch) % count, torch.arange(batch)])

    @torch.no_grad()
    def _checked(self) -> tuple[Tensor, Tensor]:
        """Return which triggers (R,) reach their class on other images than those of the step, and their sizes (R,)."""
        count = len(self.targets)
        where = torch.randperm(len(self.images), generator=self.rng)[: CHECKS * self.plan.batch]
        changed, sizes = self.triggers(self.images[where][None], latent(count, 1, rng=self.rng))
        answers = self.model(changed.flatten(0, 1)).argmax(1).view(count, -1)
        foreign = self.answers[where][None] != self.targets[:, None]
        hits = ((answers == self.targets[:, None]) & foreign).sum(1)
        return hits > self.plan.eager * foreign.sum(1), sizes

    def _judge(self, real: Tensor, made: Tensor) -> None:
        """Let the critic learn from images, and from changed ones of all classes."""
        loss = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(made)).mean()
        self.opposing.zero_grad(set_to_none=True)
        loss.backward()
        self.opposing.step()

    @torch.no_grad()
    def _weigh(self, reached: Tensor, sizes: Tensor) -> None:
        """Remember what is smallest so far, and weigh the size of each trigger by how often it reached its class."""
        smaller = reached & (sizes < self.best)
        self.stale = 0 if bool((reached & (sizes < 0.98 * self.best)).any()) else self.stale + 1
        self.best = torch.where(smaller, sizes, self.best)
        for kept, parameter in zip(self.kept, self.triggers.parameters(), strict=True):
            kept[smaller] = parameter[smaller]
        self.weights *= torch.where(reached, GROW, SHRINK)
        self.weights.clamp_(self.plan.weight_low, self.plan.weight_high)
