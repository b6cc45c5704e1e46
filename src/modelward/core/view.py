"""What an attacker has: weights or queries, images of his own, and labels that are true, stolen or absent."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from torch import Tensor, nn

from modelward.core.errors import AccessError
from modelward.core.images import ImageSet
from modelward.core.suspect import Access, Suspect


class Labels(enum.StrEnum):
    """Where an attacker's labels come from."""

    TRUE = "true"
    STOLEN = "stolen"
    NONE = "none"


@dataclass(frozen=True, eq=False)
class AttackerView:
    """An attacker's position.

    Parameters
    ----------
    victim
        the model, at the access level that the attacker has.
    images
        the attacker's own images; disjoint from the owner's.
    labels
        ``true``: he labelled his images; ``stolen``: he asks the victim; ``none``: he has no labels.
    arch
        the architecture a new model would have, as in ``--arch``; ``None`` keeps the victim's.
    unrelated
        images of something else to ask the victim about; their labels are never read. ``None``: he asks about ``images``.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    >>> images = ImageSet(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 0]), ("cat", "dog"), "toy")
    >>> AttackerView.of_model(net, images, labels="stolen").targets(soft=True).shape
    torch.Size([3, 2])
    """

    victim: Suspect
    images: ImageSet
    labels: Labels = Labels.TRUE
    arch: str | None = None
    unrelated: ImageSet | None = None

    @classmethod
    def of_model(
        cls,
        model: nn.Module,
        images: ImageSet,
        *,
        labels: Labels | str = Labels.TRUE,
        access: Access | str = Access.WEIGHTS,
        arch: str | None = None,
        unrelated: ImageSet | None = None,
    ) -> AttackerView:
        """Return the position of an attacker who faces ``model`` at ``access``."""
        return cls(Suspect.of_model(model, access=access, name="victim"), images, Labels(labels), arch, unrelated)

    @property
    def weights(self) -> nn.Module:
        """The victim's module; raises `AccessError` without weight access."""
        return self.victim.model

    def targets(self, *, soft: bool = False) -> Tensor:
        """Return the labels (N,) int64 the attacker may train on, or probabilities (N, K) when ``soft``.

        In stolen mode the true labels are never read.
        """
        if self.labels is Labels.NONE:
            raise AccessError("this attacker has no labels; use labels='true' or labels='stolen'")
        if self.labels is Labels.TRUE:
            if soft:
                raise AccessError("true labels are not probabilities; use labels='stolen'")
            return self.images.labels
        return self.ask(self.images.batch(slice(None)), soft=soft)

    def ask(self, x: Tensor, *, soft: bool = False) -> Tensor:
        """Return the victim's labels (N,) int64 for float images (N, C, H, W), or its probabilities (N, K) when ``soft``; costs N queries."""
        if soft and self.victim.access is Access.LABEL:
            raise AccessError("this victim answers with labels only; extraction by probabilities needs probabilities")
        return self.victim.probabilities(x) if soft else self.victim.labels(x)
