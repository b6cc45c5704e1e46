"""InFIP: the way a model explains images as its fingerprint (arXiv 2210.07481; IEEE Transactions on AI 5(9), 2024)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import Claim, withstands
from modelward.core.deciding import Finding
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY, Key
from modelward.core.ownership import Attack, Observation
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import ALPHA
from modelward.imaging.quantise import to_uint8
from modelward.models.relevance import named
from modelward.ownership.candidates import Candidates
from modelward.ownership.fingerprint import Fingerprint, Kit
from modelward.ownership.heatmaps import alike_among, headless, heat, lower_limit, lower_tail
from modelward.ownership.probes import MIN_PROBES
from modelward.ownership.relevance_probes import chosen

FAITHLESS = (
    "A copy of the owner's model with a random last layer would be claimed as well: these maps say more of the images and the early layers than of the "
    "whole model."
)
FEWEST = 3  # null models for a distribution of their scores


@dataclass(frozen=True, kw_only=True)
class InFIP(Fingerprint):
    r"""Compare where in an image two models see the class that the owner's model sees: maps of relevance, and how alike they are.

    The probes are images that the owner's model is sure of. Deep Taylor decomposition shares its logit among the pixels; a suspect's maps of the
    same logits are compared with the owner's. Nothing is asked but the weights; any architecture that takes the same images can be compared.

    ``variant="paper"``: z+ inside and zB at the pixels, maps scaled to a maximum of 1, the mean SSIM; its threshold lies midway between validation
    thieves and null models, for the paper's own was not found, and may only take claims away. Such maps show the image more than the model (Sixt,
    Granz, Landgraf: When explanations lie, ICML 2020), so independent models are alike as well.

    ``variant="hardened"`` (default) shares by the epsilon rule, which the function decides and not the weights behind it, explains the logit's lead
    over the mean logit, takes off the mean map of all candidates, and scores :math:`\cos(S_j - \bar S, S_{suspect} - \bar S)`, the mean over ``rules``
    and probes. With ``pool`` above 1 it keeps, of that many images a probe, those on which the candidates' maps differ most.

    In both the verdict is the rank of the owner's model among its siblings: probes, explained classes and centre are one for all of them.

    Parameters
    ----------
    count
        number of probes.
    rules
        hardened: rules of relevance whose scores are averaged, see `modelward.models.relevance`; each is reported. ``dtd`` is the paper's.
    confidence
        probes are images that the owner's model gives at least this probability, where there are enough.
    pool
        hardened: images looked at per probe kept.
    significance
        hardened: a second condition where null models are given: a normal distribution of their scores gives one like the suspect's at most this
        chance. It takes claims away and makes none.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images, source = load_data("fashion-mini").test.take(slice(200)), embedded_model().model
    >>> method = InFIP(count=20)
    >>> _, key = method.protect(source, images, rng=generator(0))
    >>> verdict = method.verify(source, key)
    >>> abs(round(verdict.statistic, 4)), verdict.decision.value, key.tensor("maps").shape
    (0.0, 'undecided', torch.Size([1, 1, 20, 28, 28]))
    """

    card: ClassVar[Card] = Card(
        name="infip",
        title="relevance maps of the owner's model",
        paper="InFIP: an explainable DNN intellectual property protection method based on intrinsic features, arXiv 2210.07481, IEEE Transactions on "
        "Artificial Intelligence 5(9), 2024, 4649-4659",
        taxonomy=Taxonomy(
            Scenario.WHITE_BOX, Mechanism.FINGERPRINT_INTRINSIC, capacity=Capacity.ZERO_BIT, protection=Protection.PASSIVE,
            functions=(Function.OWNERSHIP,),
        ),
        claims=(
            *withstands("ftal", "prune"), Claim("recognises models overwritten with another mark", attack="overwrite"),
            Claim("leaves the model as it is", metric="fidelity_drop"),
        ),
        limits=(
            "needs the suspect's weights, and layers that a rule of relevance is known for",
            "a model trained from scratch on the owner's answers has maps of its own: distillation and extraction are hardly recognised",
            "the paper's maps say more of the image than of the model; a strong fine-tune comes near to independent models",
            "whoever trains his copy to have other maps gets them at little cost in accuracy",
        ),
        cost="enrolment: relevance maps of 50 images for the owner's model and every sibling, seconds; verification: maps of 50 images, below a second",
    )  # fmt: skip
    needs: ClassVar[Access] = Access.WEIGHTS
    forgeable: ClassVar[bool] = True

    count: int = 50
    rules: Sequence[str] = ("epsilon",)
    confidence: float = 0.9
    pool: int = 1
    significance: float = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.rules, str) or not self.rules:
            message = f"infip: rules is a list of names of relevance rules, not {self.rules!r}"
            raise UsageError(message)
        for rule in self.rules:
            named(rule)
        object.__setattr__(self, "rules", tuple(self.rules))
        self._require(
            count=(self.count >= MIN_PROBES, f">= {MIN_PROBES}"), confidence=(0 <= self.confidence <= 1, "in [0, 1]"), pool=(self.pool >= 1, ">= 1"),
            significance=(0 < self.significance < 1, "in (0, 1)"),
        )  # fmt: skip

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return what somebody does who knows the method: pushes the maps away, changes the weights under the same function, or marks the copy."""
        marks = tuple(Attack("overwrite", {"method": name}, "stolen") for name in ("uchida", "zhang"))
        return (
            Attack("push-maps"), Attack("dummy-channels", {}, "none"), Attack("shift-logits", {}, "none"), Attack("rescale", {}, "none"),
            Attack("permute", {}, "none"), *marks,
        )  # fmt: skip

    def _enrol(self, candidates: Candidates, data: ImageSet, *, rng: torch.Generator) -> Kit:
        index, classes, maps = chosen(candidates, data, self._heat, count=self.count, pool=self.pool, confidence=self.confidence, rng=rng)
        pixels, own = data.pixels[index], maps[candidates.own][0].float().abs()
        pictures = to_uint8(own / own.amax((1, 2), keepdim=True).clamp_min(1e-30))

        def make(model: nn.Module, _: int) -> dict[str, Tensor]:
            return {"maps": self._heat(model, pixels, classes).half()}

        control = make(headless(candidates.models[candidates.own], rng=rng), 0)["maps"]
        alike = alike_among(control, maps, paper=self.variant == "paper").mean((1, 2))
        rank = int((alike >= alike[candidates.own]).sum()) / len(alike)
        facts = {"random last layer": rank, "rules": list(self._rules), "settings": {**self.settings(), "rules": list(self._rules)},
                 "digests": [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in pixels]}  # fmt: skip
        return Kit({"probes": pixels, "labels": classes, "index": index, "pictures": pictures}, {"maps": maps}, make, facts)

    def _parts(self, model: nn.Module, key: Key, place: int) -> dict[str, Tensor]:
        del place
        return {"maps": self._heat(model, key.tensor("probes"), key.tensor("labels")).half()}

    def _figures(self, key: Key, nulls: Sequence[nn.Module], thieves: Sequence[nn.Module]) -> dict[str, Any]:
        """Return what null models and thieves score by rule, the second condition, and what a random last layer leaves of the maps."""
        null, theft = self._scores(nulls, key), self._scores(thieves, key)
        limit = None
        if self.variant == "paper" and len(null) and len(theft):
            limit = float(null.mean() + theft.mean()) / 2
        elif self.variant == "hardened" and len(null) >= FEWEST:
            limit = lower_limit(null.mean(1).tolist(), self.significance)
        by_rule = {rule: {"nulls": null[:, r].tolist(), "thieves": theft[:, r].tolist()} for r, rule in enumerate(self._rules)}
        return {"by rule": by_rule, "ceiling": limit}

    @property
    def _rules(self) -> tuple[str, ...]:
        """The rules of this variant."""
        return ("dtd",) if self.variant == "paper" else tuple(self.rules)

    def _heat(self, model: nn.Module, pixels: Tensor, classes: Tensor) -> Tensor:
        """Return the maps (R, N, H, W) of this variant."""
        return heat(model, pixels, classes, self._rules, hardened=self.variant == "hardened")

    def _scores(self, models: Sequence[nn.Module], key: Key) -> Tensor:
        """Return the statistic (M, R) of every model that relevance can be traced in, by rule."""
        found = [torch.empty(0, len(self._rules))]
        for model in models:
            with contextlib.suppress(InputError):
                observed = self._observe(Suspect.of_model(model), key)
                found.append(1 - self.similarity(observed, key).mean(1, keepdim=True).T.float())
        return torch.cat(found)

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        method = self.enrolled(key)
        pixels = key.tensor("probes")
        suspect.queries += len(pixels)
        return Observation(Access.WEIGHTS, {"maps": method._heat(suspect.model, pixels, key.tensor("labels"))})  # noqa: SLF001

    def similarity(self, observed: Observation, key: Key) -> Tensor:
        """Return how alike the suspect's and the owner's maps are, (R, N): a number a rule and probe, 1 for equal maps."""
        return self._alike(observed, key)[int(key.fact(float, "draws", "own"))]

    def _alike(self, observed: Observation, key: Key) -> Tensor:
        """Return how alike the suspect's maps and every candidate's are, float64 (m + 1, R, N)."""
        every, other = key.tensor("maps"), observed.tensors["maps"]
        if every.shape[1:] != other.shape or not bool(torch.isfinite(other).all()):
            message = f"maps of shape {tuple(every.shape[1:])} are compared, the suspect's have {tuple(other.shape)}, or are not finite"
            raise InputError(message)
        return alike_among(other, every, paper=key.variant == "paper")

    def _distances(self, observed: Observation, key: Key) -> tuple[Tensor, Finding]:
        alike = self._alike(observed, key)
        own, limit = int(key.fact(float, "draws", "own")), None
        if key.facts.get("ceiling") is not None:
            limit = float(key.fact(float, "ceiling"))
        rules = ", ".join(f"{rule} {float(1 - values.mean()):.4f}" for rule, values in zip(self._rules, alike[own], strict=True))
        notes = (f"By rule: {rules}.",) if alike.shape[1] > 1 else ()
        if len(alike) > 1 and key.fact(float, "random last layer") <= ALPHA + 1e-12:
            notes = (*notes, FAITHLESS)
        measure = "SSIM" if key.variant == "paper" else "centred cosine"
        distances = torch.round(1 - alike.mean((1, 2)), decimals=12)
        nulls = self._nulls(key)
        chance = lower_tail(float(distances[own]), nulls) if len(nulls) >= FEWEST else None
        name = f"1 - mean {measure} of relevance maps ({alike.shape[2]} probes)"
        return distances, Finding(0.0, name, ceiling=limit, notes=notes, parametric_p=chance)

    def _nulls(self, key: Key) -> list[float]:
        """Return what each null model scored, the mean over the rules; raises `FormatError` for what are no scores."""
        rows = [key.fact(list, "by rule", rule, "nulls") for rule in key.fact(dict, "by rule")]
        try:
            return [float(value) for value in torch.tensor(rows, dtype=torch.float64).mean(0)] if rows else []
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            message = f"'by rule' of this {key.method} key are no scores: {REMEDY}"
            raise FormatError(message) from error
