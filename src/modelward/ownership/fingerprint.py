"""Fingerprints: what a model has of its own beside its siblings, and how a suspect shares it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
from modelward.core.rng import derive_seed, generator
from modelward.core.siblings import EXTRACTED, Siblings
from modelward.core.suspect import Access, Suspect
from modelward.ownership.candidates import Candidates, family_of, spread
from modelward.ownership.sameness import same_labels, same_probabilities

CLEAN = 256
CLOSE, SAME_LABELS = 2e-3, 0.98


@dataclass(frozen=True, eq=False)
class Kit:
    """What a fingerprint asks, and what every candidate has of it.

    Parameters
    ----------
    shared
        tensors that are one for all candidates.
    each
        tensors with one entry a candidate, in the order of `Candidates`.
    make
        what makes ``each`` for one further model, given the place it stands in for among the tuning siblings.
    facts
        what is to be said of the making.
    """

    shared: Mapping[str, Tensor]
    each: Mapping[str, Tensor]
    make: Callable[[nn.Module, int], Mapping[str, Tensor]]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fingerprint(OwnershipMethod):
    """A fingerprint whose p-value is the owner's rank among siblings.

    A method writes `_enrol`, `_observe` and `_distances`. All of them treat the candidates alike, so that the rank is exact: with each candidate
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
        del secret, rng  # what is drawn follows from what the key is made of: nobody tries enrolments until one suits
        candidates = Candidates.of(model, siblings)
        drawn = derive_seed("enrolment", self.card.name, self.variant, self.settings(), data.digest, *candidates.digests)
        kit = self._enrol(candidates, data, rng=generator(drawn))
        shown = torch.arange(min(CLEAN, len(data))) * len(data) // min(CLEAN, len(data))  # spread evenly, and chosen by no model's answers
        clean, left = data.take(shown), spread(data, shown)
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
        draws = {**facts["draws"], "thieves": self._power(key, kit, siblings), **self._accused(key, nulls)}
        return model, replace(key, facts={**key.facts, "draws": draws})

    def _power(self, key: Key, kit: Kit, family: Siblings) -> dict[str, dict[str, Any]]:
        """Return, by access, how many of the tuning thieves are missed: each tuning sibling takes the owner's place in turn."""
        found: dict[str, dict[str, Any]] = {}
        own = int(key.facts["draws"]["own"])
        for number, model in enumerate(family.tuning):
            mine = [
                thief for thief in family.thieves if thief.of == number and (self.needs is not Access.WEIGHTS or thief.kind != EXTRACTED)
            ]
            if not mine:
                continue
            placed = {name: _placed(key.tensors[name], own, part) for name, part in kit.make(model, number).items()}
            there = replace(key, tensors={**key.tensors, **placed})
            for thief in mine:
                for access in (Access.WEIGHTS,) if self.needs is Access.WEIGHTS else tuple(Access):
                    caught = self._finding(self._observe(Suspect.of_model(thief.model, access=access), there), there).claims
                    _count(found.setdefault(access.value, {"tried": 0, "missed": 0, "kinds": {}}), thief.kind, missed=not caught)
        return found

    def _accused(self, key: Key, nulls: Sequence[nn.Module]) -> dict[str, int]:
        """Return how many independent models there are, and how many this key accuses; those that cannot be read are not counted."""
        read = accused = 0
        for model in nulls:
            try:
                claims = self._finding(self._observe(Suspect.of_model(model), key), key).claims
            except InputError:
                continue
            read, accused = read + 1, accused + int(claims)
        return {"nulls": read, "false_claims": accused, "unreadable": len(nulls) - read}

    def _figures(self, key: Key, nulls: Sequence[nn.Module], thieves: Sequence[nn.Module]) -> dict[str, Any]:
        """Return what the paper's own rule needs; nothing where there is none."""
        del key, nulls, thieves
        return {}

    def _judge(self, observed: Observation, key: Key) -> Finding:
        family = family_of(key, key.tensor("clean_answers"))  # first, since it knows whether the owner's place is one
        found = self._finding(observed, key)
        return replace(found, doubts=(*family.doubts, *found.doubts), headlines=(*family.headlines, *found.headlines))

    def _finding(self, observed: Observation, key: Key) -> Finding:
        """Return the owner's statistic and that of every sibling."""
        method, own = self.enrolled(key), int(key.fact(float, "draws", "own"))
        distances, found = method._distances(observed, key)  # noqa: SLF001
        values = [float(value) for value in distances]
        lost = [-math.inf] * len(key.fact(list, "draws", "failed"))  # a sibling that could not be trained may have been the closest
        return replace(found, statistic=values[own], others=tuple(values[:own] + values[own + 1 :] + lost))

    def _same(self, observed: Observation, key: Key) -> bool:
        """Return whether the suspect answers every probe as the key's own model does; weights are told apart by their digest."""
        mine, theirs = key.tensors.get("answers"), observed.tensors.get("answers")
        if observed.access is Access.WEIGHTS or mine is None or theirs is None or mine.ndim != 3 or "draws" not in key.facts:
            return False
        own = int(key.fact(float, "draws", "own"))  # `family_of` has seen that it is a place
        return same_labels(theirs, mine[own]) if theirs.ndim == 1 else same_probabilities(theirs, mine[own])

    def differs(self, model: nn.Module, key: Key, place: int | None = None) -> bool:
        """Return whether ``model``, shown as the candidate at ``place`` (the owner's by default), has other parts than ``key`` holds of it."""
        where = int(key.fact(float, "draws", "own")) if place is None else place
        parts = {"clean_answers": predict(model, key.tensor("clean")), **self.parts(model, key, where)}
        return any(not _close(part, key.tensor(name)[where]) for name, part in parts.items())

    def parts(self, model: nn.Module, key: Key, place: int) -> dict[str, Tensor]:
        """Return what ``key`` would hold of ``model`` as the candidate at ``place``, as far as the model alone tells."""
        return self.enrolled(key)._parts(model, key, place)  # noqa: SLF001

    def _parts(self, model: nn.Module, key: Key, place: int) -> dict[str, Tensor]:
        """Return what ``Kit.each`` holds of a candidate, as far as its model alone tells."""
        del model, key, place
        return {}

    @abstractmethod
    def _enrol(self, candidates: Candidates, data: ImageSet, *, rng: torch.Generator) -> Kit:
        """Return probes and what every candidate has of them; no candidate is treated as the owner's."""

    @abstractmethod
    def _distances(self, observed: Observation, key: Key) -> tuple[Tensor, Finding]:
        """Return how far the suspect is from every candidate (m + 1,), small means alike, and a finding without them."""


def _close(part: Tensor, stored: Tensor) -> bool:
    """Return whether two tensors are the same but for another machine's rounding; what is no number is not."""
    if part.shape != stored.shape:
        return False
    if not stored.is_floating_point():
        return bool((part == stored).double().mean() >= SAME_LABELS)
    gap = (part.double() - stored.double()).abs().max() if part.numel() else torch.zeros(())
    return bool(gap <= CLOSE * max(1.0, float(stored.double().abs().max()) if stored.numel() else 0.0))


def _placed(tensor: Tensor, own: int, part: Tensor) -> Tensor:
    """Return ``tensor`` with another entry in the place of the owner's."""
    changed = tensor.clone()
    changed[own] = part
    return changed


def _count(row: dict[str, Any], kind: str, *, missed: bool) -> None:
    """Count one thief in a row of `Fingerprint._power`."""
    row["tried"], row["missed"] = row["tried"] + 1, row["missed"] + missed
    before = row["kinds"].get(kind, [0, 0])
    row["kinds"][kind] = [before[0] + missed, before[1] + 1]
