"""Detection of queries from elsewhere (Hendrycks, Gimpel 2017: max softmax; Liu et al. 2020: energy)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modelward.attacks.theft.detecting import Detecting
from modelward.attacks.theft.wrapping import wrapper_card
from modelward.core.card import Card
from modelward.models.assembly import Assembly

RULES = ("softmax", "energy")


@dataclass(frozen=True, kw_only=True)
class DetectOOD(Detecting):
    """Suspect images that the copy is unsure about: score = -max_k softmax(z)_k, or the energy -log sum_k exp z_k.

    Parameters
    ----------
    rule
        ``"softmax"`` or ``"energy"``.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(200))
    >>> thief = DetectOOD(quantile=0.9, reaction="refuse").steal(
    ...     AttackerView.of_model(embedded_model().model, images, labels="none"), rng=generator(0)
    ... ).model
    >>> refused = (thief(images.batch(slice(None))) == 0).all(1)
    >>> 10 <= int(refused.sum()) <= 40
    True
    """

    card: ClassVar[Card] = wrapper_card(
        "detect-ood", "unsure answers made random", behind=True,
        paper="Hendrycks, Gimpel: A baseline for detecting misclassified and out-of-distribution examples, ICLR 2017, arXiv 1610.02136; "
        "Liu, Wang, Owens, Li: Energy-based out-of-distribution detection, NeurIPS 2020, arXiv 2010.03759",
    )  # fmt: skip

    rule: str = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(rule=(self.rule in RULES, "softmax or energy"))

    def score(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return how unsure the copy is of each image (N,)."""
        logits: Tensor = assembly.parts[0](x)
        return -logits.logsumexp(1) if self.rule == "energy" else -logits.softmax(1).amax(1)
