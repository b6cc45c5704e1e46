"""Thefts one after another (Lukas et al., arXiv 2108.04974: single attacks rarely remove every mark, combinations do)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from modelward.attacks.theft.finetune import BATTERY, WHITE_BOX
from modelward.core.card import Card
from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.images import ImageSet
from modelward.core.result import Trace
from modelward.core.rng import generator, spawn
from modelward.core.suspect import Access, Suspect
from modelward.core.view import AttackerView, Labels

Step = tuple[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Combined(TheftMethod):
    """Do several thefts in order, each on what the one before it left.

    The labels that a step trains on are asked of the victim, once, never of a half-stolen copy; an extraction that is not the first step
    extracts from the copy, also where the thief labelled the images of the steps before himself. Wrappers come last: nothing can be trained
    behind them.

    Parameters
    ----------
    steps
        names of thefts, or pairs (name, settings).

    Raises
    ------
    UsageError
        for a step that is no theft, or that would work on weights behind a wrapper.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="stolen")
    >>> steps = (("weight-shift", {"epochs": 1}), "permute", ("wrap-blur", {"std": 0.6}))
    >>> result = Combined(steps=steps).run(view, rng=generator(0))
    >>> type(result.value.model).__name__, result.queries, [step["method"] for step in result.value.log["steps"]]
    ('Assembly', 64, ['weight-shift', 'permute', 'wrap-blur'])
    """

    card: ClassVar[Card] = Card(
        name="combined", title="several thefts in order", paper=BATTERY, taxonomy=WHITE_BOX, cost="the sum of its steps"
    )
    needs: ClassVar[Access] = Access.LABEL

    steps: Sequence[str | Sequence[Any]] = ("ft-smooth-labels", "weight-shift", "ftal")

    def __post_init__(self) -> None:
        if isinstance(self.steps, str) or not isinstance(self.steps, Sequence) or not self.steps:
            message = f"combined: steps is a list of thefts, such as ['weight-shift', 'ftal'], got {self.steps!r}"
            raise UsageError(message)
        object.__setattr__(self, "steps", tuple(_step(step) for step in self.steps))

    @property
    def inner(self) -> tuple[str, ...]:
        """The steps' methods."""
        return tuple(_step(step)[0] for step in self.steps)

    @property
    def effort(self) -> float:
        """That of all steps."""
        return sum(method.effort for method in self._methods())

    def _methods(self) -> list[TheftMethod]:
        """Return the configured steps; refuse an order that cannot work."""
        made: list[TheftMethod] = []
        for name, settings in map(_step, self.steps):
            method = find(name).configured(dict(settings))
            if not isinstance(method, TheftMethod) or isinstance(method, Combined):
                message = f"combined: {name} is no single theft"
                raise UsageError(message)
            if made and hasattr(made[-1], "assemble") and not hasattr(method, "assemble"):
                message = f"combined: {name} cannot work on the weights behind {made[-1].card.name}; wrappers come last"
                raise UsageError(message)
            made.append(method)
        return made

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        methods, now, log = self._methods(), view, list[dict[str, Any]]()
        known: ImageSet | None = None
        theft: Theft | None = None
        for number, method in enumerate(methods):
            if view.labels is Labels.STOLEN and Labels.TRUE in method.labels and Labels.NONE not in method.labels:
                if known is None:
                    if method.needs is Access.WEIGHTS:
                        _ = now.weights  # a refusal costs no query
                    known = ImageSet(view.images.pixels, view.targets(), view.images.classes, view.images.name)
                now = replace(now, images=known, labels=Labels.TRUE)
            elif number and view.labels is Labels.TRUE and Labels.TRUE not in method.labels and Labels.STOLEN in method.labels:
                now = replace(now, labels=Labels.STOLEN)
            result = method.run(now, rng=generator(spawn(rng)))
            theft = result.value
            trace.steps += result.steps
            log.append({"method": method.card.name, **theft.log})
            if number + 1 < len(methods):
                now = replace(view, victim=Suspect.of_model(theft.model, name="copy"))
        if theft is None:
            raise UsageError("combined: there is no step")
        return replace(theft, log={"epochs": sum(int(step.get("epochs", 0)) for step in log), "steps": log})


def _step(step: object) -> Step:
    """Return a step as its name and settings."""
    if isinstance(step, str):
        return step, {}
    if isinstance(step, Sequence) and len(step) == 2 and isinstance(step[0], str) and isinstance(step[1], Mapping):
        return step[0], dict(step[1])
    message = f"combined: a step is a name, or a name with a table of settings, got {step!r}"
    raise UsageError(message)
