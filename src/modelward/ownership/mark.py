"""Marks: what is embedded into a model, and how a key is made, judged, merely claimed and forged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from modelward.core.catalogue import find
from modelward.core.deciding import Finding
from modelward.core.errors import InputError, UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.guard import frozen, require_finite, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.core.siblings import Siblings
from modelward.core.suspect import Access, Suspect
from modelward.keys.derive import derive
from modelward.ownership.candidates import SMOKE

RETIRED = ("alpha", "references")
"""Settings that keys of earlier versions name."""


@dataclass(frozen=True, eq=False)
class Mark:
    """Key material as it is drawn, before a model knows of it: tensors and JSON facts; ``facts["draws"]`` says what p is drawn over."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MarkMethod(OwnershipMethod):
    """Embed a mark into a model and find it again. All that is secret comes from ``secret``, the method's name and ``user``.

    The p-value is taken over the secret: what another one would have found in the same suspect. It is exact for every suspect that does not
    depend on the secret, whatever its recipe. Null models are asked as suspects, and decide nothing. ``variant="paper"`` keeps the paper's own
    rule as a second condition: it may take a claim away, and makes none.

    Parameters
    ----------
    user
        whose copy it is; two users of one secret have marks that do not tell of each other.
    """

    marks: ClassVar[bool] = True
    forgeable: ClassVar[bool] = True
    drawn_over: ClassVar[str] = "secrets"

    user: str = ""

    def claim(
        self, model: nn.Module, data: ImageSet, *, secret: bytes | None = None, nulls: Sequence[nn.Module] = (), rng: torch.Generator
    ) -> Key:
        """Return a key of this method for a model that was never marked with it: the control of every claim, and a guess of somebody's key."""
        require_finite(model)
        with frozen(model):
            return self._key(model, data, self._draw(model, data, secret=self._own(secret, rng), rng=rng), nulls)

    def forge(
        self, model: nn.Module, data: ImageSet, *, secret: bytes | None = None, nulls: Sequence[nn.Module] = (), rng: torch.Generator
    ) -> Key:
        """Return a key made to fit a model of somebody else, with all that its weights tell, and without training it."""
        require_finite(model)
        with frozen(model):
            return self._key(model, data, self._forge(model, data, secret=self._own(secret, rng), rng=rng), nulls)

    def glance(self, model: nn.Module, data: ImageSet, *, secret: bytes, source: nn.Module | None = None, rng: torch.Generator) -> float:
        """Return the statistic for ``model`` of a key of this secret for ``source``, by default ``model``: of many guesses the p is not needed."""
        return self.verify(model, self.claim(model if source is None else source, data, secret=secret, rng=rng)).statistic

    def _own(self, secret: bytes | None, rng: torch.Generator) -> bytes:
        """Return this method's and this user's secret."""
        drawn = bytes(torch.randint(0, 256, (32,), generator=rng).tolist())
        return derive(drawn if secret is None else secret, self.card.name, self.user)

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
        del siblings, thieves  # copies of the unmarked model know nothing of the mark; `with_power` tries thieves of the published one
        mark = self._draw(model, data, secret=self._own(secret, rng), rng=rng)
        published = self._embed(model, data, mark, rng=rng).eval()
        return published, self._key(published, data, mark, nulls)

    def _key(self, model: nn.Module, data: ImageSet, mark: Mark, nulls: Sequence[nn.Module]) -> Key:
        """Return the key of ``mark`` for ``model``, with what ``nulls`` answer to it."""
        facts = {
            "settings": self.settings(), "calibrated": True, "classes": list(data.classes), "data": {"name": data.name, "digest": data.digest},
            **mark.facts,
        }  # fmt: skip
        key = Key(self.card.name, self.variant, state_digest(model), facts, mark.tensors)
        return replace(key, facts={**facts, "draws": {**facts["draws"], **self._accused(key, nulls)}})

    def _accused(self, key: Key, nulls: Sequence[nn.Module]) -> dict[str, int]:
        """Return how many independent models there are, and how many this key accuses; those that cannot be read are not counted."""
        read = accused = 0
        for model in nulls:
            try:
                claims = self._found(self._observe(Suspect.of_model(model), key), key).claims
            except InputError:
                continue
            read, accused = read + 1, accused + int(claims)
        return {"nulls": read, "false_claims": accused, "unreadable": len(nulls) - read}

    def _judge(self, observed: Observation, key: Key) -> Finding:
        found = self._found(observed, key)
        smoke = (SMOKE,) if key.fact(dict, "draws").get("smoke") else ()
        return replace(found, doubts=(*found.doubts, *self.enrolled(key)._undrawn(key), *smoke))  # noqa: SLF001

    def _undrawn(self, key: Key) -> tuple[str, ...]:
        """Return doubts where a key holds other material than its secret draws: an accuser could have chosen it to suit."""
        del key
        return ()

    def _found(self, observed: Observation, key: Key) -> Finding:
        """Return the finding of the method that the key was made with; the paper's own rule may take a claim away."""
        method = self.enrolled(key)
        found, limit = method._finding(observed, key), method._limit(key) if method.variant == "paper" else None  # noqa: SLF001
        if limit is None:
            return found
        told = f"The paper's own rule asks for a statistic of at most {max(limit, 0.0):.4g}: it may take a claim away, and makes none."
        return replace(found, ceiling=limit if found.ceiling is None else min(limit, found.ceiling), notes=(*found.notes, told))

    def enrolled(self, key: Key) -> Self:
        """Return this method with the settings that ``key`` was made with; keys of earlier versions name some that there are no more."""
        if "draws" not in key.facts and key.method == self.card.name:
            settings = {name: value for name, value in key.fact(dict, "settings").items() if name not in RETIRED}
            key = replace(key, facts={**key.facts, "settings": settings})
        return super().enrolled(key)

    def counted(self, key: Key) -> int:
        """Return of how many images or bits the statistic is a share."""
        return len(key.tensor("labels"))

    @abstractmethod
    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return key material for a model like ``model``, drawn from ``secret``; nothing of it may be learnt from the model's weights."""

    @abstractmethod
    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        """Return a new model that carries ``mark``."""

    @abstractmethod
    def _finding(self, observed: Observation, key: Key) -> Finding:
        """Return the statistic, small means marked, and what it is over other secrets."""

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return key material that fits ``model`` as it is."""
        return self._draw(model, data, secret=secret, rng=rng)

    def _limit(self, key: Key) -> float | None:
        """Return the paper's own threshold; ``None`` where it gives none."""
        del key
        return None


