"""What thieves share who change a locked network back entry by entry: their copy, their images, what they measure."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from modelward.attacks.theft.bn_recalibrate import norms_of, renew_statistics
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.guard import plain_copy
from modelward.core.view import AttackerView
from modelward.imaging.quantise import to_float
from modelward.marking.saliency import Saliency

PAPER = (
    "Xue et al.: AdvParams, IEEE TETC, arXiv 2105.13697, whose adaptive adversary knows the algorithm and lacks the key; this form of the attack "
    "is modelward's"
)
BATCH = 100


@dataclass(frozen=True, eq=False)
class Bench:
    """A thief's copy of a locked network, and its loss over his labelled images."""

    model: nn.Module
    saliency: Saliency


def bench(view: AttackerView, *, images: int, norms: bool) -> Bench:
    """Return the copy that a thief works on.

    Parameters
    ----------
    images
        that many of his images, the first ones; 0 takes all.
    norms
        the running statistics of batch normalisation are measured anew on them first, where there are any.
    """
    own = view.images.few(images) if images else view.images
    model = plain_copy(view.weights).eval()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.contiguous()  # entries are counted row by row
    if norms:
        remeasure(model, view, images=images)
    return Bench(model, Saliency(model, to_float(own.pixels), own.labels))


def remeasure(model: nn.Module, view: AttackerView, *, images: int) -> None:
    """Measure the running statistics of ``model`` anew on the thief's images, in place; nothing where there are none, or but one image."""
    count = min(images, len(view.images)) if images else len(view.images)
    if norms_of(model) and count > 1:
        starts = range(0, count, BATCH)
        renew_statistics(model, (view.images.batch(slice(s, min(s + BATCH, count))) for s in starts if min(s + BATCH, count) - s > 1))


def card(name: str, title: str, cost: str) -> Card:
    """Return the card of one of these thefts."""
    return Card(name=name, title=title, paper=PAPER, taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.MODEL_MODIFICATION), cost=cost,
                limits=("against locks that change few parameters; another network comes back worse, or as it was",))  # fmt: skip
