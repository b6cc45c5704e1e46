"""unit-match: the owner's rank among siblings after the units of each were put in the suspect's order, for thieves who permute them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.copies import copied
from modelward.core.deciding import Finding
from modelward.core.errors import Undecided
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.suspect import Access, Suspect
from modelward.marking.unit_maps import weights_of
from modelward.marking.weight_likeness import matched_likeness
from modelward.ownership.candidates import Candidates
from modelward.ownership.fingerprint import Fingerprint, Kit
from modelward.ownership.unit_order import PREFIX, WEIGHTS


@dataclass(frozen=True, kw_only=True)
class UnitMatch(Fingerprint):
    """Put the units of the owner's model and of every sibling in the suspect's order and at its scale, and rank what likeness is left.

    Every candidate is matched by the same procedure, so that the match flatters all alike: the rank stays exact. It finds thieves who permute or rescale
    the units of their copy, which cost them nothing and hide it from `unit-order`.
    """

    card: ClassVar[Card] = Card(
        name="unit-match",
        title="likeness of the weights after matching of the units, ranked among siblings",
        paper="matching: Ainsworth, Hayase, Srinivasa: Git Re-Basin, ICLR 2023, arXiv 2209.04836; the rank among siblings is that of our fingerprints",
        taxonomy=WEIGHTS,
        claims=withstands("ftal", "prune", "quantise"),
        limits=(
            "needs the suspect's weights, in the owner's architecture",
            "the key holds the weights of all siblings, in half precision",
            "who checks evidence needs the suspect's file: the likeness is measured on it",
        ),
        cost="enrolment trains the siblings; verification: one matching a candidate, seconds",
    )
    needs: ClassVar[Access] = Access.WEIGHTS

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return what moves and stretches the units, alone and before fine-tuning."""
        return (
            Attack("permute", {}, "none"),
            Attack("rescale", {}, "none"),
            Attack("combined", {"steps": ["rescale", "permute", "ftal"]}, "true"),
        )

    def _enrol(self, candidates: Candidates, data: ImageSet, *, rng: torch.Generator) -> Kit:
        del data, rng

        def make(model: nn.Module, _: int) -> dict[str, Tensor]:
            return {f"{PREFIX}{name}": tensor.half() for name, tensor in weights_of(model).items()}

        each = [make(model, 0) for model in candidates.models]
        return Kit({}, {name: torch.stack([one[name] for one in each]) for name in each[0]}, make)

    def _parts(self, model: nn.Module, key: Key, place: int) -> dict[str, Tensor]:
        del key, place
        return {f"{PREFIX}{name}": tensor.half() for name, tensor in weights_of(model).items()}

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        stored = {name.removeprefix(PREFIX): tensor.float() for name, tensor in key.tensors.items() if name.startswith(PREFIX)}
        model, count = suspect.model, int(next(iter(stored.values())).shape[0])
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        if count < 2 or shapes != {name: tuple(tensor.shape[1:]) for name, tensor in stored.items()}:
            return Observation(Access.WEIGHTS, {"likeness": torch.zeros(0, dtype=torch.float64)})
        nets = []
        for place in range(count):
            nets.append(copied(model).float().requires_grad_(False))
            for name, parameter in nets[-1].named_parameters():
                parameter.copy_(stored[name][place])
        try:
            return Observation(Access.WEIGHTS, {"likeness": matched_likeness(weights_of(model), nets)})
        except Undecided:
            return Observation(Access.WEIGHTS, {"likeness": torch.zeros(0, dtype=torch.float64)})

    def _distances(self, observed: Observation, key: Key) -> tuple[Tensor, Finding]:
        count, alike = len(key.tensor("clean_answers")), observed.tensors["likeness"]
        found = Finding(0.0, "weights not alike after matching of the units")
        if len(alike) != count:
            doubt = "The suspect's layers have other shapes than the owner's, or cannot be followed: their units cannot be matched."
            return torch.ones(count, dtype=torch.float64), Finding(1.0, found.name, doubts=(doubt,) if count > 1 else ())
        return torch.round(1 - alike.double(), decimals=9), found
