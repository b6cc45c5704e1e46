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
from modelward.core.deciding import Finding
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.suspect import Access, Suspect
from modelward.ownership.candidates import Candidates
from modelward.ownership.correlation import KERNELS, VIEWS, correlation, distance, view_of
from modelward.ownership.fingerprint import Fingerprint, Kit
from modelward.ownership.likeness import shared_part, shared_structure
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
POOL = {"paper": 20, "hardened": 7}  # images looked at per probe kept


@dataclass(frozen=True, kw_only=True)
class SAC(Fingerprint):
    r"""Compare how a suspect and the source answer probes, beyond what all models of the task share.

    ``variant="paper"`` takes the correlation matrices of raw logits, :math:`d(s, v) = \lVert C_s - C_v \rVert_1 / n^2`; its own threshold, midway between
    thieves and null models, stands beside and may only take claims away. ``variant="hardened"`` asks images on which the source and its siblings
    disagree, matches the temperature of every model, since copies are more or less confident than models of their own, and writes what the suspect's
    correlations have beyond the mean of all candidates as a sum of what the candidates have: near 0 for the source itself, about 1 for a model that only
    learnt the same task. ``docs/decisions/0018-rank-among-siblings.md`` says why, with the rows.

    In both the p-value is the rank of the source among its siblings (`modelward.siblings`), which are treated as the source is.

    Parameters
    ----------
    probes_from
        ``disputed`` (the candidates disagree), ``wrong`` (SAC-w), ``explainable``, ``source``, ``normal``, ``cutmix`` (SAC-m), ``mixed`` (disputed
        ones of images as they are, compressed, with noise, blurred, patched, halved), or ``noise`` as a control; ``None`` takes the variant's own.
    count
        number of probes, at most; ``None`` takes the variant's own, 100 of the paper's and 500 of the hardened one's.
    corruption, severities
        candidates are the images under the corruption at each severity 1-5; 0 is the image itself; ``None`` takes the variant's own.
    view
        outputs that are compared; ``None`` takes ``logits`` for the paper and ``temp`` for the hardened variant.
    kernel
        of the paper's variant, ``cos`` or ``rbf``.
    """

    card: ClassVar[Card] = Card(
        name="sac",
        title="sample correlation of misclassified or mixed probes",
        paper="Guan, Liang, He: Are you stealing my model? Sample correlation for fingerprinting deep neural networks, NeurIPS 2022, arXiv 2210.15427",
        taxonomy=FINGERPRINT,
        claims=CLAIMS,
        limits=(
            "a source that hardly errs leaks little to thieves who train on its labels",
            "of a model that was fine-tuned from a public network hardly more is seen than the network: its weights tell, its answers do not",
        ),
        cost="verification: one forward pass of the probes; calibration trains the siblings",
    )
    own_probes: ClassVar[dict[str, str]] = {"paper": "wrong", "hardened": "disputed"}
    own_severities: ClassVar[dict[str, tuple[int, ...]]] = {"paper": (0,), "hardened": (0,)}
    structural: ClassVar[bool] = True  # the hardened variant compares correlations, too
    own_count: ClassVar[dict[str, int]] = {"paper": 100, "hardened": 500}

    probes_from: str | None = None
    count: int | None = None
    corruption: str = "jpeg"
    severities: Sequence[int] | None = None
    view: str | None = None
    kernel: str = "cos"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probes_from not in {None, *KINDS} or self.kernel not in KERNELS or self.view not in {None, *VIEWS}:
            message = f"probes_from is {', '.join(KINDS)}; view {', '.join(VIEWS)}; kernel {', '.join(KERNELS)}; got {self.settings()}"
            raise UsageError(message)
        if self.wanted < 2 or not {*self.levels} <= {*range(6)}:
            message = f"count >= 2 and severities of 0..5 are needed, got {self.settings()}"
            raise UsageError(message)

    @property
    def statistic_view(self) -> str:
        """The one view whose distance is the statistic."""
        return self.view or ("logits" if self.variant == "paper" else "temp")

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
    def wanted(self) -> int:
        """The number of probes, at most."""
        return self.own_count[self.variant] if self.count is None else self.count

    @property
    def levels(self) -> Sequence[int]:
        """The severities of the candidates."""
        return self.own_severities[self.variant] if self.severities is None else self.severities

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return thefts that unlearn what is the source's own: smoothed labels, adversarial training, and an ensemble that votes."""
        return Attack("ft-smooth-labels"), Attack("extract-adv"), Attack("ensemble")

    def _enrol(self, candidates: Candidates, data: ImageSet, *, rng: torch.Generator) -> Kit:
        most = POOL[self.variant] * self.wanted
        part = data.take(torch.randperm(len(data), generator=rng)[:most])
        pool = mixture(part, rng=rng) if self.kind == "mixed" else copies(part, self.corruption, self.levels, rng=rng)
        pool = pool.take(torch.randperm(len(pool), generator=rng)[:most])
        seen = candidates.answers(pool.pixels)
        chosen = select(pool, self.kind, self.wanted, answers=seen, rng=rng)
        same = self.kind not in {"cutmix", "noise"}  # the probes are images of the pool as they are
        answers = [logits[chosen.index] for logits in seen] if same else candidates.answers(chosen.pixels)
        shared = {"probes": chosen.pixels, "labels": chosen.labels}

        def make(model: nn.Module, _: int) -> dict[str, Tensor]:
            return {"answers": predict(model, chosen.pixels)}

        return Kit(shared, {"answers": torch.stack(answers)}, make, {"pool": {"name": pool.name, "size": len(pool)}})

    def _parts(self, model: nn.Module, key: Key, place: int) -> dict[str, Tensor]:
        del place
        return {"answers": predict(model, key.tensor("probes"))}

    def _figures(self, key: Key, nulls: Sequence[nn.Module], thieves: Sequence[nn.Module]) -> dict[str, Any]:
        """Return the paper's threshold in every view: midway between the means of validation thieves and null models."""
        if self.variant != "paper" or not nulls or not thieves:
            return {}
        limits = dict[str, float]()
        for view in dict.fromkeys(map(self.view_for, Access)):
            means = []
            for group in (nulls, thieves):
                answers = [predict(model, key.tensor("probes")) for model in group]
                own = int(key.facts["draws"]["own"])
                means.append(sum(float(self._paper(a, key, view, are_logits=True)[own]) for a in answers) / len(answers))
            limits[view] = sum(means) / 2
        return {"paper_threshold": limits}

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        method, probes = self.enrolled(key), key.tensor("probes")
        if suspect.access is Access.WEIGHTS:
            return Observation(suspect.access, {"answers": suspect.logits(probes)})
        x = probes.to(torch.float32).div(255)
        outputs = suspect.labels(x) if method.view_for(suspect.access) == "label" else suspect.probabilities(x)
        return Observation(suspect.access, {"answers": outputs})

    def _paper(self, answers: Tensor, key: Key, view: str, *, are_logits: bool) -> Tensor:
        """Return the distance of correlation matrices (m + 1,) of answers to every candidate."""
        candidates = key.tensor("answers")
        mine = correlation(view_of(answers, view, are_logits=are_logits, classes=candidates.shape[2]), self.kernel)
        found = [distance(mine, correlation(view_of(logits, view, are_logits=True), self.kernel)) for logits in candidates]
        return torch.tensor(found, dtype=torch.float64)

    def _distances(self, observed: Observation, key: Key) -> tuple[Tensor, Finding]:
        view, candidates, answers = self.view_for(observed.access), key.tensor("answers"), observed.tensors["answers"]
        if len(answers) != candidates.shape[1]:
            message = f"{candidates.shape[1]} probes need as many answers, got {len(answers)}"
            raise InputError(message)
        notes = () if view == self.statistic_view else (f"Only {NAMES[view]} were answered; the {view} view of the same probes was used.",)
        if self.variant == "paper":
            found = self._paper(answers, key, view, are_logits=observed.access is Access.WEIGHTS)
            limits = key.fact(dict, "paper_threshold") if "paper_threshold" in key.facts else {}
            limit = float(key.fact(float, "paper_threshold", view)) if view in limits else None
            return found, Finding(0.0, f"correlation distance ({view})", ceiling=limit, notes=notes)
        logits = observed.access is Access.WEIGHTS
        theirs = [_features(one, view, are_logits=True) for one in candidates]
        mine = _features(answers, view, are_logits=logits, classes=candidates.shape[2])
        if self.structural:
            return 1 - shared_structure(mine, theirs), Finding(0.0, f"correlation of the answers not shared ({view})", notes=notes)
        if mine.shape != theirs[0].shape:
            note = f"The suspect answers with {mine.shape[1]} classes, the key's model with {theirs[0].shape[1]}: correlations of the answers were compared."
            return 1 - shared_structure(mine, theirs), Finding(0.0, f"correlation of the answers not shared ({view})", notes=(*notes, note))
        return 1 - shared_part(mine, torch.stack(theirs)), Finding(0.0, f"deviation of the answers not shared ({view})", notes=notes)


def _features(answers: Tensor, view: str, *, are_logits: bool, classes: int = 2) -> Tensor:
    """Return what is compared of answers: labels as one-hot rows, all else as `view_of` has it."""
    if view != "label":
        return view_of(answers, view, are_logits=are_logits)
    labels = answers if answers.ndim == 1 else answers.argmax(1)
    classes = max(classes, int(labels.max()) + 1) if answers.ndim == 1 else answers.shape[1]
    return F.one_hot(labels.long(), classes).double()
