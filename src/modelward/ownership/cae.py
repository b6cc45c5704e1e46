"""CAE: conferrable adversarial examples as a fingerprint (Lukas, Zhang, Kerschbaum; ICLR 2021, arXiv 1912.00888)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.guard import frozen, predict
from modelward.core.images import ImageSet
from modelward.core.rng import generator, spawn
from modelward.imaging.mixing import sac_cutmix
from modelward.imaging.quantise import straight_through_8bit, to_uint8
from modelward.models.parts import fresh_like
from modelward.ownership.crafting import descend
from modelward.ownership.matching import MATCHING, Crafted, MatchingMethod
from modelward.training import Recipe, fit

EPS_COLOUR, EPS_GREY = 0.025, 0.2
_TINY = 1e-6


def conferrability(surrogates: Tensor, references: Tensor) -> Tensor:
    r"""Return :math:`\bar p_S (1 - \bar p_R)` per sample, in [0, 1]: what copies believe of an image and independent models do not.

    Parameters
    ----------
    surrogates, references
        probabilities of the target class, (c, N) and (r, N); no references (0, N) believe nothing.

    Examples
    --------
    >>> conferrability(torch.tensor([[0.9, 0.5], [0.7, 0.5]]), torch.tensor([[0.5, 0.5]]))
    tensor([0.4000, 0.2500])
    """
    believed = references.mean(0) if len(references) else torch.zeros_like(surrogates[0])
    return surrogates.mean(0) * (1 - believed)


def extracted(model: nn.Module, images: ImageSet, recipe: Recipe, *, mixes: int, rng: torch.Generator) -> nn.Module:
    """Return a new network of the same architecture, trained on the labels that ``model`` gives to ``images``.

    Parameters
    ----------
    mixes
        that many further copies of the set, each with patches of its other images pasted in, are labelled by ``model`` too: an owner enrols
        with fewer images than a thief has.
    """
    x = images.batch(slice(None))
    pixels = torch.cat([images.pixels, *(to_uint8(sac_cutmix(x, rng=rng, side=0.5)) for _ in range(mixes))])
    copy = fresh_like(model, rng=rng)
    fit(copy, pixels, predict(model, pixels).argmax(1), recipe, rng=rng, task="surrogates")
    return copy.eval()


@dataclass(frozen=True, kw_only=True)
class CAE(MatchingMethod):
    r"""Ask for the labels of adversarial images that surrogates share with the source and that references do not.

    ``surrogates`` networks are extracted from the source; the tuning siblings are the references, and are never ranked. From images that
    the source classifies correctly, within ``eps`` in Linf, Adam minimises

    .. math:: -\log p_{source}(t) - \log \bar p_S(t) - \log(1 - \bar p_R(t))

    with means over the surrogates S and the references R, of which each step leaves out a random share (dropout). The images with the largest
    conferrability :math:`\bar p_S(t) (1 - \bar p_R(t))` that the source still takes for t as 8-bit images are the probes.

    Surrogates are made inside `protect`, from images of the enrolment set and mixes of them with the source's labels: those are all the
    images an owner is sure to have, and no validation thief or calibrating model is touched. They are weaker than a thief's extraction, which
    has more images.

    ``variant="paper"`` crafts float images with all surrogates and references, and ranks them by the same. ``variant="hardened"`` (default)
    crafts with the loss of the 8-bit image, and ranks by the surrogates and references that an image was not crafted with, so that what is
    kept is conferrable to models not seen.

    The verdict is the rank of the source among siblings, each with surrogates and probes of its own.

    Parameters
    ----------
    surrogates, epochs, lr_surrogates, mixes
        how many, how they are trained (SGD, one cycle), and how many mixed copies of the set they also see.
    eps
        largest change of a pixel in [0, 1]; ``None`` takes .025 for colour, .2 for grey images.
    steps, lr
        of Adam.
    dropout
        share of surrogates and references that a step leaves out.
    pool
        candidates crafted per probe kept.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(200))
    >>> source = embedded_model().model
    >>> method = CAE(count=20, surrogates=2, epochs=2, steps=20, lr=0.02)
    >>> _, key = method.protect(source, images, rng=generator(0))
    >>> method.verify(source, key).statistic, method.verify(source, key).decision.value
    (0.0, 'undecided')
    """

    small: ClassVar[Mapping[str, Any]] = {"epochs": 4}
    card: ClassVar[Card] = Card(
        name="cae",
        title="labels of conferrable adversarial examples",
        paper="Lukas, Zhang, Kerschbaum: Deep neural network fingerprinting by conferrable adversarial examples, ICLR 2021, arXiv 1912.00888",
        taxonomy=MATCHING,
        claims=withstands("ftal", "prune", "quantise", "extract-l"),
        limits=(
            "surrogates and candidates come from the same enrolment images: with few of them extraction is recognised less often",
            "images near to what the source was trained on are needed",
        ),
        cost="enrolment: minutes a candidate (3 surrogates, then 300 passes of 200 images through 9 nets); verification: 50 labels a candidate",
    )

    surrogates: int = 3
    epochs: int = 15
    lr_surrogates: float = 0.05
    mixes: int = 2
    eps: float | None = None
    steps: int = 300
    lr: float = 0.005
    dropout: float = 0.3
    pool: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            surrogates=(self.surrogates >= 2, ">= 2"), epochs=(self.epochs >= 1, ">= 1"), mixes=(self.mixes >= 0, ">= 0"),
            lr_surrogates=(self.lr_surrogates > 0, "> 0"), eps=(self.eps is None or 0 < self.eps <= 1, "in (0, 1]"),
            steps=(self.steps >= 0, ">= 0"), lr=(self.lr > 0, "> 0"), dropout=(0 <= self.dropout < 1, "in [0, 1)"),
            pool=(self.pool >= 1, ">= 1"),
        )  # fmt: skip

    def _craft(self, model: nn.Module, data: ImageSet, references: Sequence[nn.Module], *, rng: torch.Generator) -> Crafted:
        recipe = Recipe(epochs=self.epochs, lr=self.lr_surrogates, batch=64)
        copies = [extracted(model, data, recipe, mixes=self.mixes, rng=generator(spawn(rng))) for _ in range(self.surrogates)]
        logits = predict(model, data.pixels)
        correct = (logits.argmax(1) == data.labels).nonzero().squeeze(1)
        index = correct[torch.randperm(len(correct), generator=rng)[: self.count * self.pool]]
        with contextlib.ExitStack() as stack:
            for net in (*copies, *references):
                stack.enter_context(frozen(net))
            return self._select(model, data, index, copies, references, rng=rng)

    def _select(
        self,
        model: nn.Module,
        data: ImageSet,
        index: Tensor,
        copies: Sequence[nn.Module],
        references: Sequence[nn.Module],
        *,
        rng: torch.Generator,
    ) -> Crafted:
        """Return the most conferrable of the images crafted from ``index``."""
        hardened = self.variant == "hardened"
        held = 2 if hardened else 1  # every other net crafts, the ones between judge
        teams = [(copies[::held], references[::held]), (copies[held - 1 :: held], references[held - 1 :: held])]
        target = self._targets(model, data.pixels[index], data.labels[index], copies, references)
        pixels = self._descend(model, data.batch(index), target, *teams[0], rng=rng)
        believed = [_belief(group, pixels, target) for group in teams[1]]
        score = conferrability(*believed)
        holds = predict(model, pixels).argmax(1) == target
        kept = holds.nonzero().squeeze(1)
        kept = kept[score[kept].argsort(descending=True, stable=True)[: self.count]]
        facts = {"surrogates": len(copies), "made": len(pixels), "reached": int(holds.sum()), "eps": self._radius(data.shape[0]),
                 "conferrability": float(score[kept].mean()) if len(kept) else 0.0}  # fmt: skip
        return Crafted(pixels[kept], index[kept], facts)

    def _radius(self, channels: int) -> float:
        """Return the largest change of a pixel."""
        return self.eps if self.eps is not None else EPS_COLOUR if channels == 3 else EPS_GREY

    def _targets(
        self, model: nn.Module, pixels: Tensor, labels: Tensor, copies: Sequence[nn.Module], references: Sequence[nn.Module]
    ) -> Tensor:
        """Return, per image, the other class that source and surrogates lean to most beyond what the references do."""
        ours, others = ([predict(net, pixels).log_softmax(1) for net in group] for group in ((model, *copies), references))
        shared = min(found.shape[1] for found in (*ours, *others))  # a marked source may have outputs that the others lack
        lean = torch.stack([found[:, :shared] for found in ours]).mean(0)
        if others:
            lean = lean - torch.stack([found[:, :shared] for found in others]).mean(0)
        return lean.scatter(1, labels[:, None], -torch.inf).argmax(1)

    def _descend(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        copies: Sequence[nn.Module],
        references: Sequence[nn.Module],
        *,
        rng: torch.Generator,
    ) -> Tensor:
        """Return the crafted images as uint8."""

        def loss(z: Tensor, which: Tensor) -> Tensor:
            seen, goal = straight_through_8bit(z) if self.variant == "hardened" else z, target[which]
            total = F.cross_entropy(model(seen), goal, reduction="none")
            some, others = ([group[i] for i in _present(len(group), self.dropout, rng=rng)] for group in (copies, references))
            total = total - _probabilities(some, seen, goal).mean(0).clamp_min(_TINY).log()
            return total - (1 - _probabilities(others, seen, goal).mean(0)).clamp_min(_TINY).log() if others else total

        return to_uint8(descend(loss, x, steps=self.steps, lr=self.lr, radius=self._radius(x.shape[1])))


def _present(count: int, dropout: float, *, rng: torch.Generator) -> list[int]:
    """Return which of ``count`` nets a step asks: each is left out with probability ``dropout``, never all."""
    if not count:
        return []
    drawn = torch.rand(count, generator=rng)
    present = (drawn >= dropout).nonzero().flatten().tolist()
    return [int(i) for i in present] or [int(drawn.argmax())]


def _probabilities(nets: Sequence[nn.Module], x: Tensor, target: Tensor) -> Tensor:
    """Return the probability (n, N) that each net gives the target class, with its gradient."""
    return torch.stack([net(x).softmax(1).gather(1, target[:, None]).squeeze(1) for net in nets])


def _belief(nets: Sequence[nn.Module], pixels: Tensor, target: Tensor) -> Tensor:
    """Return the probability (n, N) that each net gives the target class of uint8 images."""
    found = [predict(net, pixels).softmax(1).gather(1, target[:, None]).squeeze(1) for net in nets]
    return torch.stack(found) if found else torch.zeros(0, len(pixels))
