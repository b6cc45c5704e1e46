"""SAC: sample correlation for fingerprinting deep face recognition and classifiers (Guan, Liang, He; NeurIPS 2022, arXiv 2210.15427)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.card import Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import withstands
from modelward.core.errors import UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Verdict
from modelward.ownership.calibration import Calibration
from modelward.ownership.correlation import KERNELS, VIEWS, correlation, distance, shared_deviation, view_of
from modelward.ownership.probes import KINDS, copies, mixture, select

FINGERPRINT = Taxonomy(
    Scenario.BLACK_BOX_PROBS,
    Mechanism.FINGERPRINT_INTRINSIC,
    capacity=Capacity.ZERO_BIT,
    protection=Protection.PASSIVE,
    functions=(Function.OWNERSHIP,),
)
CLAIMS = withstands("ftal", "prune", "quantise", "extract-l", "extract-p")
NAMES = {"label": "labels", "logp": "probabilities"}


@dataclass(frozen=True, kw_only=True)
class SAC(OwnershipMethod):
    r"""Compare how a suspect and the source relate probes to each other: :math:`d(s, v) = \lVert C_s - C_v \rVert_1 / n^2`.

    ``variant="paper"`` thresholds that distance of raw logits. ``variant="hardened"`` repairs what drowns it. Every model's temperature is
    matched first, since copies are more or less confident than models of their own. And the matrices are compared after the mean of sibling
    models R of the source (same data, same recipe, other seed) is taken off: the statistic is
    :math:`1 - \langle S - R, V - R \rangle / \lVert V - R \rVert^2`, 0 for the source itself and about 1 for a model that is only
    alike because it learnt the same task, even from the same images.

    Parameters
    ----------
    probes_from
        ``wrong`` (SAC-w), ``explainable``, ``source``, ``normal``, ``cutmix`` (SAC-m), ``mixed`` (images as they are, compressed, with noise,
        blurred, patched, halved), or ``noise`` as a control; ``None`` takes the variant's own.
    count
        number of probes, at most.
    corruption, severities
        candidates are the images under the corruption at each severity 1-5; 0 is the image itself; ``None`` takes the variant's own.
    view
        outputs that are compared; ``None`` takes ``logits`` for the paper and ``temp_c`` for the hardened variant.
    kernel
        ``cos`` or ``rbf``.
    references
        that many of the null models, the first ones, serve as siblings (at most a quarter of them all); they calibrate nothing.
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
    own_probes: ClassVar[dict[str, str]] = {"paper": "wrong", "hardened": "normal"}
    own_severities: ClassVar[dict[str, tuple[int, ...]]] = {"paper": (0,), "hardened": (0,)}

    probes_from: str | None = None
    count: int = 100
    corruption: str = "jpeg"
    severities: Sequence[int] | None = None
    view: str | None = None
    kernel: str = "cos"
    references: int = 6
    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probes_from not in {None, *KINDS} or self.kernel not in KERNELS or self.view not in {None, *VIEWS}:
            message = f"probes_from is {', '.join(KINDS)}; view {', '.join(VIEWS)}; kernel {', '.join(KERNELS)}; got {self.settings()}"
            raise UsageError(message)
        if self.count < 2 or not 0 < self.alpha < 1 or self.references < 0 or not {*self.levels} <= {*range(6)}:
            message = f"count >= 2, 0 < alpha < 1, references >= 0 and severities of 0..5 are needed, got {self.settings()}"
            raise UsageError(message)

    @property
    def statistic_view(self) -> str:
        """The one view whose distance is the statistic."""
        return self.view or ("logits" if self.variant == "paper" else "temp_c")

    def view_for(self, access: Access) -> str:
        """Return the view in which a suspect of ``access`` is compared.

        Labels have a view of their own, and so have probabilities where logits are compared: they give logits up to a shift of each sample,
        which the correlation does see.
        """
        if access is Access.LABEL:
            return "label"
        return "logp" if access is Access.PROBABILITIES and self.statistic_view == "logits" else self.statistic_view

    @property
    def kind(self) -> str:
        """The kind of probes."""
        return self.probes_from or self.own_probes[self.variant]

    @property
    def levels(self) -> Sequence[int]:
        """The severities of the candidates."""
        return self.own_severities[self.variant] if self.severities is None else self.severities

    def siblings(self, nulls: int) -> int:
        """Return how many of ``nulls`` null models serve as siblings."""
        return min(self.references, nulls // 4) if self.variant == "hardened" else 0

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return thefts that unlearn what is the source's own: smoothed labels, adversarial training, and an ensemble that votes."""
        return Attack("ft-smooth-labels"), Attack("extract-adv"), Attack("ensemble")

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
        split = self.siblings(len(nulls))
        siblings, nulls = nulls[:split], nulls[split:]
        candidates = mixture(data, rng=rng) if self.kind == "mixed" else copies(data, self.corruption, self.levels, rng=rng)
        chosen = select(candidates, self.kind, self.count, victim=model, references=siblings, rng=rng)
        answers = stacked([predict(net, chosen.pixels) for net in (model, *siblings)])
        null_answers, theft_answers = ([predict(net, chosen.pixels) for net in group] for group in (nulls, thieves))
        scores = {}
        for view in dict.fromkeys(map(self.view_for, Access)):
            own = [view_of(logits, view, are_logits=True) for logits in unstacked(answers)]
            null, theft = ([self._statistic(o, own, view, are_logits=True) for o in group] for group in (null_answers, theft_answers))
            scores[view] = vars(Calibration.split(null, theft, self.alpha))
        facts: dict[str, Any] = {
            "settings": self.settings(), "calibrated": bool(nulls), "scores": scores, "classes": list(data.classes),
            "candidates": {"name": candidates.name, "digest": candidates.digest, "size": len(candidates)},
        }  # fmt: skip
        tensors = {"probes": chosen.pixels, "labels": chosen.labels, "index": chosen.index, "answers": answers}
        return model, Key(self.card.name, self.variant, state_digest(model), facts, tensors)

    def _statistic(self, outputs: Tensor, own: Sequence[Tensor], view: str, *, are_logits: bool) -> float:
        """Return the statistic of outputs against the source and its siblings, each (n, K) in the same view: small means stolen."""
        source, *siblings = own
        mine = view_of(outputs, view, are_logits=are_logits, classes=source.shape[1])
        if siblings:
            return 1 - shared_deviation(mine, source, siblings, self.kernel)
        return distance(correlation(mine, self.kernel), correlation(source, self.kernel))

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        method = self.enrolled(key)
        probes = key.tensor("probes")
        if suspect.access is Access.WEIGHTS:
            return Observation(suspect.access, {"answers": suspect.logits(probes)})
        x = probes.to(torch.float32).div(255)
        outputs = suspect.labels(x) if method.view_for(suspect.access) == "label" else suspect.probabilities(x)
        return Observation(suspect.access, {"answers": outputs})

    def _judge(self, observed: Observation, key: Key) -> Verdict:
        method = self.enrolled(key)
        view = method.view_for(observed.access)
        own = [view_of(logits, view, are_logits=True) for logits in unstacked(key.tensor("answers"))]
        statistic = method._statistic(observed.tensors["answers"], own, view, are_logits=observed.access is Access.WEIGHTS)  # noqa: SLF001
        notes = (
            () if view == method.statistic_view else (f"Only {NAMES[view]} were answered; the {view} view of the same probes was used.",)
        )
        calibration = Calibration.of(key.fact(dict, "scores", view))
        siblings = len(key.tensor("answers")) - 1
        name = f"deviation not shared ({view}, {siblings} siblings)" if siblings else f"correlation distance ({view})"
        return calibration.verdict(statistic, observed, method=self.card.name, variant=method.variant, name=name, notes=notes)


def stacked(answers: Sequence[Tensor]) -> Tensor:
    """Return logits (n, K) of several models as one tensor (m, n, K); outputs that a model lacks, such as those of a marked source, are minus infinity.

    >>> wide = stacked([torch.zeros(2, 3), torch.ones(2, 2)])
    >>> wide.shape, [part.shape[1] for part in unstacked(wide)]
    (torch.Size([2, 2, 3]), [3, 2])
    """
    width = max(logits.shape[1] for logits in answers)
    return torch.stack([F.pad(logits, (0, width - logits.shape[1]), value=-torch.inf) for logits in answers])


def unstacked(answers: Tensor) -> list[Tensor]:
    """Return the logits of each model of `stacked`, each with its own outputs."""
    return [logits[:, ~(logits == -torch.inf).all(0)] for logits in answers]
