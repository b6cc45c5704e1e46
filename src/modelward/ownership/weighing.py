"""Marks in the filter mean of one layer: how they are embedded, and how they are read from a suspect's weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Capacity, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.deciding import Finding
from modelward.core.errors import FormatError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY, Key
from modelward.core.ownership import Attack, NotTaken, Observation
from modelward.core.rng import forked
from modelward.core.suspect import Access, Suspect
from modelward.keys.derive import derive
from modelward.marking.alignment import aligned
from modelward.marking.embedding import STARTS, fresh_copy
from modelward.marking.weights import filter_mean
from modelward.ownership.drawing import secret_of
from modelward.ownership.mark import Mark, MarkMethod
from modelward.training import Extras, Recipe, fit
from modelward.training.extras import Penalty

PARAMETER = Taxonomy(
    Scenario.WHITE_BOX, Mechanism.PARAMETER, capacity=Capacity.MULTI_BIT, protection=Protection.PASSIVE, functions=(Function.OWNERSHIP,)
)
REFERENCE = "reference/"
ROUNDS = 3
AS_THEY_ARE = "The weights were read as they are: a copy whose neurons were renamed or rescaled would be missed."
UNKEPT = "The bits in this key are not those that its secret gives: nothing says that they were drawn, so that nothing can be concluded."


@dataclass(frozen=True, kw_only=True)
class WeightMethod(MarkMethod):
    r"""Teach the mean w of one layer's filters to give a message under a secret projection X, by a penalty beside the task's loss.

    ``variant="hardened"`` keeps the weights of the unmarked source in the key and, before it reads a suspect, puts the suspect's neurons in their
    order and at their scale: to rename or rescale neurons costs a thief nothing. The source knows nothing of the secret, so that what is read from a
    stranger does not either, and the p-value over the secret is exact; the published model is brought to that order and scale too, and embedding goes
    on until the mark is read right through it. ``variant="paper"``, and a model that is trained from scratch, have no such order: weights are read
    as they are.

    Parameters
    ----------
    layer
        name of a linear or convolutional layer; ``auto``: the hidden convolution with the longest filters, else such a linear layer.
    start
        ``"finetune"`` the owner's model, or train ``"scratch"``, a new one of its architecture.
    epochs, batch, lr, optimizer
        of the embedding; the rate falls to 0 on a cosine.
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    layer: str = "auto"
    start: str = "finetune"
    epochs: int = 8
    batch: int = 64
    lr: float = 0.02
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            start=(self.start in STARTS, " or ".join(STARTS)), epochs=(self.epochs >= 1, ">= 1"), batch=(self.batch >= 2, ">= 2"),
            lr=(self.lr > 0, "> 0"), optimizer=(self.optimizer in {"sgd", "adam"}, "sgd or adam"),
        )  # fmt: skip

    @property
    def recipe(self) -> Recipe:
        """How the mark is embedded."""
        return Recipe(epochs=self.epochs, batch=self.batch, lr=self.lr, optimizer=self.optimizer, schedule="cosine")

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        made = fresh_copy(model, self.start, rng=rng)
        for _ in range(ROUNDS):
            with forked(rng):
                fit(made, data.pixels, data.labels, self.recipe, rng=rng, extras=Extras(penalty=self._penalty(mark)), task=self.card.name)
            made = realigned(made, mark.tensors).requires_grad_()
            found = self._read(made, mark)
            if not found.statistic:
                break
        require_taken(found, made, self.card.name, self._strength)
        return made

    def _read(self, model: nn.Module, mark: Mark) -> Finding:
        """Return what is found of ``mark`` in a model, as a suspect is read."""
        key = Key(self.card.name, self.variant, "", {**mark.facts, "settings": self.settings()}, mark.tensors)
        return self._finding(self._observe(Suspect.of_model(model), key), key)

    def _referred(self, mark: Mark, model: nn.Module) -> Mark:
        """Return ``mark`` with the order and scale that suspects are brought to, where there is one."""
        return with_reference(mark, model) if self.variant == "hardened" and self.start == "finetune" else mark

    @property
    @abstractmethod
    def _strength(self) -> tuple[str, float]:
        """Name and value of the weight that the mark has beside the task; 0 embeds nothing, as a control."""

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        model = suspect.model
        name, width = key.fact(str, "layer"), int(key.fact(float, "width"))
        filter_mean(model, name, width)  # a network without the layer is refused before anything is copied
        with torch.no_grad():
            mean = filter_mean(realigned(model, key.tensors), name, width)
        return Observation(suspect.access, {"mean": mean.detach().cpu()})

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return a second mark of the same scheme, shifted filters, and what changes weights but no answer."""
        return (
            Attack("overwrite", {"method": self.card.name}, "stolen"),
            Attack("weight-shift", {}, "true"),
            Attack("permute", {}, "none"),
            Attack("rescale", {}, "none"),
            Attack("combined", {"steps": ["rescale", "permute", ["ftal", {"lr": 0.001}]]}, "stolen"),
        )

    @abstractmethod
    def _penalty(self, mark: Mark) -> Penalty:
        """Return what is added to the loss."""


def require_taken(found: Finding, model: nn.Module, who: str, strength: tuple[str, float]) -> None:
    """Raise `NotTaken` where a mark was not taken well enough to be claimed, though it could have been."""
    name, value = strength
    if value and found.ceiling is not None and 0 <= found.ceiling < found.statistic:
        message = f"{who}: after {ROUNDS} rounds {found.statistic:.0%} are {found.name}, which proves nothing; train longer, or raise {name} above {value:g}"
        raise NotTaken(message, model)


def with_reference(mark: Mark, model: nn.Module, prefix: str = REFERENCE) -> Mark:
    """Return ``mark`` with the parameters of ``model``, by default of the unmarked one, which say in what order neurons stand."""
    kept = {prefix + name: parameter.detach().float().clone() for name, parameter in model.named_parameters()}
    return Mark({**mark.tensors, **kept}, mark.facts)


def realigned(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str = REFERENCE) -> nn.Module:
    """Return ``model`` with its neurons in the order and at the scale of a reference, by default the unmarked source, where a key holds it."""
    reference = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return aligned(model, reference) if reference else model


def unordered(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return a note where weights are read as they are."""
    return () if any(name.startswith(REFERENCE) for name in tensors) else (AS_THEY_ARE,)


