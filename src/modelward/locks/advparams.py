"""AdvParams: lock a network by an adversarial change of a few of its parameters (Xue et al., IEEE TETC, arXiv 2105.13697)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.errors import InputError
from modelward.core.guard import private_copy, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import ModelLock
from modelward.core.ownership import Attack
from modelward.imaging.quantise import to_float
from modelward.locks.saliency import Saliency, bits_of, lockable, put_bits

PARAMETERS = Taxonomy(
    Scenario.WHITE_BOX,
    Mechanism.PARAM_ENCRYPTION,
    capacity=Capacity.NONE,
    protection=Protection.ACTIVE,
    functions=(Function.AUTHORIZATION,),
)


@dataclass(frozen=True, kw_only=True)
class AdvParams(ModelLock):
    r"""Move the parameters that the loss J depends on most, each within the range of its own layer, until the network is useless.

    For the layers in a secret order: the gradient of J over the whole of ``images`` images picks :math:`j = \arg\max |g_j|`, and
    :math:`w_j \leftarrow \mathrm{clip}(w_j + step \cdot \mathrm{sign}(g_j) (\max W - \min W), B_{low}, B_{high})`, the band being that of the
    original weights, ``beta`` of their range inside it, so that nothing sticks out. The key holds the original bits: unlocking gives every byte
    back.

    ``variant="paper"`` moves a few entries a layer, in eval mode, until the loss is ``target`` times the first. A thief undoes that with batch
    statistics measured anew, or with forty labelled images. ``variant="hardened"`` picks by what a move to the band's edge is worth, takes the
    gradients in turn as the network is, with the batch's own statistics, and of a copy that was fine-tuned for a few steps; scales, shifts and
    running statistics count as parameters; and it spends ``share`` of all parameters.

    Parameters
    ----------
    share
        of all parameters that the hardened variant may change.
    layers, per_layer
        of the paper's variant: at most so many layers, and so many moves in each.
    step, beta
        as above; the hardened variant moves to the edge of the band at once.
    target
        the paper's variant stops when the loss is so many times what it was.
    images
        that many of the images, the first ones, make the gradient.
    lookahead
        steps of the fine-tuned copy; 0 leaves it out.
    """

    card: ClassVar[Card] = Card(
        name="advparams",
        title="a few parameters moved to where they hurt most",
        paper="Xue et al.: AdvParams: An active DNN intellectual property protection technique via adversarial perturbation based parameter "
        "encryption, IEEE TETC, arXiv 2105.13697",
        taxonomy=PARAMETERS,
        limits=(
            "whoever has labelled images trains the network back: compare with training from scratch on the same images",
            "batch normalisation measured anew on unlabelled images undoes the paper's variant",
            "two builds of one model tell all positions by their difference: hand out one build, and wrap its key for every user",
            "an authorised user holds the open model in memory",
        ),
        cost="one forward and backward pass over the images for every parameter that is moved",
    )

    share: float = 0.005
    layers: int = 25
    per_layer: int = 3
    step: float = 0.2
    beta: float = 0.1
    target: float = 50.0
    images: int = 256
    lookahead: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            share=(0 < self.share <= 1, "in (0, 1]"), layers=(self.layers >= 1, ">= 1"), per_layer=(self.per_layer >= 1, ">= 1"),
            step=(0 < self.step <= 1, "in (0, 1]"), beta=(0 <= self.beta < 0.5, "in [0, 0.5)"), target=(self.target > 1, "> 1"),
            images=(self.images >= 2, ">= 2"), lookahead=(self.lookahead >= 0, ">= 0"),
        )  # fmt: skip

    def _lock(self, model: nn.Module, data: ImageSet, *, secret: bytes | None, rng: torch.Generator) -> tuple[nn.Module, Key]:
        del secret
        locked = private_copy(model)
        for tensor in (*locked.parameters(), *locked.buffers()):
            tensor.data = tensor.data.contiguous()  # entries are numbered row by row, whatever the layout in memory was
        tensors = lockable(locked, statistics=self.variant == "hardened")
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        part = data.take(slice(0, self.images))
        saliency = Saliency(
            locked, to_float(part.pixels), part.labels, lookahead=self.lookahead if self.variant == "hardened" else 0, rng=rng
        )
        log = self._paper(tensors, saliency, rng=rng) if self.variant == "paper" else self._hardened(tensors, saliency)
        return locked, self._key(model, locked, before, tensors, log)

    def _paper(self, tensors: Mapping[str, Tensor], saliency: Saliency, *, rng: torch.Generator) -> dict[str, Any]:
        """Move ``per_layer`` entries of one weight tensor after the other."""
        names = [name for name, tensor in tensors.items() if tensor.ndim >= 2]
        names = [names[i] for i in torch.randperm(len(names), generator=rng)[: self.layers].tolist()]
        first = loss = saliency.loss()
        for name in names:
            tensor, (low, high) = tensors[name], band(tensors[name], self.beta)
            reach, open_ = self.step * float(tensor.detach().max() - tensor.detach().min()), torch.ones(tensor.numel(), dtype=torch.bool)
            for _ in range(self.per_layer):
                loss, grads = saliency.gradients(0)
                if loss > self.target * first:
                    return {"loss_before": first, "loss_after": loss}
                flat, grad = tensor.detach().view(-1), grads[name].reshape(-1)
                j = int((grad.abs() * open_).argmax())
                flat[j] = min(max(float(flat[j]) + reach * float(grad[j].sign()), low), high)
                open_[j] = bool(low < float(flat[j]) < high)
        return {"loss_before": first, "loss_after": saliency.loss()}

    def _hardened(self, tensors: Mapping[str, Tensor], saliency: Saliency) -> dict[str, Any]:
        """Spend the whole budget, each time on the entry whose way to the edge of its band is worth most to first order."""
        bands = {name: band(tensor, self.beta if tensor.ndim >= 2 else 0.0) for name, tensor in tensors.items()}
        moved = {name: torch.zeros(tensor.numel(), dtype=torch.bool) for name, tensor in tensors.items()}
        budget = max(1, int(self.share * sum(tensor.numel() for tensor in tensors.values())))
        first = saliency.loss()
        for number in range(budget):
            _, grads = saliency.gradients(number)
            best = max((_best(name, tensors[name], grads[name], bands[name], moved[name]) for name in grads), key=lambda found: found[0])
            _, name, j, value = best
            tensors[name].detach().view(-1)[j] = value
            moved[name][j] = True
        return {"loss_before": first, "loss_after": saliency.loss()}

    def _key(self, model: nn.Module, locked: nn.Module, before: dict[str, Tensor], after: Mapping[str, Tensor], log: dict[str, Any]) -> Key:
        """Return the key: which entries of which tensors were changed, and their original bits."""
        names: list[str] = []
        tensors: dict[str, Tensor] = {}
        for name, tensor in after.items():
            index = torch.nonzero(bits_of(tensor).ne(bits_of(before[name])).any(1)).flatten()
            if len(index):
                tensors[f"index/{len(names)}"], tensors[f"bits/{len(names)}"] = index, bits_of(before[name])[index].clone()
                names.append(name)
        count = sum(len(tensor) for name, tensor in tensors.items() if name.startswith("index/"))
        facts = {"settings": self.settings(), "names": names, "entries": count, "original": state_digest(model), **log}
        return Key(self.card.name, self.variant, state_digest(locked), facts, tensors)

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

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return batch statistics measured anew, and training back with few images."""
        return (
            Attack("bn-recalibrate", {}, "none"),
            Attack("ftal", {"epochs": 10}, "true"),
            Attack("ftal", {"lr": 0.001, "epochs": 10}, "true"),
        )


def band(tensor: Tensor, beta: float) -> tuple[float, float]:
    """Return the band that a tensor's values may lie in: its own range, ``beta`` of it cut off on both sides."""
    low, high = (float(value) for value in tensor.detach().aminmax())
    return low + beta * (high - low), high - beta * (high - low)


def _best(name: str, tensor: Tensor, grad: Tensor, limits: tuple[float, float], moved: Tensor) -> tuple[float, str, int, float]:
    """Return the entry whose move to the edge of its band adds most to the loss, to first order: its worth, name, place and new value."""
    flat, slope = tensor.detach().reshape(-1), grad.reshape(-1)
    edge = torch.where(slope > 0, torch.full_like(flat, limits[1]), torch.full_like(flat, limits[0]))
    worth = ((edge - flat) * slope).masked_fill(moved, -torch.inf)
    j = int(worth.argmax())
    return float(worth[j]), name, j, float(edge[j])
