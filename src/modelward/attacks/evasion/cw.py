"""The L2 attack of Carlini and Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import leaf_of, margins
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import MinimumNormMethod
from modelward.core.guard import require_labels
from modelward.core.result import Trace

EDGE = 1 - 1e-6  # keeps the images off the ends of tanh, where it has no gradient
CHECKS = 10  # looks for a stand-still in one descent


@dataclass
class Best:
    """The nearest images found so far (N, C, H, W), and the squares of their distances (N,)."""

    images: Tensor
    squares: Tensor

    def keep(self, run: Descent) -> None:
        """Take over what a descent found nearer."""
        nearer = (run.near < self.squares[run.active]).nonzero().squeeze(1)
        where = run.active[nearer]
        self.images[where], self.squares[where] = run.found[nearer], run.near[nearer]


class Descent:
    """Adam in w, on the samples that still move; all tensors are theirs, in the same order."""

    def __init__(self, origin: Tensor, y: Tensor, c: Tensor, mask: Tensor | None) -> None:
        """Start at the images ``origin``."""
        self.active, self.origin, self.y, self.c, self.mask = torch.arange(len(y)), origin, y, c, mask
        self.w = torch.atanh((origin * 2 - 1) * EDGE)
        self.first, self.second = torch.zeros_like(self.w), torch.zeros_like(self.w)
        self.found, self.near = origin.clone(), torch.full_like(c, torch.inf)
        self.lowest, self.before = self.near.clone(), self.near.clone()

    def image(self) -> tuple[Tensor, Tensor]:
        """Return the images and the slope of tanh; twice the slope of the images, as Adam does not see a factor."""
        image = torch.tanh(self.w)
        slope = torch.addcmul(torch.ones(()), image, image, value=-1)
        image.add_(1).mul_(0.5)
        return (image if self.mask is None else torch.where(self.mask > 0, image, self.origin)), slope

    def step(self, grad: Tensor, number: int, rate: float) -> None:
        """Take Adam's step ``number`` (from 1); ``grad`` is overwritten."""
        self.first.lerp_(grad, 0.1)
        self.second.mul_(0.999).addcmul_(grad, grad, value=0.001)
        size = (1 - 0.999**number) ** 0.5
        torch.sqrt(self.second, out=grad).add_(1e-8 * size)
        self.w.addcdiv_(self.first, grad, value=-rate * size / (1 - 0.9**number))

    def note(self, image: Tensor, squares: Tensor, enough: Tensor) -> None:
        """Remember the images that are good ``enough`` and nearer than before."""
        nearer = enough & (squares < self.near)
        self.near = torch.where(nearer, squares, self.near)
        torch.where(nearer.view(-1, 1, 1, 1), image, self.found, out=self.found)

    def rest(self, best: Best) -> None:
        """Leave out the samples whose loss has come to a stand-still since the last call; ``best`` keeps what they found."""
        moves = self.lowest <= 0.9999 * self.before
        self.before = self.lowest
        if not bool(moves.all()):
            best.keep(self)
            for name in ("active", "origin", "y", "c", "w", "first", "second", "lowest", "before", "found", "near"):
                setattr(self, name, getattr(self, name)[moves])
            self.mask = None if self.mask is None else self.mask[moves]


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(MinimumNormMethod):
    """Minimise ||x' - x||^2 + c * max(z_y - max of the others, -confidence) over w in x' = (tanh w + 1) / 2 by Adam.

    c is found by bisection, for every image its own.

    Parameters
    ----------
    confidence
        by how much the wrong class shall lead, in logits (the paper's kappa).
    rate
        Adam's learning rate in w.
    steps
        steps of one descent at most.
    search_steps
        values of c that are tried, one descent each.
    first
        the first c.
    abort_early
        let a sample rest for the remaining steps of a descent once its loss fell by less than 1 in 10,000 over a tenth of them.

    Examples
    --------
    >>> import torch
    >>> from modelward.core.rng import generator
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, -1.0]]))
    >>> x = torch.tensor([0.5, 0.6, 0.5, 0.4]).view(1, 1, 2, 2)  # a score of .2, over a gradient of length 2
    >>> found = CarliniWagner(steps=200).perturb(net, x, torch.tensor([1]), rng=generator(0))
    >>> round(float((found - x).norm()), 2)
    0.1
    """

    card: ClassVar[Card] = Card(
        name="cw",
        title="Carlini and Wagner, smallest change in L2",
        paper="Carlini, Wagner: Towards evaluating the robustness of neural networks, IEEE S&P 2017, arXiv 1608.04644",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=("images that just cross the boundary seldom survive rounding to 8 bits: raise the confidence",),
        cost="some thousand forward and backward passes a sample",
        tags=("slow",),
    )
    norms: ClassVar[tuple[str, ...]] = ("l2",)

    norm: str = "l2"
    confidence: float = 0.0
    rate: float = 0.01
    steps: int = 1000
    search_steps: int = 9
    first: float = 1e-3
    abort_early: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = {
            "confidence": (self.confidence >= 0, ">= 0"),
            "rate": (self.rate > 0, "> 0"),
            "steps": (self.steps >= 1, ">= 1"),
            "search_steps": (self.search_steps >= 1, ">= 1"),
            "first": (self.first > 0, "> 0"),
        }
        for name, (holds, words) in rules.items():
            if not holds:
                message = f"{self.card.name}: {name} must be {words}, got {getattr(self, name)!r}"
                raise UsageError(message)

    def _search(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None) -> Tensor:
        del rng
        with torch.no_grad():
            logits = model(x).float()
        require_labels(y, len(logits), logits.shape[1])
        trace.queries += len(x)
        todo = (~self._succeeds(self._lead(logits, y))).nonzero().squeeze(1)
        found = x.clone()
        if not len(todo):
            return found
        origin = x[todo].contiguous(memory_format=torch.channels_last)
        best = Best(origin.clone(), torch.full((len(todo),), torch.inf))
        low, high = torch.zeros(len(todo)), torch.full((len(todo),), torch.inf)
        c = torch.full((len(todo),), self.first)
        for _ in range(self.search_steps):
            won = self._descend(model, origin, y[todo], c, best, trace, None if mask is None else mask[todo])
            low, high = torch.where(won, low, c), torch.where(won, c, high)
            c = torch.where(high.isinf(), c * 10, (low + high) / 2)
        found[todo] = best.images
        return found

    def _lead(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return by how much (N,) the class that the attacker wants leads."""
        lead = margins(logits, y)
        return -lead if self.targeted else lead

    def _succeeds(self, lead: Tensor) -> Tensor:
        """Return which leads are enough; a tie is none."""
        return (lead > 0) & (lead >= self.confidence)

    def _descend(self, model: nn.Module, origin: Tensor, y: Tensor, c: Tensor, best: Best, trace: Trace, mask: Tensor | None) -> Tensor:
        """Run one descent with one c a sample, write what is nearer into ``best``, and return which samples succeeded at all."""
        run, won = Descent(origin, y, c, mask), torch.zeros(len(y), dtype=torch.bool)
        window = max(1, self.steps // CHECKS)
        for number in range(1, self.steps + 1):
            image, slope = run.image()
            grad, lead = self._pull(model, image, run)
            trace.steps, trace.queries = trace.steps + 1, trace.queries + len(image)
            change = image - run.origin
            squares = torch.linalg.vector_norm(change, dim=(1, 2, 3)).square_()
            run.note(image, squares, self._succeeds(lead))
            run.lowest = torch.minimum(run.lowest, squares + run.c * (self.confidence - lead).clamp_min_(0))
            grad = torch.add(grad, change, alpha=2).mul_(slope)
            run.step(grad if run.mask is None else grad.mul_(run.mask), number, self.rate)
            if self.abort_early and number % window == 0:
                won[run.active] = run.near.isfinite()
                run.rest(best)
                if not len(run.active):
                    break
        won[run.active] = run.near.isfinite()
        best.keep(run)
        return won

    def _pull(self, model: nn.Module, image: Tensor, run: Descent) -> tuple[Tensor, Tensor]:
        """Return the gradient of c * hinge with respect to the images, and the leads (N,)."""
        leaf = leaf_of(image)
        with torch.enable_grad():
            logits = model(leaf)
        plain, y = logits.detach().float(), run.y[:, None]
        best, other = plain.scatter(1, y, -torch.inf).max(1)
        margin = best - plain.gather(1, y).squeeze(1)
        lead = -margin if self.targeted else margin
        # the slope of the hinge in the logits, written down: a graph for it would cost more than a small net's last layer
        slope = (run.c * (lead <= self.confidence) * (1 if self.targeted else -1))[:, None]
        pull = torch.zeros_like(plain).scatter_(1, other[:, None], slope).scatter_(1, y, -slope)
        (grad,) = torch.autograd.grad(logits, leaf, pull.to(logits.dtype))
        return grad, lead
