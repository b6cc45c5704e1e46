"""weight-distance: the owner's rank among siblings by the distance of the weights, for models that begin where others may begin too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.deciding import Finding
from modelward.core.errors import Undecided
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.suspect import Access, Suspect
from modelward.marking.unit_maps import weights_of
from modelward.marking.weight_likeness import weight_likeness
from modelward.ownership.candidates import Candidates
from modelward.ownership.fingerprint import Fingerprint, Kit
from modelward.ownership.unit_order import PREFIX, WEIGHTS


@dataclass(frozen=True, kw_only=True)
class WeightDistance(Fingerprint):
    r"""Rank the owner's model among its siblings by how far their weights lie from a suspect's, beyond what all of them share.

    For every tensor it is the cosine of the candidate's and the suspect's deviation from the mean of all candidates, weighted by the square root of the
    tensor's size. Inside one public network answers hardly tell copies apart, and the order of the units is the network's: what training moved still does.

    Parameters
    ----------
    entries
        at most so many weights of a model are compared, evenly spread over its tensors: what is kept of every sibling.
    """

    card: ClassVar[Card] = Card(
        name="weight-distance",
        title="distance of the weights, ranked among siblings",
        paper="this project's own; the rank among siblings is that of its fingerprints",
        taxonomy=WEIGHTS,
        claims=withstands("ftal", "prune", "quantise"),
        limits=(
            "needs the suspect's weights, in the owner's architecture and in the order of its units",
            "a model of somebody else's can be put in the order of a suspect's units afterwards: a dated commitment alone makes it evidence",
            "a thief who trains his copy farther away than siblings lie from each other is missed",
            "without a shared start unit-order says more, and trains no siblings",
        ),
        cost="enrolment trains the siblings; verification: milliseconds",
    )
    needs: ClassVar[Access] = Access.WEIGHTS
    acquits: ClassVar[bool] = False
    forgeable: ClassVar[bool] = True  # a model of the forger's own can be put in the order of any suspect's units

    entries: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(entries=(self.entries >= 100, ">= 100"))

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return longer training at a larger rate, and what moves the units."""
        return Attack("ftal", {"lr": 0.05, "epochs": 20}, "true"), Attack("weight-shift", {}, "true"), Attack("permute", {}, "none")

    def _enrol(self, candidates: Candidates, data: ImageSet, *, rng: torch.Generator) -> Kit:
        del data, rng

        def make(model: nn.Module, _: int) -> dict[str, Tensor]:
            return {f"{PREFIX}{name}": tensor.half() for name, tensor in self._some(weights_of(model)).items()}

        each = [make(model, 0) for model in candidates.models]
        return Kit({}, {name: torch.stack([one[name] for one in each]) for name in each[0]}, make)

    def _parts(self, model: nn.Module, key: Key, place: int) -> dict[str, Tensor]:
        del key, place
        return {f"{PREFIX}{name}": tensor.half() for name, tensor in self._some(weights_of(model)).items()}

    def _some(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights at the places that are kept, flat: those of one shape are the same for every model."""
        total = sum(tensor.numel() for tensor in weights.values())
        step = max(1, -(-total // self.entries))
        return {name: tensor.flatten()[::step] for name, tensor in weights.items()}

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        some = self.enrolled(key)._some(weights_of(suspect.model))  # noqa: SLF001
        return Observation(Access.WEIGHTS, {f"{PREFIX}{name}": tensor for name, tensor in some.items()})

    def _distances(self, observed: Observation, key: Key) -> tuple[Tensor, Finding]:
        each = {name.removeprefix(PREFIX): tensor.float() for name, tensor in key.tensors.items() if name.startswith(PREFIX)}
        theirs = {name.removeprefix(PREFIX): tensor for name, tensor in observed.tensors.items()}
        count = len(next(iter(each.values())))
        found = Finding(0.0, "deviation of the weights not shared")
        if count < 2:
            return torch.ones(count, dtype=torch.float64), found
        try:
            alike = weight_likeness(theirs, [{name: tensor[place] for name, tensor in each.items()} for place in range(count)])
        except Undecided as error:
            return torch.ones(count, dtype=torch.float64), Finding(1.0, found.name, doubts=(f"{str(error)[0].upper()}{str(error)[1:]}.",))
        return torch.round(1 - alike, decimals=12), found