def bound_secret(tensors: Mapping[str, Tensor]) -> bytes:
    """Return what bits, projections and passports are drawn from: the key's secret, bound to the reference where there is one.

    So a reference is fixed before anything is drawn. Were it not, somebody could sort the neurons of any suspect by it until the bits are right.
    """
    reference = {name: tensor for name, tensor in tensors.items() if name.startswith(REFERENCE)}
    return derive(secret_of(tensors), "reference", state_digest(reference)) if reference else secret_of(tensors)


def bits_in(tensors: Mapping[str, Tensor], count: int) -> Tensor:
    """Return the bits of a mark, uint8 (count,); raises `FormatError` for a key that holds others."""
    bits = tensors.get("bits")
    if bits is None or bits.dtype != torch.uint8 or bits.shape != (count,) or not bool((bits <= 1).all()):
        message = f"this key should hold {count} bits and does not: {REMEDY}"
        raise FormatError(message)
    return bits


def require_mean(observed: Observation, width: int) -> Tensor:
    """Return the filter mean that was observed, float (width,); raises `FormatError` for an observation that holds none."""
    mean = observed.tensors.get("mean")
    if mean is None or mean.shape != (width,) or not mean.is_floating_point() or not bool(torch.isfinite(mean).all()):
        message = f"the mean filter of {width} weights was not observed of this suspect; ask it again"
        raise FormatError(message)
    return mean
