"""Universal perturbations (Moosavi-Dezfooli et al., "Universal adversarial perturbations", CVPR 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.deepfool import DeepFool
from modelward.attacks.evasion.descent import margins
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import InputError, UsageError
from modelward.core.families import EvasionMethod
from modelward.core.guard import asked, predict, require_batch, require_labels
from modelward.core.images import ImageSet
from modelward.core.result import Trace
from modelward.imaging.norms import project, unit

FLOOR = -5.0  # a lead of the wrong class that is large enough: the loss looks at the images that still stand
DECAY = 0.9


@dataclass(frozen=True)
class Universal:
    """One change for all images.

    Parameters
    ----------
    v
        the change (1, C, H, W).
    fooling_rate
        share of the images it was made on whose class it changes (as floats); for a targeted one, that it moves to their target.
    dominant_label
        the class that most of them end in; a share near 1 is a sign of a backdoor.
    dominant_share
        that share.
    """

    v: Tensor
    fooling_rate: float
    dominant_label: int
    dominant_share: float

    def apply(self, x: Tensor) -> Tensor:
        """Return the images (N, C, H, W) in [0, 1] with the change, clipped to [0, 1]."""
        require_batch(x)
        if x.shape[1:] != self.v.shape[1:]:
            message = f"a change of shape {tuple(self.v.shape[1:])} does not fit images of shape {tuple(x.shape[1:])}"
            raise InputError(message)
        return (x + self.v).clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class UniversalPerturbation(EvasionMethod):
    """Find one v with |v| <= eps such that argmax f(clip(x + v)) differs from argmax f(x) for most images.

    ``minibatch`` descends on the mean of max(z_p - max of the others, -5), p = argmax f(x), with normalised momentum, and projects v on
    the ball. ``classic`` is the paper's: for one image after the other that v does not turn, add the `DeepFool` step from x + v. Labels
    are not looked at, unless the attack is targeted.

    Parameters
    ----------
    norm, eps
        size of v, pixels in [0, 1]; 3 to 4 in L2 turn most 28x28 images, 10/255 is usual in Linf.
    step
        size of a descent step; ``null`` is eps / 10 that falls to 0 linearly. ``minibatch`` only.
    steps, batch
        descent steps, and images looked at in each. ``minibatch`` only.
    mode
        ``"minibatch"`` or ``"classic"``.
    passes, delta
        ``classic``: passes over the images at most, and the share that may stay unturned.

    Examples
    --------
    >>> import torch
    >>> from modelward.core.rng import generator
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, -1.0]]))
    >>> x = torch.tensor([0.5, 0.6, 0.5, 0.4]).expand(8, 4).reshape(8, 1, 2, 2)
    >>> found = UniversalPerturbation(eps=0.2, steps=30).fit(net, x, rng=generator(0))
    >>> found.fooling_rate, found.dominant_label, bool(found.v.norm() <= 0.2 + 1e-6)
    (1.0, 0, True)
    """

    universal: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        name="uap",
        title="universal perturbation, Linf, L2 and L1",
        paper="Moosavi-Dezfooli, Fawzi, Fawzi, Frossard: Universal adversarial perturbations, CVPR 2017, arXiv 1610.08401",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=("the rate on the images it was made on; on others it is lower",),
        cost="250 forward and backward passes of 64 images",
    )
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    masks: ClassVar[bool] = True

    norm: str = "l2"
    eps: float = 3.0
    step: float | None = None
    steps: int = 250
    batch: int = 64
    mode: str = "minibatch"
    passes: int = 10
    delta: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = {
            "step": (self.step is None or self.step >= 0, ">= 0 or null"),
            "steps": (self.steps >= 1, ">= 1"),
            "batch": (self.batch >= 1, ">= 1"),
            "mode": (self.mode in {"minibatch", "classic"}, "'minibatch' or 'classic'"),
            "passes": (self.passes >= 1, ">= 1"),
            "delta": (0 <= self.delta < 1, "in [0, 1)"),
        }
        for name, (holds, words) in rules.items():
            if not holds:
                message = f"{self.card.name}: {name} must be {words}, got {getattr(self, name)!r}"
                raise UsageError(message)
        if self.mode == "classic" and (self.norm == "l1" or self.targeted):
            raise UsageError("uap: mode 'classic' works in linf or l2 and is not targeted; use mode='minibatch'")

    def fit(
        self, model: nn.Module, images: ImageSet | Tensor, *, y: Tensor | None = None, rng: torch.Generator, mask: Tensor | None = None
    ) -> Universal:
        """Return the universal perturbation of ``images`` (uint8 set, or floats (N, C, H, W) in [0, 1]).

        Parameters
        ----------
        model
            image batch -> logits; never changed.
        images
            what v is made on: keep them apart from the images that it is judged on.
        y
            the class to reach for each image, for a targeted one.
        rng
            source of the order of the images.
        mask
            zeros and ones (1, C, H, W) or what broadcasts to it: v is 0 where it is 0.

        Raises
        ------
        InputError
            for no images, or images that do not fit.
        """
        x = images.batch(slice(None)) if isinstance(images, ImageSet) else images.detach()
        require_batch(x)
        if not len(x):
            raise InputError("no images to make a universal perturbation on")
        if self.targeted and y is None:
            raise UsageError("a targeted universal perturbation needs y, the class to reach for each image")
        region = None if mask is None else self._region(mask, x[:1])
        with asked(model):
            return self._fit(model, x, y, rng=rng, trace=Trace(), mask=region)

    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None = None) -> Tensor:
        shared = None if mask is None else mask[:1]
        if mask is not None and not torch.equal(mask, mask[:1].expand_as(mask)):
            raise InputError("one change for all images takes one mask for all images")
        return self._fit(model, x, y, rng=rng, trace=trace, mask=shared).apply(x)

    def _fit(self, model: nn.Module, x: Tensor, y: Tensor | None, *, rng: torch.Generator, trace: Trace, mask: Tensor | None) -> Universal:
        """Return v with its figures; ``model`` is frozen."""
        logits = predict(model, x)
        if y is not None:
            require_labels(y, len(x), logits.shape[1])
        trace.queries += len(x)
        goal = y if self.targeted and y is not None else logits.argmax(1)
        fit = self._classic if self.mode == "classic" else self._minibatch
        v = fit(model, x, goal, rng=rng, trace=trace, mask=mask)
        ends = predict(model, (x + v).clamp_(0, 1)).argmax(1)
        trace.queries += len(x)
        turned = (ends == goal) if self.targeted else (ends != goal)
        counts = ends.bincount()
        label = int(counts.argmax())
        return Universal(v, float(turned.float().mean()), label, float(counts[label]) / len(x))

    def _minibatch(self, model: nn.Module, x: Tensor, goal: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None) -> Tensor:
        """Descend on the mean clipped margin of mini-batches."""
        v = torch.zeros_like(x[:1])
        momentum, order = v.clone(), torch.empty(0, dtype=torch.int64)
        for number in range(self.steps):
            if not len(order):
                order = torch.randperm(len(x), generator=rng)
            part, order = order[: self.batch], order[self.batch :]
            leaf = v.detach().requires_grad_()
            with torch.enable_grad():
                lead = margins(model((x[part] + leaf).clamp(0, 1)).float(), goal[part])
                loss = (lead if self.targeted else -lead).clamp_min(FLOOR).mean()
                (grad,) = torch.autograd.grad(loss, leaf)
            trace.steps, trace.queries = trace.steps + 1, trace.queries + len(part)
            grad = grad if mask is None else grad * mask
            momentum = momentum.mul_(DECAY).add_(unit(grad))
            step = self.eps / 10 * (1 - number / self.steps) if self.step is None else self.step
            v = project(v - step * self._direction(momentum), self.norm, self.eps)
        return v

    def _direction(self, momentum: Tensor) -> Tensor:
        """Return the step of size 1 along the momentum; in L1 the pixels that matter most move."""
        if self.norm == "linf":
            return momentum.sign()
        if self.norm == "l2":
            return unit(momentum)
        flat = momentum.flatten()
        most = flat.abs().topk(min(20, len(flat))).indices
        return torch.zeros_like(flat).scatter(0, most, flat[most].sign() / len(most)).view_as(momentum)

    def _classic(self, model: nn.Module, x: Tensor, goal: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None) -> Tensor:
        """Add the DeepFool step of every image that still stands, pass after pass."""
        v, step = torch.zeros_like(x[:1]), DeepFool(norm=self.norm)
        region = {} if mask is None else {"mask": mask}
        for _ in range(self.passes):
            for index in torch.randperm(len(x), generator=rng).tolist():
                moved = (x[index : index + 1] + v).clamp_(0, 1)
                result = step.run(model, moved, goal[index : index + 1], rng=rng, **region)
                trace.queries += result.queries
                v = project(v + result.value - moved, self.norm, self.eps)
            trace.steps += 1
            trace.queries += len(x)
            if float((predict(model, (x + v).clamp_(0, 1)).argmax(1) != goal).float().mean()) >= 1 - self.delta:
                break
        return v
