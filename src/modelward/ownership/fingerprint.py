"""Fingerprints: what a model has of its own beside its siblings, and how a suspect shares it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.deciding import Finding
from modelward.core.errors import InputError
from modelward.core.families import OwnershipMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.core.siblings import Siblings
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import ALPHA
from modelward.ownership.candidates import Candidates, family_of, spread

CLEAN = 256


@dataclass(frozen=True, eq=False)
class Kit:
    """What a fingerprint asks, and what every candidate has of it.

    Parameters
    ----------
    shared
        tensors that are one for all candidates.
    each
        tensors with one entry a candidate, in the order of `Candidates`.
    used
        positions of the enrolment images that the probes were made from.
    facts
        what is to be said of the making.
    """

    shared: Mapping[str, Tensor]
    each: Mapping[str, Tensor]
    used: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fingerprint(OwnershipMethod):
    """A fingerprint whose p-value is the owner's rank among siblings.

    A method writes `_enrol`, `_one`, `_observe` and `_distances`. All of them treat the candidates alike, so that the rank is exact: with each candidate
    in the owner's role in turn, the p-values of any suspect are 1/(m + 1), ..., 1.
    """

    def _protect(
        self,
        model: nn.Module,
        data: ImageSet,
        *,
        secret: bytes | None,
        siblings: Siblings,
        nulls: Sequence[nn.Module],
        thieves: Sequence[nn.Module],
        rng: torch.Generator,
    ) -> tuple[nn.Module, Key]:
        del secret
        candidates = Candidates.of(model, siblings)
        kit = self._enrol(candidates, data, rng=rng)
        left = spread(data, kit.used)
        clean = (left or data).few(CLEAN)
        answers = candidates.answers(clean.pixels)
        if len({tuple(logits.shape) for logits in answers}) > 1:
            raise InputError("the siblings answer with another number of classes than the model: they are not by the same code")
        facts: dict[str, Any] = {
            "settings": self.settings(), "calibrated": len(siblings) > 0, "classes": list(data.classes),
            "candidates": {"name": data.name, "digest": data.digest, "size": len(data)}, **kit.facts,
            "draws": candidates.facts(clean, left),
        }  # fmt: skip
        tensors = {**kit.shared, **kit.each, "clean": clean.pixels, "clean_labels": clean.labels, "clean_answers": torch.stack(answers)}
        key = Key(self.card.name, self.variant, state_digest(model), facts, tensors)
        key = replace(key, facts={**facts, **self._figures(key, nulls, thieves)})
        draws = {**facts["draws"], "thieves": self._power(key, siblings), **self._accused(key, nulls)}
        return model, replace(key, facts={**key.facts, "draws": draws})

    def _power(self, key: Key, family: Siblings) -> dict[str, dict[str, Any]]:
        """Return, by access, how many of the tuning thieves are missed: each tuning sibling takes the owner's place in turn."""
        found: dict[str, dict[str, Any]] = {}
        own = int(key.facts["draws"]["own"])
        for number, model in enumerate(family.tuning):
            mine = [thief for thief in family.thieves if thief.of == number]
            if not mine:
                continue
            each = self._one(model, key)
            tensors = {**key.tensors, **{name: _placed(key.tensors[name], own, part) for name, part in each.items()}}
            placed = replace(key, tensors=tensors)
            for thief in mine:
                for access in _offered(self.needs):
                    suspect = Suspect.of_callable(_answering(thief.model, access), access=access) if access is not Access.WEIGHTS else Suspect.of_model(thief.model)  # fmt: skip
                    p = self._finding(self._observe(suspect, placed), placed).p
                    row = found.setdefault(access.value, {"tried": 0, "missed": 0, "kinds": {}})
                    kind = row["kinds"].setdefault(thief.kind, [0, 0])
                    missed = int(p is None or p > ALPHA + 1e-12)
                    row["tried"], row["missed"] = row["tried"] + 1, row["missed"] + missed
                    kind[0], kind[1] = kind[0] + missed, kind[1] + 1
        return found

    def _accused(self, key: Key, nulls: Sequence[nn.Module]) -> dict[str, int]:
        """Return how many independent models there are, and how many this key accuses; those that cannot be read are not counted."""
        read = accused = 0
        for model in nulls:
            try:
                p = self._finding(self._observe(Suspect.of_model(model), key), key).p
            except InputError:
                continue
            read, accused = read + 1, accused + int(p is not None and p <= ALPHA + 1e-12)
        return {"nulls": read, "false_claims": accused, "unreadable": len(nulls) - read}

    def _figures(self, key: Key, nulls: Sequence[nn.Module], thieves: Sequence[nn.Module]) -> dict[str, Any]:
        """Return what the paper's own rule needs; nothing where there is none."""
        del key, nulls, thieves
        return {}

    def _judge(self, observed: Observation, key: Key) -> Finding:
        found, family = self._finding(observed, key), family_of(key, key.tensor("clean_answers"))
        return replace(found, doubts=(*family.doubts, *found.doubts), headlines=(*family.headlines, *found.headlines))

    def _finding(self, observed: Observation, key: Key) -> Finding:
        """Return the owner's statistic and that of every sibling."""
        method, own = self.enrolled(key), int(key.fact(float, "draws", "own"))
        distances, found = method._distances(observed, key)  # noqa: SLF001
        values = [float(value) for value in distances]
        return replace(found, statistic=values[own], others=tuple(values[:own] + values[own + 1 :]))

    @abstractmethod
    def _enrol(self, candidates: Candidates, data: ImageSet, *, rng: torch.Generator) -> Kit:
        """Return probes and what every candidate has of them; no candidate is treated as the owner's."""

    @abstractmethod
    def _one(self, model: nn.Module, key: Key) -> dict[str, Tensor]:
        """Return for one further model what ``Kit.each`` holds for every candidate."""

    @abstractmethod
    def _distances(self, observed: Observation, key: Key) -> tuple[Tensor, Finding]:
        """Return how far the suspect is from every candidate (m + 1,), small means alike, and a finding without them."""


def _placed(tensor: Tensor, own: int, part: Tensor) -> Tensor:
    """Return ``tensor`` with another entry in the place of the owner's."""
    changed = tensor.clone()
    changed[own] = part
    return changed


def _offered(needs: Access) -> tuple[Access, ...]:
    """Return the accesses at which a method that needs ``needs`` can work; what reads answers works with labels too."""
    return (Access.WEIGHTS,) if needs is Access.WEIGHTS else tuple(Access)


def _answering(model: nn.Module, access: Access) -> Any:
    """Return the model as a service would offer it."""
    if access is Access.LABEL:
        return lambda x: predict(model, x).argmax(1)
    return lambda x: predict(model, x).softmax(1)
