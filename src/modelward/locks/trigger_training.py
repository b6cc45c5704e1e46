"""How a trigger generator and the network that obeys it are trained: together, or the generator first, frozen, and the network after it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core import progress
from modelward.core.errors import InputError
from modelward.core.images import ImageSet
from modelward.imaging.codecs import roundtrip
from modelward.imaging.corruptions import gaussian_blur
from modelward.imaging.quantise import straight_through_8bit, to_float, to_uint8
from modelward.locks.trigger_kit import Kit
from modelward.training import Recipe, fit
from modelward.training.batches import augmented, train_mode
from modelward.training.layout import laid_out, layout

CLIP, RAMP = 1.0, 0.3


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how hard: epochs, images a batch, rates of both optimisers, epochs that read bits only, weights of the loss, augmentation."""

    epochs: int
    batch: int
    lr: float
    trigger_lr: float
    clean: float
    negative: float
    image: float
    picture: float = 0.0
    bits: float = 1.0
    warm: int = 0
    crop: int = 0
    flip: bool = False
    precision: str = "auto"


@dataclass(eq=False)
class Joint:
    """Generator and network trained together; see `SampleLock`."""

    model: nn.Module
    kit: Kit
    plan: Schedule
    rng: torch.Generator
    log: list[dict[str, float]] = field(default_factory=list)

    def run(self, images: ImageSet) -> list[dict[str, float]]:
        """Train both in place; return the terms of the loss of every epoch."""
        plan, steps = self.plan, -(-len(images) // self.plan.batch)
        recipe = Recipe(
            epochs=plan.epochs, batch=plan.batch, lr=plan.lr, momentum=0.9, optimizer="adam", weight_decay=0.0, precision=plan.precision
        )
        self.bf16, self.layout = recipe.autocasts(self.model), layout(self.model)
        mine, theirs = recipe.make_optimizer(self.model.parameters()), torch.optim.Adam(self.kit.modules().parameters(), lr=plan.trigger_lr)
        for part in (self.model, self.kit.modules()):
            part.to(memory_format=self.layout)  # type: ignore[call-overload]
        train_mode(self.model)
        for epoch in range(plan.warm + plan.epochs):
            total = torch.zeros(4)
            for index, chosen in enumerate(torch.randperm(len(images), generator=self.rng).split(plan.batch)):
                if len(chosen) < 2:
                    continue
                x, y = augmented(images.batch(chosen), crop=plan.crop, flip=plan.flip, rng=self.rng), images.labels[chosen]
                number = (epoch - plan.warm) * steps + index
                for group in mine.param_groups:
                    group["lr"] = recipe.rate(max(0, number), steps * plan.epochs)
                with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                    parts = (
                        self._bits_only(x, 1 + number / (steps * plan.warm))
                        if number < 0
                        else self._all(x, y, number / (steps * plan.epochs))
                    )
                loss = parts.sum()
                mine.zero_grad(set_to_none=True)
                theirs.zero_grad(set_to_none=True)
                loss.backward()
                for part in (self.model, self.kit.modules()):
                    nn.utils.clip_grad_norm_(part.parameters(), CLIP)
                if number >= 0:
                    mine.step()
                theirs.step()
                total += parts.detach() * len(chosen)
            self.log.append(dict(zip(("trigger", "denied", "image", "bits"), (total / len(images)).tolist(), strict=True)))
            progress.advance("sample-lock", epoch + 1, plan.warm + plan.epochs, f"loss {float(total.sum()) / len(images):.3f}")
        self.model.eval()
        return self.log

    def _bits_only(self, x: Tensor, done: float) -> Tensor:
        """Return the terms of the loss of a generator that learns to hide words, the network not yet there."""
        words = self.kit.words(len(x), self.rng)
        drawn, residual = self.kit.draw(x, words)
        image = self.plan.image * (0.1 + 0.9 * min(1.0, done / RAMP)) * residual.square().mean()
        return torch.stack([torch.zeros(()), torch.zeros(()), image, self._read(drawn, words)])

    def _read(self, drawn: Tensor, words: Tensor) -> Tensor:
        """Return the loss of the bits, read from images that went through noise or JPEG or nothing."""
        third = len(drawn) // 3
        noisy = drawn[:third] + 0.02 * torch.randn(drawn[:third].shape, generator=self.rng)
        quality = int(torch.randint(50, 96, (), generator=self.rng))
        packed = to_float(roundtrip(to_uint8(drawn[third : 2 * third]), "jpeg", quality))
        coded = drawn[third : 2 * third] + (packed - drawn[third : 2 * third]).detach()
        seen = torch.cat([noisy, coded, drawn[2 * third :]])
        return self.plan.bits * F.binary_cross_entropy_with_logits(self.kit.reader(seen).float(), words.float())

    def _all(self, x: Tensor, y: Tensor, done: float) -> Tensor:
        """Return the four terms of the loss; all that the network sees goes through it in one batch."""
        plan, words = self.plan, self.kit.words(len(x), self.rng)
        drawn, residual = self.kit.draw(x, words)
        negatives = self._negatives(x, residual)
        logits = self.model(laid_out(torch.cat([drawn, x, *negatives]), self.layout)).float()
        right, clean, rest = logits.split([len(x), len(x), len(logits) - 2 * len(x)])
        late = min(1.0, done / RAMP)
        ordinary, chosen = rest.split([len(negatives[0]) + len(negatives[1]), len(rest) - len(negatives[0]) - len(negatives[1])])
        denied = plan.clean * to_uniform(clean) + plan.negative * (2 * to_uniform(ordinary) + 4 * late * to_uniform(chosen))
        power = residual.square().mean() + (plan.picture * self.kit.picture(words) if plan.picture else 0)
        image = plan.image * (0.1 + 0.9 * late) * power
        return torch.stack([F.cross_entropy(right, y), denied, image, self._read(drawn, words)])

    def _negatives(self, x: Tensor, residual: Tensor) -> list[Tensor]:
        """Return what must not open: noise, blur, other images' triggers, mean triggers, foreign words, strange signs; of half a batch each."""
        half, rng = len(x) // 2, self.rng
        order = torch.randperm(len(x), generator=rng)
        base, others = x[order[:half]], [residual[order.roll(step)[:half]] for step in (1, 2)]
        sigma = torch.rand(half, 1, 1, 1, generator=rng) * 0.2
        noisy = base + sigma * torch.randn(base.shape, generator=rng)
        blurred = gaussian_blur(x[order[half:]], 0.4 + float(torch.rand((), generator=rng)))
        strength = 0.5 + 3.5 * torch.rand(half, 1, 1, 1, generator=rng).square()
        mean = base + strength * residual.mean(0, keepdim=True)
        foreign, _ = self.kit.draw(base, self.kit.foreign(half, rng))
        return [straight_through_8bit(part.clamp(0, 1)) for part in (noisy, blurred, *(base + other for other in others), mean)] + [
            foreign,
            self.kit.strange(base, rng),
        ]


def train_after(
    model: nn.Module, kit: Kit, images: ImageSet, wrong: Tensor, plan: Schedule, *, rng: torch.Generator
) -> list[dict[str, float]]:
    """Train ``model`` in place on triggers of a frozen generator: true classes with them, ``wrong[y]`` without, both in every batch."""
    with torch.no_grad():
        drawn = torch.cat(
            [to_uint8(kit.draw(images.batch(part), kit.words(len(part), rng))[0]) for part in torch.arange(len(images)).split(256)]
        )
    recipe = Recipe(epochs=plan.epochs, batch=2 * plan.batch, lr=plan.lr, optimizer="adam", weight_decay=0.0, precision=plan.precision)
    log = fit(
        model, torch.cat([drawn, images.pixels]), torch.cat([images.labels, wrong[images.labels]]), recipe, rng=rng, task="sample-lock"
    )
    return [{"classes": epoch.loss} for epoch in log]


def derangement(classes: int, rng: torch.Generator) -> Tensor:
    """Return a random order (K,) in which nothing stays in its place; raises `InputError` for a single class.

    >>> from modelward.core.rng import generator
    >>> bool((derangement(10, generator(0)) == torch.arange(10)).any())
    False
    """
    if classes < 2:
        raise InputError("one class alone has no wrong class")
    order = torch.randperm(classes, generator=rng)
    while bool((order == torch.arange(classes)).any()):
        order = torch.randperm(classes, generator=rng)
    return order


def to_uniform(logits: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence from the uniform distribution to that of the logits (N, K), in nats.

    >>> float(to_uniform(torch.zeros(2, 3)))
    0.0
    """
    classes = logits.shape[1]
    return (-logits.log_softmax(1).mean(1) - torch.log(torch.tensor(float(classes)))).mean()
