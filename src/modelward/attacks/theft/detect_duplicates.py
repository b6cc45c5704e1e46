"""Detection of queries that resemble each other (Chen, Carlini, Wagner, "Stateful detection of black-box adversarial attacks", SPAI 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modelward.attacks.theft.detecting import Detecting
from modelward.attacks.theft.wrapping import wrapper_card
from modelward.core.card import Card
from modelward.models.assembly import Assembly


@dataclass(frozen=True, kw_only=True)
class DetectDuplicates(Detecting):
    """Suspect images that resemble an earlier one: score = -min_{j < i} |x_i - x_j|_1 / n.

    Earlier means earlier in the same batch: the wrapper keeps nothing between calls, so that an answer depends on its batch alone. The same
    images asked in several batches, or in another order, are answered otherwise; the first of a batch is never suspected.

    Parameters
    ----------
    quantile
        .99: nearer than the nearest hundredth of the thief's own images, 256 at a time.

    Examples
    --------
    >>> import torch
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(200))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="none")
    >>> thief = DetectDuplicates(reaction="refuse").steal(view, rng=generator(0)).model
    >>> x = images.batch(slice(2))
    >>> (thief(torch.cat([x, x])) == 0).all(1).tolist()
    [False, False, True, True]
    """

    card: ClassVar[Card] = wrapper_card(
        "detect-duplicates", "queries like an earlier one answered at random", behind=True,
        paper="Chen, Carlini, Wagner: Stateful detection of black-box adversarial attacks, SPAI 2020, arXiv 1907.05587",
    )  # fmt: skip

    def score(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return minus the mean absolute distance (N,) to the nearest earlier image; -1, the least there is, for the first."""
        del assembly
        flat = x.flatten(1)
        distances = torch.cdist(flat, flat, p=1) / flat.shape[1]
        later = torch.ones_like(distances).triu()
        return -distances.masked_fill(later.bool(), 1.0).amin(1)
