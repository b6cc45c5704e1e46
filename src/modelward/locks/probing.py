"""Probes: images that a network answers with one class and one confidence, as 8-bit files, crafted all at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.cw import Descent
from modelward.attacks.evasion.descent import leaf_of
from modelward.core.errors import InputError
from modelward.core.guard import frozen, predict
from modelward.imaging.quantise import to_float, to_uint8
from modelward.locks.windows import inside

TOGETHER = 512
LOOKS = 8


@dataclass(frozen=True, eq=False)
class Probes:
    """Crafted images.

    Parameters
    ----------
    pixels
        uint8 (N, C, H, W).
    found
        bool (N,): which fell into their window.
    distances
        float (N,), L2 to the image that each began as, pixels in [0, 1].
    """

    pixels: Tensor
    found: Tensor
    distances: Tensor


@dataclass(frozen=True, kw_only=True)
class Crafting:
    r"""Minimise :math:`\|x - x_0\|_2^2 + \kappa (\ell_t(x) - \ell)^2` by Adam in tanh space, with 8-bit pixels in every step.

    :math:`\ell_t` are the log-odds of class t, :math:`\ell` the middle of the window. The network is shown what a file would hold; of the images
    that fell into their window the nearest is kept. kappa doubles for those that never did.

    Parameters
    ----------
    steps, rate, kappa
        of Adam, and the weight of the confidence.
    margin
        by how much the bounds must be kept, in log-odds, so that another machine's rounding does not matter.
    turns
        times that a probe without success begins at another image.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> seeds = load_data("fashion-mini").test.pixels[:16]
    >>> windows = torch.tensor([[3, 0.5, 0.6], [7, 1.5, 1.6]], dtype=torch.float64)
    >>> made = Crafting(steps=60).craft(embedded_model().model, seeds, windows, rng=generator(0))
    >>> made.found.tolist(), made.pixels.dtype
    ([True, True], torch.uint8)
    """

    steps: int = 400
    rate: float = 0.02
    kappa: float = 20.0
    margin: float = 2e-3
    turns: int = 4

    def craft(self, model: nn.Module, seeds: Tensor, windows: Tensor, *, rng: torch.Generator) -> Probes:
        """Return a probe for every window.

        Parameters
        ----------
        model
            image batch -> logits (N, K).
        seeds
            uint8 (S, C, H, W), images to begin at; one of another class than the window's is drawn.
        windows
            (N, 3): class, low, high in log-odds.
        rng
            draws where each begins.

        Raises
        ------
        InputError
            when every seed is of the class that is wanted.
        """
        wanted = windows[:, 0].long()
        answers = predict(model, seeds).argmax(1)
        pixels = torch.zeros((len(windows), *seeds.shape[1:]), dtype=torch.uint8)
        found, distances = torch.zeros(len(windows), dtype=torch.bool), torch.full((len(windows),), torch.inf)
        for _ in range(self.turns):
            for todo in (~found).nonzero().squeeze(1).split(TOGETHER):
                origin = seeds[_begin(answers, wanted[todo], rng)]
                with frozen(model):
                    run = self._descend(model, to_float(origin), windows[todo])
                pixels[todo], distances[todo], found[todo] = to_uint8(run.found), run.near.sqrt(), run.near.isfinite()
            if bool(found.all()):
                break
        return Probes(pixels, found, distances)

    def begun(self, origin: Tensor, windows: Tensor) -> Descent:
        """Return a descent that has taken no step yet, from float images (N, C, H, W)."""
        return Descent(origin, windows[:, 0].long(), torch.full((len(origin),), self.kappa), None)

    def _descend(self, model: nn.Module, origin: Tensor, windows: Tensor) -> Descent:
        """Run Adam on all of them at once; ``found`` and ``near`` of what comes back hold the nearest images inside their windows."""
        run, look = self.begun(origin, windows), max(1, self.steps // LOOKS)
        for number in range(1, self.steps + 1):
            self.step(model, run, windows, number)
            if number % look == 0:
                run.c = torch.where(run.near.isfinite(), run.c, run.c * 2)
        return run

    def step(self, model: nn.Module, run: Descent, windows: Tensor, number: int) -> None:
        """Take step ``number`` (from 1) of a frozen model's descent: one forward and one backward pass."""
        middle = windows[:, 1:].mean(1).float()
        image, slope = run.image()
        image = image.mul_(255).round_().div_(255)  # what a file would hold
        leaf = leaf_of(image)
        with torch.enable_grad():
            logits = model(leaf)
        plain = logits.detach()
        pull, at = plain.float().scatter(1, run.y[:, None], -torch.inf), run.y[:, None]
        odds = plain.float().gather(1, at).squeeze(1) - pull.logsumexp(1)
        force = (2 * run.c * (odds - middle))[:, None]
        pull = pull.softmax(1).neg_().scatter_(1, at, 1.0).mul_(force)
        (grad,) = torch.autograd.grad(logits, leaf, pull.to(logits.dtype))
        change = image - run.origin
        squares = torch.linalg.vector_norm(change, dim=(1, 2, 3)).square_()
        run.note(image, squares, inside(plain, windows, slack=-self.margin))
        run.step(torch.add(grad, change, alpha=2).mul_(slope), number, self.rate)


def _begin(answers: Tensor, wanted: Tensor, rng: torch.Generator) -> Tensor:
    """Return the seed (N,) that each probe begins at: one that the network does not answer with the class wanted."""
    free = answers[None, :] != wanted[:, None]
    if not bool(free.any(1).all()):
        raise InputError("every image to begin at is of the class that a probe is to have; pass images of several classes")
    drawn = torch.rand(free.shape, generator=rng).masked_fill(~free, -1)
    return drawn.argmax(1)
