"""AdvParams: lock a network by an adversarial change of a few of its parameters (Xue et al., IEEE TETC, arXiv 2105.13697)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelward.attacks.theft.fill_outliers import outlyingness
from modelward.core.card import Active, Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import Claim, withstands
from modelward.core.errors import InputError
from modelward.core.guard import private_copy, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import ModelLock
from modelward.core.ownership import Attack
from modelward.imaging.quantise import to_float
from modelward.keys.derive import stream
from modelward.marking.moves import Move, by_layer, by_worth
from modelward.marking.saliency import Saliency, bits_of, every_class, lockable, put_bits
from modelward.marking.swaps import by_swap
from modelward.statistics import auc_delong

PARAMETERS = Taxonomy(
    Scenario.WHITE_BOX,
    Mechanism.PARAM_ENCRYPTION,
    capacity=Capacity.NONE,
    protection=Protection.ACTIVE,
    functions=(Function.AUTHORIZATION,),
)


LANDINGS = ("swap", "edge")


@dataclass(frozen=True, eq=False)
class Trail:
    """How a network was locked, every move in order, the loss before and after."""

    locked: nn.Module
    moves: tuple[Move, ...]
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class AdvParams(ModelLock):
    r"""Move the parameters that the loss J depends on most, each within the range of its own layer, until the network is useless.

    For the layers in a secret order: the gradient of J over the whole of ``images`` images picks :math:`j = \arg\max |g_j|`, and
    :math:`w_j \leftarrow \mathrm{clip}(w_j + step \cdot \mathrm{sign}(g_j) (\max W - \min W), B_{low}, B_{high})`, the band being that of the
    original weights, ``beta`` of their range inside it. The key holds the original bits: unlocking gives every byte back.

    ``variant="paper"`` moves a few entries a layer, in eval mode, until the loss is ``target`` times the first. A thief undoes that with batch
    statistics measured anew, or with forty labelled images. ``variant="hardened"`` exchanges pairs of entries of one tensor, by what that is
    worth: :math:`(w_k - w_j)(g_j - g_k)`; the values tell nothing of it, since every tensor holds the same ones as before. It takes the gradients
    in turn as the network is, with the batch's own statistics, and of a copy that was fine-tuned for a few steps; scales, shifts and running
    statistics count as parameters; and it spends ``share`` of all parameters.

    Parameters
    ----------
    share
        of all parameters that the hardened variant may change.
    layers, per_layer
        of the paper's variant: at most so many layers, and so many moves in each. The paper's own numbers are not known; these, ``step``, ``beta``
        and ``target`` are the gentlest of few that lock both LeNet-5 and ResNet-8.
    step
        as above, in the paper's variant alone.
    beta
        as above, where entries land at the edge; ``None`` is 0 in the paper's variant, .1 in the hardened one.
    target
        the paper's variant stops when the loss is so many times what it was.
    images
        that many of the images, as evenly over the classes as can be, make the gradient.
    lookahead
        steps of the fine-tuned copy; 0 leaves it out.
    each
        entries that the hardened variant moves for one gradient.
    admitted
        share of the parameters, drawn by the secret, that the hardened variant may move at all: the places of two builds differ.
    landing
        where the hardened variant's entries go: ``"swap"``, to each other's places, or ``"edge"``, to the end of the band: what `EqualValues` finds.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> from modelward.training import accuracy
    >>> model, data = embedded_model().model, load_data("fashion-mini")
    >>> locked, key = AdvParams(share=0.001, images=32).lock(model, data.train, rng=generator(0))
    >>> accuracy(locked, data.test) < 0.5 < accuracy(model, data.test), key.facts["entries"]
    (True, 60)
    """

    card: ClassVar[Card] = Card(
        name="advparams",
        title="a few parameters moved to where they hurt most",
        paper="Xue et al.: AdvParams: An active DNN intellectual property protection technique via adversarial perturbation based parameter "
        "encryption, IEEE TETC, arXiv 2105.13697",
        taxonomy=PARAMETERS,
        claims=(*withstands("prune"), Claim("no better than chance and 5 points without the key", metric="unauthorised", most=0.15)),
        limits=(
            "whoever has labelled images trains it back: 100 of fashion-mini give .70 of LeNet-5 (scratch .69), .72 of a CNN (.71), .69 of ResNet-8 (.58)",
            "values tell nothing of what was exchanged; what labelled images tell by their gradient is measured, not excluded",
            "batch normalisation measured anew on unlabelled images undoes the paper's variant",
            "two builds of one model tell by their difference what was moved in either: hand out one build, and wrap its key for every user",
            "an authorised user holds the open model in memory, and the entries of the key: its tag keeps others' names off it, not the user's own on it",
        ),
        cost="a forward and backward pass over 256 images for every parameter (paper) or every four (hardened): a minute and a half for a ResNet-8",
        active=Active(
            carrier="parameter key: places and original bits",
            granularity="all or nothing",
            identity="every user's key is wrapped for that user and tagged with the name",
            revocable="only by a new build and new keys: an opened copy stays open",
            overhead="none once opened; milliseconds to open",
            black_box="no: whoever opens holds the weights",
        ),
    )
    small: ClassVar[Mapping[str, Any]] = {"share": 0.01, "images": 64}

    share: float = 0.01
    layers: int = 5
    per_layer: int = 12
    step: float = 1.0
    beta: float | None = None
    target: float = 1e6
    images: int = 256
    lookahead: int = 5
    each: int = 4
    admitted: float = 0.5
    landing: str = "swap"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            share=(0 < self.share <= 1, "in (0, 1]"), layers=(self.layers >= 1, ">= 1"), per_layer=(self.per_layer >= 1, ">= 1"),
            step=(0 < self.step <= 1, "in (0, 1]"), beta=(0 <= self.inset < 0.5, "in [0, 0.5)"), target=(self.target > 1, "> 1"),
            images=(self.images >= 2, ">= 2"), lookahead=(self.lookahead >= 0, ">= 0"), each=(self.each >= 1, ">= 1"),
            admitted=(0 < self.admitted <= 1, "in (0, 1]"), landing=(self.landing in LANDINGS, " or ".join(LANDINGS)),
        )  # fmt: skip

    @property
    def inset(self) -> float:
        """Share of a tensor's range that its band lies inside it."""
        return {"paper": 0.0}.get(self.variant, 0.1) if self.beta is None else self.beta

    def trail(self, model: nn.Module, data: ImageSet, *, secret: bytes | None = None, rng: torch.Generator) -> Trail:
        """Return the locked model with every move that led to it; raises `InputError` where a class has no image."""
        places = rng if secret is None else stream(secret, self.card.name, "places")
        part, hardened = data.take(every_class(data, self.images)), self.variant == "hardened"
        locked = private_copy(model)
        for tensor in (*locked.parameters(), *locked.buffers()):
            tensor.data = tensor.data.contiguous()  # entries are numbered row by row, whatever the layout in memory was
        tensors = lockable(locked, statistics=hardened)
        saliency = Saliency(
            locked, to_float(part.pixels), part.labels, lookahead=self.lookahead if hardened else 0, statistics=hardened, rng=rng
        )
        first = saliency.loss()
        moves = tuple(self._moves(tensors, saliency, first, places=places))
        return Trail(locked, moves, first, saliency.loss())

    def _lock(self, model: nn.Module, data: ImageSet, *, secret: bytes | None, rng: torch.Generator) -> tuple[nn.Module, Key]:
        made = self.trail(model, data, secret=secret, rng=rng)
        return made.locked, self.key_of(model, made.locked, loss_before=made.before, loss_after=made.after)

    def _moves(self, tensors: Mapping[str, Tensor], saliency: Saliency, first: float, *, places: torch.Generator) -> Iterator[Move]:
        """Yield every move once it is made; ``first`` is the loss of the open network, ``places`` draws where moves may be."""
        if self.variant == "hardened":
            barred = {name: torch.rand(tensor.numel(), generator=places) >= self.admitted for name, tensor in tensors.items()}
            if self.landing == "edge":
                return islice(by_worth(tensors, saliency, beta=self.inset, each=self.each, barred=barred), self.budget(saliency.model))
            return islice(by_swap(tensors, saliency, each=self.each, barred=barred), self.budget(saliency.model))
        names = [name for name, tensor in tensors.items() if tensor.ndim >= 2]
        names = [names[i] for i in torch.randperm(len(names), generator=places)[: self.layers].tolist()]
        until = self.target * first
        return by_layer(tensors, saliency, names=names, count=self.per_layer, step=self.step, beta=self.inset, until=until)

    def budget(self, model: nn.Module) -> int:
        """Return how many entries the hardened variant moves: its share of the parameters, statistics not counted, in whole pairs."""
        count = max(1, int(self.share * sum(tensor.numel() for tensor in lockable(model, statistics=False).values())))
        return count if self.landing == "edge" else max(2, count - count % 2)

    def key_of(self, model: nn.Module, locked: nn.Module, **facts: Any) -> Key:
        """Return the key that turns ``locked`` into ``model``: which entries of which tensors differ, and their original bits."""
        names: list[str] = []
        tensors: dict[str, Tensor] = {}
        before = lockable(model, statistics=True)
        for name, tensor in lockable(locked, statistics=True).items():
            index = torch.nonzero(bits_of(tensor).ne(bits_of(before[name])).any(1)).flatten()
            if len(index):
                tensors[f"index/{len(names)}"], tensors[f"bits/{len(names)}"] = index, bits_of(before[name])[index].clone()
                names.append(name)
        count = sum(len(tensor) for name, tensor in tensors.items() if name.startswith("index/"))
        told = {"settings": self.settings(), "names": names, "entries": count, "original": state_digest(model), **facts}
        return Key(self.card.name, self.variant, state_digest(locked), told, tensors)

    def _unlock(self, locked: nn.Module, key: Key) -> nn.Module:
        opened = private_copy(locked)
        state = opened.state_dict()
        for number, name in enumerate(key.fact(list, "names")):
            if name not in state:
                message = f"the key speaks of a parameter {name!r} that this model lacks; it opens another model"
                raise InputError(message)
            put_bits(state[name], key.tensor(f"index/{number}"), key.tensor(f"bits/{number}"))
        if state_digest(opened) != key.fact(str, "original"):
            raise InputError("the opened model is not the one that was locked: the key lacks entries, or holds others")
        return opened

    def stealth(self, model: nn.Module, locked: nn.Module, key: Key, images: ImageSet) -> Mapping[str, float]:
        """Return the AUC of telling the entries of the key from all others by how far they stick out of their tensor; .5 is hidden."""
        del model, images
        return {"auc": auc_delong(*outliers(locked, key)).value}

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return batch statistics measured anew, training back with few images, what is distilled from that, and the ways to look for the entries."""
        few = {"lr": 0.001, "epochs": 10, "optimizer": "adam"}
        long = {"images": 100, "epochs": 40, "batch": 16}
        return (
            Attack("bn-recalibrate", {}, "none"),
            Attack("ftal", {"epochs": 10}, "true"),
            Attack("ftal", few, "true"),
            Attack("combined", {"steps": [["ftal", few], "distil"]}, "true"),
            Attack("undo-gradient", {}, "true"),
            Attack("reverse-lock", {}, "true"),
            Attack("reverse-lock", {"rule": "layer"}, "true"),
            Attack("reverse-lock", {"rule": "swap", "share": 0.01, "each": 4}, "true"),
            Attack("fill-outliers", {}, "true"),
            Attack("equal-values", {}, "true"),
            Attack("value-clusters", {}, "true"),
            Attack("nearest-sibling", {}, "true"),
            Attack("gradient-fill", {}, "true"),
            *(Attack("layer-ridge", {"cut": cut}, "true") for cut in (1, 2, 3)),
            Attack("clip-outliers", long, "true"),
        )


def outliers(model: nn.Module, key: Key) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far the entries of ``key`` and all others stick out of their tensors, in robust standard deviations."""
    positions = {name: key.tensor(f"index/{number}") for number, name in enumerate(key.fact(list, "names"))}
    mine, others = [], []
    for name, tensor in lockable(model, statistics=key.variant == "hardened").items():
        scores, chosen = outlyingness(tensor), torch.zeros(tensor.numel(), dtype=torch.bool)
        chosen[positions.get(name, torch.zeros(0, dtype=torch.int64))] = True
        mine.append(scores[chosen])
        others.append(scores[~chosen])
    far, near = (torch.cat(scores).clamp(max=1e9).numpy() for scores in (mine, others))
    return far, near
