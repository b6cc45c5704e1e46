"""A suspect: a model seen through the least access that is needed, with its queries counted."""

from __future__ import annotations

import enum
from collections.abc import Callable

import torch
from torch import Tensor, nn

from modelward.core.errors import AccessError, InputError
from modelward.core.guard import predict


class Access(enum.StrEnum):
    """What a suspect lets one see. Each level includes the ones after it."""

    WEIGHTS = "weights"
    PROBABILITIES = "probabilities"
    LABEL = "label"


class Suspect:
    """A model under suspicion.

    Build one with `of_model`, `of_callable` or `of_answers`; a method asks it for the least it needs.

    Examples
    --------
    >>> import torch
    >>> suspect = Suspect.of_callable(lambda x: x.flatten(1)[:, :3].softmax(1), access="label")
    >>> suspect.labels(torch.rand(2, 1, 4, 4)).shape, suspect.queries
    (torch.Size([2]), 2)
    >>> suspect.probabilities(torch.rand(2, 1, 4, 4))
    Traceback (most recent call last):
    ...
    modelward.core.errors.AccessError: this suspect answers with labels only; probabilities were asked for
    """

    def __init__(
        self,
        answer: Callable[[Tensor], Tensor],
        access: Access | str,
        *,
        model: nn.Module | None = None,
        logits: bool = False,
        name: str = "suspect",
    ) -> None:
        self.access = Access(access)
        self.name = name
        self.queries = 0
        self._answer = answer
        self._model = model
        self._logits = logits

    @classmethod
    def of_model(cls, model: nn.Module, *, access: Access | str = Access.WEIGHTS, name: str = "suspect") -> Suspect:
        """Wrap a torch module (image batch -> logits)."""
        return cls(lambda x: predict(model, x), access, model=model, logits=True, name=name)

    @classmethod
    def of_callable(cls, answer: Callable[[Tensor], Tensor], *, access: Access | str, name: str = "suspect") -> Suspect:
        """Wrap a function from an image batch (N, C, H, W) to probabilities (N, K) or labels (N,)."""
        return cls(answer, access, name=name)

    @classmethod
    def of_answers(cls, answers: Tensor, *, name: str = "answers") -> Suspect:
        """Wrap answers already collected for the probes, in probe order: probabilities (N, K) or labels (N,)."""
        access = Access.LABEL if answers.ndim == 1 else Access.PROBABILITIES

        def recall(x: Tensor) -> Tensor:
            if len(x) != len(answers):
                message = f"{len(answers)} answers were collected but {len(x)} probes are asked about"
                raise InputError(message)
            return answers

        return cls(recall, access, name=name)

    @property
    def model(self) -> nn.Module:
        """The module itself; raises `AccessError` unless weights are granted."""
        if self.access is not Access.WEIGHTS or self._model is None:
            message = f"this suspect grants {self.access.value}, its weights were asked for"
            raise AccessError(message)
        return self._model

    def probabilities(self, x: Tensor) -> Tensor:
        """Return probabilities (N, K) for an image batch; counts N queries; raises `AccessError` for label-only suspects."""
        if self.access is Access.LABEL:
            raise AccessError("this suspect answers with labels only; probabilities were asked for")
        answers = self._ask(x)
        if answers.ndim != 2:
            message = f"probabilities have shape (N, K), the suspect answered with {tuple(answers.shape)}"
            raise InputError(message)
        return answers.softmax(1) if self._logits else answers

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits (N, K) for uint8 or float images of a suspect whose weights are granted; counts N queries."""
        model = self.model  # a refusal costs no query
        self.queries += len(pixels)
        return predict(model, pixels)

    def labels(self, x: Tensor) -> Tensor:
        """Return int64 labels (N,) for an image batch; counts N queries."""
        answers = self._ask(x)
        return answers.argmax(1) if answers.ndim == 2 else answers.long()

    def _ask(self, x: Tensor) -> Tensor:
        """Query the suspect once per image and check that its answers are finite."""
        self.queries += len(x)
        answers = self._answer(x)
        if len(answers) != len(x) or (answers.is_floating_point() and not bool(torch.isfinite(answers).all())):
            message = f"{self.name} gave {len(answers)} answers for {len(x)} queries, or NaN among them"
            raise InputError(message)
        return answers