def with_power(key: Key, thieves: Sequence[tuple[str, nn.Module]], *, access: Sequence[Access] = ()) -> Key:
    """Return ``key`` with how many of ``thieves`` it would miss, for each access level: what "not stolen" rests on.

    Parameters
    ----------
    thieves
        kinds and models: thefts of the model that was published with the key, none of which is reported on. One that has nothing the mark could
        be read from, such as another architecture, is missed.
    access
        how they are asked; by default in every way that the method can work with.
    """
    method = find(key.method)()
    if not isinstance(method, MarkMethod):
        message = f"{key.method} is no mark: thieves of its siblings are tried when it is enrolled"
        raise UsageError(message)
    found: dict[str, dict[str, Any]] = {}
    for level in access or ((Access.WEIGHTS,) if method.needs is Access.WEIGHTS else tuple(Access)):
        row: dict[str, Any] = {"tried": 0, "missed": 0, "kinds": {}}
        for name, model in thieves:
            missed = int(not _caught(method, key, model, level))
            row["tried"], row["missed"] = row["tried"] + 1, row["missed"] + missed
            kind = row["kinds"].setdefault(name, [0, 0])
            kind[0], kind[1] = kind[0] + missed, kind[1] + 1
        found[level.value] = row
    return replace(key, facts={**key.facts, "draws": {**key.fact(dict, "draws"), "thieves": found}})


def _caught(method: MarkMethod, key: Key, model: nn.Module, access: Access) -> bool:
    """Return whether the mark is found in a thief that is asked in this way."""
    try:
        return method._found(method.observe(Suspect.of_model(model, access=access), key), key).claims  # noqa: SLF001
    except InputError:
        return False
