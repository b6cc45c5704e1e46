"""A vote of stolen models (battery of Lukas et al., arXiv 2108.04974): a mark that one copy kept, the others outvote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.attacks.theft.finetune import BATTERY
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.result import Trace
from modelward.core.rng import generator, spawn
from modelward.core.suspect import Access
from modelward.core.view import AttackerView, Labels
from modelward.models.assembly import Assembly

VOTES = ("hard", "soft")


@dataclass(frozen=True, kw_only=True)
class Ensemble(TheftMethod):
    """Steal ``count`` times, each time with another seed, and let the copies vote.

    Parameters
    ----------
    member
        the theft that makes each copy, with ``fields``; by default extraction by labels, for which label answers are enough.
    count
        how many copies; the battery's 3.
    vote
        ``"hard"``: the class most copies name, ties by their mean probability; ``"soft"``: the mean probability.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="stolen", access="label", arch="mlp:width=8")
    >>> result = Ensemble(fields={"epochs": 1}).run(view, rng=generator(0))
    >>> len(result.value.model.parts), result.queries
    (3, 192)
    """

    card: ClassVar[Card] = Card(
        name="ensemble", title="a vote of stolen models", paper=BATTERY, taxonomy=Taxonomy(Scenario.BLACK_BOX_LABEL, Mechanism.QUERY),
        cost="three thefts",
    )  # fmt: skip
    needs: ClassVar[Access] = Access.LABEL
    labels: ClassVar[tuple[Labels, ...]] = (Labels.STOLEN,)

    member: str = "extract-l"
    fields: dict[str, Any] = field(default_factory=dict)
    count: int = 3
    vote: str = "hard"

    def __post_init__(self) -> None:
        self._require(count=(1 <= self.count <= 32, "in 1..32"), vote=(self.vote in VOTES, "hard or soft"))
        given: Any = self.fields  # plain settings may be anything
        if not isinstance(given, Mapping):
            message = f"ensemble: fields is a table of settings of {self.member}, got {self.fields!r}"
            raise UsageError(message)
        object.__setattr__(self, "fields", dict(given))

    @property
    def inner(self) -> tuple[str, ...]:
        """The member."""
        return (self.member,)

    @property
    def effort(self) -> float:
        """That of all members."""
        return self.count * self._method().effort

    def _method(self) -> TheftMethod:
        """Return the configured member."""
        method = find(self.member).configured(dict(self.fields))
        if not isinstance(method, TheftMethod):
            message = f"an ensemble votes among stolen models; {self.member} is no theft"
            raise UsageError(message)
        return method

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        method = self._method()
        results = [method.run(view, rng=generator(spawn(rng))) for _ in range(self.count)]
        trace.steps = sum(result.steps for result in results)
        for result in results:
            for flag in result.flags:
                trace.flag(flag)
        assembly = self.assemble([result.value.model for result in results])
        return Theft(assembly, results[0].value.arch, log={"epochs": results[0].value.log.get("epochs", 0), "members": self.count})

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the door behind which ``parts`` vote."""
        return Assembly(self, parts)

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the logarithms (N, K) of the share of votes, or of the mean probability."""
        each = torch.stack([part(x).softmax(1) for part in assembly.parts])
        mean = each.mean(0).clamp_min(1e-12)
        if self.vote == "soft":
            return mean.log()
        votes = F.one_hot(each.argmax(2), each.shape[2]).float().mean(0)
        return (votes + 1e-3 * mean).log()
