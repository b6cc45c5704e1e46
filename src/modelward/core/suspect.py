"""A suspect: a model seen through the least access that is needed, with its queries counted."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from modelward.core.errors import AccessError, InputError
from modelward.core.guard import predict

SUM_TOLERANCE = 0.05
_EDGE = 1e-6


class Access(enum.StrEnum):
    """What a suspect lets one see. Each level includes the ones after it."""

    WEIGHTS = "weights"
    PROBABILITIES = "probabilities"
    LABEL = "label"


class Suspect:
    """A model under suspicion.

    Build one with `of_model`, `of_callable` or `of_answers`; a method asks it for the least it needs.

    Probabilities are checked: rows lie in [0, 1] and sum to 1 within 0.05. Rows that leave [0, 1] are logits: softmax is applied, and
    ``notes`` says so. Rows inside [0, 1] with another sum are neither, and are refused.

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
    >>> raw = Suspect.of_callable(lambda x: 9 * x.flatten(1)[:, :3] - 4, access="probabilities")
    >>> raw.probabilities(torch.rand(2, 1, 4, 4)).sum(1).round().tolist(), len(raw.notes)
    ([1.0, 1.0], 1)
    """

    def __init__(
        self,
        answer: Callable[[Tensor], Tensor],
        access: Access | str,
        *,
        model: nn.Module | None = None,
        logits: bool = False,
        name: str = "suspect",
        notes: Sequence[str] = (),
        extra: int = 0,
    ) -> None:
        self.access = Access(access)
        self.name = name
        self.queries = 0
        self.notes = tuple(notes)
        self._extra = extra
        self._answer = answer
        self._model = model
        self._logits = logits

    @classmethod
    def of_model(cls, model: nn.Module, *, access: Access | str = Access.WEIGHTS, name: str = "suspect") -> Suspect:
        """Wrap a torch module (image batch -> logits)."""
        return cls(lambda x: predict(model, x), access, model=model, logits=True, name=name)

    @classmethod
    def of_callable(cls, answer: Callable[[Tensor], Tensor], *, access: Access | str, name: str = "suspect") -> Suspect:
        """Wrap a function from an image batch (N, C, H, W) to probabilities or logits (N, K), or labels (N,)."""
        return cls(answer, access, name=name)

    @classmethod
    def of_answers(cls, answers: Tensor, *, name: str = "answers", notes: Sequence[str] = (), extra: int = 0) -> Suspect:
        """Wrap answers already collected for the probes, in probe order: probabilities or logits (N, K), or labels (N,).

        Parameters
        ----------
        notes
            what is to be known of the answers; the verdict repeats it among its caveats.
        extra
            queries that were spent beyond one a probe: repeats and retries. They are counted with the first question.
        """
        access = Access.LABEL if answers.ndim == 1 else Access.PROBABILITIES

        def recall(x: Tensor) -> Tensor:
            if len(x) != len(answers):
                message = f"{len(answers)} answers were collected but {len(x)} probes are asked about"
                raise InputError(message)
            return answers

        return cls(recall, access, name=name, notes=notes, extra=extra)

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
        if answers.ndim != 2 or answers.shape[1] < 2:
            message = f"probabilities have shape (N, K) with K of at least 2, the suspect answered with {tuple(answers.shape)}"
            raise InputError(message)
        return answers.softmax(1) if self._logits else self._distributions(answers)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits (N, K) for uint8 or float images of a suspect whose weights are granted; counts N queries."""
        model = self.model  # a refusal costs no query
        self.queries += len(pixels)
        return predict(model, pixels)

    def labels(self, x: Tensor) -> Tensor:
        """Return int64 labels (N,) for an image batch; counts N queries; raises `InputError` for what are no class numbers."""
        answers = self._ask(x)
        if answers.ndim == 2 and answers.shape[1] > 1:
            return answers.argmax(1)
        whole = answers.ndim == 1 and answers.dtype != torch.bool and bool(((answers >= 0) & (answers == answers.floor())).all())
        if not whole:
            message = f"{self.name} answered with {tuple(answers.shape)} {answers.dtype}; labels are class numbers (N,) from 0, or (N, K) probabilities"
            raise InputError(message)
        return answers.long()

    def _distributions(self, answers: Tensor) -> Tensor:
        """Return answers (N, K) that are probabilities as they are, and logits through a softmax; refuse what is neither."""
        answers = answers if answers.is_floating_point() else answers.float()
        if not len(answers):
            return answers
        low, high = (float(value) for value in answers.aminmax())
        if low < -_EDGE or high > 1 + _EDGE:
            self.note(
                f"{self.name} answered with numbers from {low:.3g} to {high:.3g}: they were taken for logits, and softmax was applied."
            )
            return answers.softmax(1)
        sums = answers.sum(1)
        worst = float(sums[(sums - 1).abs().argmax()])
        if abs(worst - 1) > SUM_TOLERANCE:
            message = (
                f"{self.name} answered with numbers in [0, 1] that sum to {worst:.3g} for one image, neither probabilities nor logits; "
                "return the softmax of all classes, or raw logits"
            )
            raise InputError(message)
        return answers

    def note(self, text: str) -> None:
        """Remember, once, what is to be known of the answers."""
        if text not in self.notes:
            self.notes = (*self.notes, text)

    def _ask(self, x: Tensor) -> Tensor:
        """Query the suspect once per image and check that its answers are finite."""
        self.queries += len(x) + self._extra
        self._extra = 0
        answers = self._answer(x)
        if len(answers) != len(x) or (answers.is_floating_point() and not bool(torch.isfinite(answers).all())):
            message = f"{self.name} gave {len(answers)} answers for {len(x)} queries, or NaN among them"
            raise InputError(message)
        return answers
