"""SAC: sample correlation for fingerprinting deep face recognition and classifiers (Guan, Liang, He; NeurIPS 2022, arXiv 2210.15427)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Verdict
from modelward.ownership.calibration import Calibration
from modelward.ownership.correlation import KERNELS, VIEWS, correlation, distance, view_of
from modelward.ownership.probes import KINDS, altered, select

FINGERPRINT = Taxonomy(
    Scenario.BLACK_BOX_PROBS,
    Mechanism.FINGERPRINT_INTRINSIC,
    capacity=Capacity.ZERO_BIT,
    protection=Protection.PASSIVE,
    functions=(Function.OWNERSHIP,),
)
CLAIMS = tuple(f"recognises thieves by {how}" for how in ("fine-tuning", "pruning", "quantisation", "label extraction", "probability extraction"))


@dataclass(frozen=True, kw_only=True)
class SAC(OwnershipMethod):
    r"""Compare how a suspect and the source relate probes to each other: :math:`d = \lVert C_s - C_v \rVert_1 / n^2`.

    Parameters
    ----------
    probes_from
        ``wrong`` (SAC-w), ``source``, ``normal``, ``cutmix`` (SAC-m), or ``noise`` as a control; ``None`` takes the variant's own.
    count
        number of probes, at most.
    corruption, severity
        applied to the candidate images before probes are chosen; severity 0 is none.
    view
        outputs that are compared; ``None`` takes ``logits`` for the paper and ``temp`` for the hardened variant.
    kernel
        ``cos`` or ``rbf``.
    references
        that many of the null models say which errors are explainable; they calibrate nothing.
    alpha
        a suspect is stolen when its rank p-value is at most this.
    """

    card: ClassVar[Card] = Card(
        name="sac",
        title="sample correlation of misclassified or mixed probes",
        paper="Guan, Liang, He: Are you stealing my model? Sample correlation for fingerprinting deep neural networks, NeurIPS 2022, arXiv 2210.15427",
        taxonomy=FINGERPRINT,
        claims=CLAIMS,
        limits=("a source that hardly errs leaks little to thieves who train on its labels",),
        cost="verification: one forward pass of 100 probes; calibration trains the null models",
    )

    paper_probes: ClassVar[str] = "wrong"

    probes_from: str | None = None
    count: int = 100
    corruption: str = "jpeg"
    severity: int = 0
    view: str | None = None
    kernel: str = "cos"
    references: int = 2
    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probes_from not in {None, *KINDS} or self.kernel not in KERNELS or self.view not in {None, *VIEWS}:
            message = f"probes_from is {', '.join(KINDS)}; view {', '.join(VIEWS)}; kernel {', '.join(KERNELS)}; got {self.settings()}"
            raise UsageError(message)
        if self.count < 2 or not 0 < self.alpha < 1 or not 0 <= self.severity <= 5:
            message = f"count >= 2, 0 < alpha < 1 and severity 0..5 are needed, got {self.count}, {self.alpha}, {self.severity}"
            raise UsageError(message)

    @property
    def statistic_view(self) -> str:
        """The one view whose distance is the statistic."""
        return self.view or ("logits" if self.variant == "paper" else "temp")

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
        del secret
        explain, calibrate = (nulls[: self.references], nulls[self.references :]) if self.explainable else ((), nulls)
        candidates = altered(data, self.corruption, self.severity, rng=rng)
        chosen = select(candidates, self.kind, self.count, victim=model, references=explain, rng=rng)
        answers = predict(model, chosen.pixels)
        scores = {}
        for view in dict.fromkeys((self.statistic_view, "label")):
            source = correlation(view_of(answers, view, are_logits=True), self.kernel)
            null, theft = ([self._score(m, chosen.pixels, source, view) for m in group] for group in (calibrate, thieves))
            scores[view] = vars(Calibration.split(null, theft, self.alpha))
        facts: dict[str, Any] = {
            "settings": self.settings(), "calibrated": bool(calibrate), "scores": scores, "classes": list(data.classes),
            "candidates": {"name": candidates.name, "digest": candidates.digest, "size": len(candidates)},
        }  # fmt: skip
        tensors = {"probes": chosen.pixels, "labels": chosen.labels, "index": chosen.index, "answers": answers}
        return model, Key(self.card.name, self.variant, state_digest(model), facts, tensors)

    @property
    def kind(self) -> str:
        """The kind of probes."""
        return self.probes_from or (self.paper_probes if self.variant == "paper" else "wrong")

    @property
    def explainable(self) -> bool:
        """Whether reference models choose among the source's errors."""
        return self.references > 0 and (self.kind == "source" or (self.kind == "wrong" and self.variant == "hardened"))

    def _score(self, model: nn.Module, probes: Tensor, source: Tensor, view: str) -> float:
        """Return the distance of a model at hand."""
        return distance(correlation(view_of(predict(model, probes), view, are_logits=True), self.kernel), source)

    def measure(self, suspect: Suspect, key: Key, view: str | None = None) -> float:
        """Return the suspect's distance in ``view``, asking it for no more than that view needs."""
        view = view or self.statistic_view
        probes = key.tensors["probes"]
        source = correlation(view_of(key.tensors["answers"], view, are_logits=True), self.kernel)
        x = probes.to(torch.float32).div(255)
        if view == "label":
            classes = key.tensors["answers"].shape[1]
            return distance(correlation(view_of(suspect.labels(x), view, classes=classes), self.kernel), source)
        if view == "logits" and suspect.access is Access.WEIGHTS:
            return distance(correlation(predict(suspect.model, probes), self.kernel), source)
        return distance(correlation(view_of(suspect.probabilities(x), view), self.kernel), source)

    def _verify(self, suspect: Suspect, key: Key) -> Verdict:
        method = type(self)(**key.facts["settings"])
        view = "label" if suspect.access is Access.LABEL else method.statistic_view
        statistic = method.measure(suspect, key, view)
        notes = ("Only labels were answered; the label view of the same probes was used.",) if view == "label" != method.statistic_view else ()
        calibration = Calibration.of(key.facts["scores"][view])
        return calibration.verdict(
            statistic, suspect, method=self.card.name, variant=method.variant, name=f"correlation distance ({view})", notes=notes
        )
