"""InFIP: the way a model explains images as its fingerprint (arXiv 2210.07481; IEEE Transactions on AI 5(9), 2024)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import Claim, withstands
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation, OwnershipMethod
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Verdict
from modelward.imaging.quantise import to_uint8
from modelward.models.relevance import named
from modelward.ownership.calibration import MIN_CALIBRATION, Calibration, finite_numbers
from modelward.ownership.heatmaps import centred, headless, heat, lower_limit, lower_tail, structural
from modelward.ownership.probes import MIN_PROBES
from modelward.ownership.relevance_probes import chosen

FEWEST = 3  # null models for a distribution of their scores
FAITHLESS = (
    "A copy of the owner's model with a random last layer still matches: these maps say more of the images and the early layers than of the "
    "whole model."
)


@dataclass(frozen=True, kw_only=True)
class InFIP(OwnershipMethod):
    r"""Compare where in an image two models see the class that the owner's model sees: maps of relevance, and how alike they are.

    The probes are images that the owner's model is sure of. Deep Taylor decomposition shares its logit among the pixels; a suspect's maps of the
    same logits are compared with the owner's. Nothing is asked but the weights; any architecture that takes the same images can be compared.

    ``variant="paper"``: z+ inside and zB at the pixels, maps scaled to a maximum of 1, the mean SSIM; the threshold lies midway between validation
    thieves and null models, for the paper's own was not found. Such maps show the image more than the model (Sixt, Granz, Landgraf: When
    explanations lie, ICML 2020), so independent models are alike as well.

    ``variant="hardened"`` (default) shares by the epsilon rule, which the function decides and not the weights behind it, explains the logit's lead
    over the mean logit, takes off the mean map of ``references`` null models, and scores
    :math:`\cos(S_{owner} - S_{null}, S_{suspect} - S_{null})`, the mean over ``rules`` and probes; the threshold comes from the ranks of the other
    null models. With ``pool`` above 1 it keeps, of that many candidates a probe, those on which the owner's maps are least like the references':
    models that were changed then stand farther from independent ones, models that only learnt the owner's answers nearer to them.

    Parameters
    ----------
    count
        number of probes.
    rules
        hardened: rules of relevance whose scores are averaged, see `modelward.models.relevance`; each is reported. ``dtd`` is the paper's.
    confidence
        probes are images that the owner's model gives at least this probability, where there are enough.
    pool
        hardened: candidates per probe kept.
    references
        hardened: that many null models, the first ones and at most half, serve the centre and the choice of probes; they calibrate nothing.
    alpha
        a suspect is stolen when its rank p-value is at most this.
    significance
        hardened: and when a normal distribution of the null models' scores gives one like the suspect's at most this chance; ranks alone accuse one
        independent model in twenty.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images, source = load_data("fashion-mini").test.take(slice(200)), embedded_model().model
    >>> method = InFIP(count=20)
    >>> _, key = method.protect(source, images, rng=generator(0))
    >>> verdict = method.verify(source, key)
    >>> abs(round(verdict.statistic, 4)), verdict.decision.value, key.tensor("maps").shape
    (0.0, 'undecided', torch.Size([1, 20, 28, 28]))
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
        cost="enrolment: relevance maps of 400 images for the owner's and every null model, seconds; verification: maps of 50 images, below a second",
    )  # fmt: skip
    needs: ClassVar[Access] = Access.WEIGHTS
    forgeable: ClassVar[bool] = True

    count: int = 100
    rules: Sequence[str] = ("epsilon",)
    confidence: float = 0.9
    pool: int = 1
    references: int = 8
    alpha: float = 0.05
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
            references=(self.references >= 1, ">= 1"), alpha=(0 < self.alpha < 1, "in (0, 1)"),
            significance=(0 < self.significance < 1, "in (0, 1)"),
        )  # fmt: skip

    def siblings(self, nulls: int) -> int:
        """Return how many of ``nulls`` null models serve the centre: those that the calibration can spare, at most half."""
        if self.variant == "paper":
            return 0
        spare = nulls - MIN_CALIBRATION + 1
        return min(self.references, nulls // 2, spare if spare > 0 else max(1, nulls // 4))

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return what somebody does who knows the method: pushes the maps away, changes the weights under the same function, or marks the copy."""
        marks = tuple(Attack("overwrite", {"method": name}, "stolen") for name in ("uchida", "zhang"))
        return (
            Attack("push-maps"), Attack("dummy-channels", {}, "none"), Attack("shift-logits", {}, "none"), Attack("rescale", {}, "none"),
            Attack("permute", {}, "none"), *marks,
        )  # fmt: skip

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
        del secret  # the choice of probes is the secret
        split = self.siblings(len(nulls))
        index, classes, maps, references = chosen(
            model, data, nulls[:split], self._heat, count=self.count, pool=self.pool, confidence=self.confidence, rng=rng
        )
        null = torch.stack(references).mean(0) if references else torch.zeros_like(maps)
        pixels = data.pixels[index]
        pictures = to_uint8(maps[0].abs() / maps[0].abs().amax((1, 2), keepdim=True).clamp_min(1e-30))
        tensors = {"probes": pixels, "labels": classes, "index": index, "maps": maps, "null": null, "pictures": pictures}
        settings = {**self.settings(), "rules": list(self._rules)}
        facts: dict[str, Any] = {
            "settings": settings,
            "classes": list(data.classes),
            "rules": list(self._rules),
            "references": len(references),
        }
        key = Key(self.card.name, self.variant, state_digest(model), facts, tensors)
        null_scores, thief_scores, control = (self._scores(group, key) for group in (nulls[split:], thieves, [headless(model, rng=rng)]))
        calibration = self._bounded(Calibration.split(null_scores.mean(1).tolist(), thief_scores.mean(1).tolist(), self.alpha))
        facts |= {
            "calibrated": len(null_scores) > 0, "scores": {"maps": vars(calibration)}, "unreadable": len(nulls) - split - len(null_scores),
            "by rule": {
                rule: {"nulls": null_scores[:, r].tolist(), "thieves": thief_scores[:, r].tolist()} for r, rule in enumerate(self._rules)
            },
            "random last layer": control.mean(1).tolist(),
            "digests": [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in pixels],
            "candidates": {"name": data.name, "digest": data.digest, "size": len(data)},
        }  # fmt: skip
        return model, Key(self.card.name, self.variant, state_digest(model), facts, tensors)

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
                found.append(1 - self.similarity(observed, key).mean(1, keepdim=True).T)
        return torch.cat(found)

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        method = self.enrolled(key)
        pixels = key.tensor("probes")
        suspect.queries += len(pixels)
        return Observation(Access.WEIGHTS, {"maps": method._heat(suspect.model, pixels, key.tensor("labels"))})  # noqa: SLF001

    def similarity(self, observed: Observation, key: Key) -> Tensor:
        """Return how alike the suspect's and the owner's maps are, (R, N): a number a rule and probe, 1 for equal maps."""
        own, other = key.tensor("maps"), observed.tensors["maps"]
        if own.shape != other.shape or not bool(torch.isfinite(other).all()):
            message = f"maps of shape {tuple(own.shape)} are compared, the suspect's have {tuple(other.shape)}, or are not finite"
            raise InputError(message)
        return structural(own, other) if key.variant == "paper" else centred(own, other, key.tensor("null"))

    def _bounded(self, calibration: Calibration) -> Calibration:
        """Add the ceiling of the hardened variant."""
        if self.variant == "paper" or len(calibration.nulls) < FEWEST:
            return calibration
        return replace(calibration, ceiling=lower_limit(calibration.nulls, self.significance))

    def _judge(self, observed: Observation, key: Key) -> Verdict:
        method, alike = self.enrolled(key), self.similarity(observed, key)
        calibration = Calibration.of(key.fact(dict, "scores", "maps"))
        rules = ", ".join(f"{rule} {float(1 - values.mean()):.4f}" for rule, values in zip(method._rules, alike, strict=True))  # noqa: SLF001
        notes = [f"By rule: {rules}."] if len(alike) > 1 else []
        limit = calibration.threshold(key.variant)
        if limit is not None and any(score <= limit for score in finite_numbers(key.fact(list, "random last layer"), "random last layer")):
            notes.append(FAITHLESS)
        enough = len(calibration.nulls) >= FEWEST
        chance = lower_tail(float(1 - alike.mean()), calibration.nulls) if enough else None
        measure = "SSIM" if key.variant == "paper" else "null-centred cosine"
        return calibration.verdict(
            float(1 - alike.mean()), observed, method=self.card.name, variant=key.variant,
            name=f"1 - mean {measure} of relevance maps ({alike.shape[1]} probes)", notes=notes, parametric_p=chance,
        )  # fmt: skip
