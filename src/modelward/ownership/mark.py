"""Marks: what is embedded into a model, and how a key is made, calibrated, merely claimed and forged."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError
from modelward.core.guard import frozen, require_finite, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Observation, OwnershipMethod
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Verdict
from modelward.keys.derive import derive
from modelward.ownership.calibration import Calibration


@dataclass(frozen=True, eq=False)
class Mark:
    """Key material as it is drawn, before a model knows of it: tensors and JSON facts."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MarkMethod(OwnershipMethod):
    """Embed a mark into a model and find it again. All that is secret comes from ``secret``, the method's name and ``user``.

    Parameters
    ----------
    user
        whose copy it is; two users of one secret have marks that do not tell of each other.
    alpha
        a suspect is stolen when its rank p-value is at most this.
    """

    marks: ClassVar[bool] = True
    forgeable: ClassVar[bool] = True
    drawn_over: ClassVar[str] = "secrets"

    user: str = ""
    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(alpha=(0 < self.alpha < 1, "in (0, 1)"))

    def claim(
        self, model: nn.Module, data: ImageSet, *, secret: bytes | None = None, nulls: Sequence[nn.Module] = (), rng: torch.Generator
    ) -> Key:
        """Return a key of this method for a model that was never marked with it: the control of every claim, and a guess of somebody's key."""
        return self._unmarked(model, data, secret, nulls, rng, forging=False)

    def forge(
        self, model: nn.Module, data: ImageSet, *, secret: bytes | None = None, nulls: Sequence[nn.Module] = (), rng: torch.Generator
    ) -> Key:
        """Return a key made to fit a model of somebody else, with all that its weights tell, and without training it."""
        return self._unmarked(model, data, secret, nulls, rng, forging=True)

    def _unmarked(
        self, model: nn.Module, data: ImageSet, secret: bytes | None, nulls: Sequence[nn.Module], rng: torch.Generator, *, forging: bool
    ) -> Key:
        """Return a key, drawn or forged, and calibrated as an honest one is."""
        require_finite(model)
        references, nulls = nulls[: self.siblings(len(nulls))], nulls[self.siblings(len(nulls)) :]
        own = self._own(secret, rng)
        with frozen(model):
            mark = (
                self._forge(model, data, secret=own, rng=rng)
                if forging
                else self._draw_against(model, data, references, secret=own, rng=rng)
            )
            return self._key(model, data, mark, nulls)

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
        nulls: Sequence[nn.Module],
        thieves: Sequence[nn.Module],
        rng: torch.Generator,
    ) -> tuple[nn.Module, Key]:
        del thieves  # copies of the unmarked model know nothing of the mark
        references, nulls = nulls[: self.siblings(len(nulls))], nulls[self.siblings(len(nulls)) :]
        mark = self._draw_against(model, data, references, secret=self._own(secret, rng), rng=rng)
        published = self._embed(model, data, mark, rng=rng).eval()
        return published, self._key(published, data, mark, nulls)

    def _key(self, model: nn.Module, data: ImageSet, mark: Mark, nulls: Sequence[nn.Module]) -> Key:
        """Return the key of ``mark`` for ``model``, calibrated on ``nulls``."""
        facts = {
            "settings": self.settings(),
            "classes": list(data.classes),
            "data": {"name": data.name, "digest": data.digest},
            **mark.facts,
        }
        key = Key(self.card.name, self.variant, state_digest(model), facts, mark.tensors)
        scores = self._null_scores(key, nulls)
        calibration = Calibration.split(scores, (), self.alpha, self._ceiling(scores, key))
        made = {"calibrated": bool(scores), "scores": {"mark": vars(calibration)}, "unreadable": len(nulls) - len(scores)}
        return replace(key, facts={**facts, **made})

    def _null_scores(self, key: Key, nulls: Sequence[nn.Module]) -> list[float]:
        """Return the statistics of the independent models; of a white-box mark, of those that have what it is read from."""
        scores = []
        for net in nulls:
            with contextlib.suppress(InputError) if self.needs is Access.WEIGHTS else contextlib.nullcontext():
                scores.append(self._score(self._observe(Suspect.of_model(net), key), key))
        return scores

    def _judge(self, observed: Observation, key: Key) -> Verdict:
        method = self.enrolled(key)
        statistic = method._score(observed, key)  # noqa: SLF001
        calibration = Calibration.of(key.fact(dict, "scores", "mark"))
        return calibration.verdict(
            statistic, observed, method=self.card.name, variant=method.variant, name=method._name(key),  # noqa: SLF001
            limit=method._limit(key) if method.variant == "paper" else None, parametric_p=method._chance(statistic, key),  # noqa: SLF001
        )  # fmt: skip

    def siblings(self, nulls: int) -> int:
        """Return how many of ``nulls`` null models, the first ones, serve the drawing of the key; they calibrate nothing."""
        del nulls
        return 0

    def _draw_against(
        self, model: nn.Module, data: ImageSet, references: Sequence[nn.Module], *, secret: bytes, rng: torch.Generator
    ) -> Mark:
        """Return key material that is drawn with the help of null models; methods that need none write `_draw` alone."""
        del references
        return self._draw(model, data, secret=secret, rng=rng)

    @abstractmethod
    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return key material for a model like ``model``, drawn from ``secret``; nothing of it may be learnt from the model's weights."""

    @abstractmethod
    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        """Return a new model that carries ``mark``."""

    @abstractmethod
    def _score(self, observed: Observation, key: Key) -> float:
        """Return the statistic: small means marked."""

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return key material that fits ``model`` as it is."""
        return self._draw(model, data, secret=secret, rng=rng)

    def _ceiling(self, scores: Sequence[float], key: Key) -> float | None:
        """Return the largest statistic that may be called stolen, from the null models' ``scores``; ``None`` leaves it to the ranks."""
        del scores, key
        return None

    def _limit(self, key: Key) -> float | None:
        """Return the paper's own threshold; ``None`` where it gives none."""
        del key
        return None

    def _chance(self, statistic: float, key: Key) -> float | None:
        """Return the parametric p-value of a statistic."""
        del statistic, key
        return None

    def _name(self, key: Key) -> str:
        """Return what the statistic is, in words."""
        del key
        return "mark not found"
