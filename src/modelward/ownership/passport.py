"""Passports: rethinking deep neural network ownership verification (Fan et al., NeurIPS 2019, arXiv 1909.07830; DeepIPR)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.card import Capacity, Card, Function, Mechanism, Protection, Scenario, Taxonomy
from modelward.core.claims import Claim, withstands
from modelward.core.deciding import Finding
from modelward.core.guard import predict, private_copy, require_float32
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.rng import forked, generator, spawn
from modelward.core.suspect import Access, Suspect
from modelward.imaging.abstract import abstract_images
from modelward.keys.derive import stream
from modelward.marking.chances import by_chance
from modelward.marking.embedding import sampler
from modelward.marking.passports import (
    Gate,
    PassportNet,
    conv_of,
    feature_maps,
    find_gates,
    held_norms,
    scales,
    with_passports,
    without_passports,
)  # fmt: skip
from modelward.marking.weights import bits_of, message_bits
from modelward.ownership.drawing import seed_tensor
from modelward.ownership.mark import Mark, MarkMethod
from modelward.ownership.passport_forging import guessed, solved
from modelward.ownership.passport_material import DRAWN, KINDS, Means, held, mean_passports
from modelward.ownership.weighing import (
    ROUNDS,
    UNKEPT,
    bits_in,
    bound_secret,
    realigned,
    require_taken,
    unordered,
    with_reference,
)
from modelward.statistics import binomial_p
from modelward.training import Extras, Recipe, fit

SOURCES, PUBLISHED = 20, "published/"
BROUGHT = "The passports stand in the key and are not what its secret gives: some can be solved for that fit any network, so that nothing can be concluded."


@dataclass(frozen=True, kw_only=True)
class Passport(MarkMethod):
    r"""Let the last convolutions take scale and shift from secret feature maps: :math:`\gamma = mean(W * P_\gamma)`, :math:`\beta = mean(W * P_\beta)`.

    A sign loss makes the signs of :math:`\gamma` the bits of a message. The statistic is the larger of two shares: of wrong signs, and of the accuracy
    that is lost when the passports are put into the suspect.

    Scheme 1 trains with the passports alone: the published network has scale 1 and shift 0 in their place, and `unlock` folds them in. Schemes 2 and 3
    train a public branch of the same weights beside the private one; the published network is an ordinary one. Scheme 3 also teaches it key images,
    which `remote` asks for. No passport is ever part of the published network.

    The mean of a convolution is linear in the passport, so passports for any scales can be solved for. ``variant="hardened"`` draws them from the
    secret and the message, and puts the suspect's neurons in the order and at the scale of the unmarked source before it reads signs; embedding
    leaves the public branch the source's scales and shifts, so that they are read right. ``variant="paper"`` takes passports from the key.

    The signs that the secret draws are independent of the passports, whatever those are: a suspect that does not know the secret has
    :math:`Bin(n, 1/2)` of them right, so that the p-value is exact. Signs of ``text`` are read and not counted.

    Parameters
    ----------
    scheme
        1, 2 or 3.
    layers
        how many convolutions, the last ones with batch normalisation behind them, carry passports.
    text
        the message; signs that it leaves over are drawn from the secret.
    kind
        ``flat``: one random number a channel; ``random``: noise maps; ``image`` and ``shuffle`` (paper's variant only): feature maps of the owner's
        images, as they are or with channels of different images put together.
    alpha_sign
        weight of the sign loss.
    epochs, batch, lr
        of the embedding; the paper trains 200 epochs from scratch.
    checks, triggers
        images that the key keeps to measure the accuracy with, and key images of scheme 3.
    significance
        of the exact binomial over signs.

    Examples
    --------
    >>> from modelward import build, generator, load_data
    >>> images, net = load_data("fashion-mini").test.take(slice(0, 128)), build("cnn:width=8", classes=10, rng=generator(0))
    >>> method = Passport(scheme=1, epochs=2)
    >>> model, key = method.protect(net, images, secret=b"0" * 32, rng=generator(0))
    >>> bool((model.body[9].weight == 1).all()), bool((method.unlock(model, key).body[9].weight == 1).all())
    (True, False)
    """

    card: ClassVar[Card] = Card(
        name="passport",
        title="layers that work with a secret feature map alone",
        paper="Fan, Ng, Chan: Rethinking deep neural network ownership verification: embedding passports to defeat ambiguity attacks, NeurIPS 2019, "
        "arXiv 1909.07830",
        taxonomy=Taxonomy(
            Scenario.WHITE_BOX, Mechanism.PASSPORT_STRUCTURE, capacity=Capacity.MULTI_BIT, protection=Protection.BOTH, functions=(Function.OWNERSHIP,)
        ),
        claims=(Claim("random passports give an accuracy near chance", figure="about 10 % of ten classes"),
                *withstands("ftal", "prune", figures=dict.fromkeys(("ftal", "prune"), "100 % of the signs")),
                Claim("passports cannot be forged", metric="forged_key_fits")),
        limits=(
            "passports for any scales follow from the weights by linear algebra: without passports that come from a dated secret anybody has some",
            "scheme 1: whoever trains scale and shift of the gates anew needs no passport",
            "passports made of images of one data set resemble each other: a stranger's work almost as well; keys that hold passports decide nothing",
            "shifted filters change the signs",
            "needs convolutions with batch normalisation behind them",
            "does not survive extraction",
        ),
        cost="eight epochs, twice as long with a public branch; verification: two forward passes of 200 images",
    )  # fmt: skip
    needs: ClassVar[Access] = Access.WEIGHTS

    scheme: int = 2
    layers: int = 2
    text: str = ""
    kind: str = "flat"
    alpha_sign: float = 0.1
    epochs: int = 8
    batch: int = 64
    lr: float = 0.05
    checks: int = 200
    triggers: int = 50
    significance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        drawn = self.kind in DRAWN or (self.variant == "paper" and self.kind in KINDS)
        self._require(
            scheme=(self.scheme in {1, 2, 3}, "1, 2 or 3"), layers=(self.layers >= 1, ">= 1"), epochs=(self.epochs >= 1, ">= 1"),
            kind=(drawn, ", ".join(KINDS if self.variant == "paper" else DRAWN) + ", the kinds that this variant has"),
            alpha_sign=(self.alpha_sign >= 0, ">= 0"), batch=(self.batch >= 2, ">= 2"), lr=(self.lr > 0, "> 0"), checks=(self.checks >= 2, ">= 2"),
            triggers=(self.triggers >= 1, ">= 1"), significance=(0 < self.significance < 1, "in (0, 1)"),
        )  # fmt: skip

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        del rng
        gates = find_gates(model, self.layers)
        chosen = torch.randperm(len(data), generator=stream(secret, "images"))
        maps = feature_maps(model, gates, data.batch(chosen[:SOURCES]))
        few = data.take(chosen[: self.checks])
        tensors = {"seed": seed_tensor(secret), "images": few.pixels, "labels": few.labels, **held(maps, self.kind, secret)}
        if self.scheme == 3:
            tensors["triggers"] = abstract_images(self.triggers, data.shape, rng=stream(secret, "triggers"))
            tensors["answers"] = torch.randint(0, len(data.classes), (self.triggers,), generator=stream(secret, "answers"))
        shapes, signs = [list(found.shape[1:]) for found in maps], sum(conv_of(model, gate).out_channels for gate in gates)
        facts = {"gates": [[gate.conv, gate.norm] for gate in gates], "shapes": shapes, "signs": signs, "draws": {"of": "signs"}}
        mark = Mark(tensors, facts)
        if self.variant == "hardened":
            mark = with_reference(mark, without_passports(model, gates) if self.scheme == 1 else model)
        return Mark({**mark.tensors, "bits": message_bits(self.text, signs, bound_secret(mark.tensors))}, facts)

    def counted(self, key: Key) -> int:
        """Return how many signs are drawn from the secret."""
        return max(0, int(key.fact(float, "signs")) - len(bits_of(self.text)))

    def _means(self, model: nn.Module, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[list[Gate], Means]:
        """Return gates and the mean patches of their passports."""
        return mean_passports(model, facts, tensors, kind=self.kind, own=self.variant == "paper")

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        require_float32(model, self.card.name)
        net = private_copy(model)
        gates, means = self._means(net, mark.facts, mark.tensors)
        both = PassportNet(net, gates, means, public=self.scheme > 1)
        bits, own = mark.tensors["bits"], generator(spawn(rng))

        def penalty(_model: nn.Module) -> Tensor:
            loss = self.alpha_sign * both.sign_loss(bits)
            if self.scheme == 1:
                return loss
            chosen = torch.randint(0, len(data), (self.batch,), generator=own)
            x, y = data.batch(chosen), data.labels[chosen]
            device = next(net.parameters()).device
            return loss + F.cross_entropy(both.private(x.to(device)), y.to(device))

        keys = sampler(mark.tensors["triggers"], mark.tensors["answers"], 8) if self.scheme == 3 else None
        recipe = Recipe(epochs=self.epochs, batch=self.batch, lr=self.lr)
        extras = Extras(companions=keys, penalty=penalty)
        for _ in range(ROUNDS):
            with forked(rng), held_norms(net) if self.variant == "hardened" else contextlib.nullcontext():
                fit(both, data.pixels, data.labels, recipe, rng=rng, extras=extras, task=self.card.name)
            made = both.published().requires_grad_()
            found = self._signs(self._scales(made, mark.facts, mark.tensors), bits)
            if not found.statistic:
                break
        require_taken(found, made, self.card.name, ("alpha_sign", self.alpha_sign))
        return made

    def _scales(self, model: nn.Module, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the scales (T,) that the passports give in a model whose neurons are put in order."""
        ordered = realigned(model, tensors)
        gates, means = self._means(ordered, facts, tensors)
        with torch.no_grad():
            return torch.cat([scales(ordered, gate, pair[0]) for gate, pair in zip(gates, means, strict=True)]).cpu()

    def _signs(self, gamma: Tensor, bits: Tensor) -> Finding:
        """Return what is found in the signs of scales, of those bits that the secret drew."""
        told = min(len(bits), len(bits_of(self.text)))
        wrong, many = int(((gamma > 0) != bits.bool())[told:].sum()), len(bits) - told
        return by_chance(wrong, many, f"wrong signs (of {many} drawn)", of="draws of the signs", significance=self.significance)

    def _key(self, model: nn.Module, data: ImageSet, mark: Mark, nulls: Sequence[nn.Module]) -> Key:
        return super()._key(model, data, with_reference(mark, model, PUBLISHED) if self.variant == "hardened" else mark, nulls)

    def unlock(self, model: nn.Module, key: Key) -> nn.Module:
        """Return a copy of a published model with the passports folded in: the private branch as an ordinary network.

        Raises
        ------
        InputError
            for a model without the gates of the key.
        """
        method = self.enrolled(key)
        gates, means = method._means(model, key.facts, key.tensors)  # noqa: SLF001
        return with_passports(model, gates, means, key.tensor("images").float().div(255)).eval()

    def remote(self, suspect: Suspect | nn.Module, key: Key) -> tuple[int, int, float]:
        """Return how many key images of scheme 3 a suspect answers as the key says, of how many, and the chance of that at 1/K a hit.

        Labels are enough. It is no verdict: it says where it is worth to ask for the weights.
        """
        asked = suspect if isinstance(suspect, Suspect) else Suspect.of_model(suspect)
        answers = key.tensor("answers")
        hits = int((asked.labels(key.tensor("triggers").float().div(255)).cpu() == answers).sum())
        return hits, len(answers), binomial_p(hits, len(answers), 1 / len(key.fact(list, "classes")))

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        method = self.enrolled(key)
        gates, means = method._means(suspect.model, key.facts, key.tensors)  # noqa: SLF001  # a network without the gates is refused unasked
        gamma, pixels = method._scales(suspect.model, key.facts, key.tensors), key.tensor("images")  # noqa: SLF001
        # accuracy may only take a claim away: the marked weights may tell how to read it
        scaled = realigned(suspect.model, key.tensors, PUBLISHED)
        private = with_passports(scaled, gates, means, pixels.float().div(255))
        return Observation(
            suspect.access, {"scales": gamma, "public": suspect.logits(pixels).argmax(1), "private": predict(private, pixels).argmax(1)}
        )

    def _finding(self, observed: Observation, key: Key) -> Finding:
        gamma, labels, bits = observed.tensors["scales"], key.tensor("labels"), bits_in(key.tensors, int(key.fact(float, "signs")))
        public, private = (float((observed.tensors[name] == labels).double().mean()) for name in ("public", "private"))
        least = 1.0 if self.scheme == 1 else public  # what is published under scheme 1 answers nothing right by itself
        lost = max(0.0, least - private) / least if least else 1.0
        found = self._signs(gamma, bits)
        name = f"{found.name} or lost accuracy with the passports, whichever is more"
        drawn = torch.equal(bits, message_bits(self.text, len(bits), bound_secret(key.tensors)))
        own = any(tensor.startswith("passport/") for tensor in key.tensors)
        doubts = (*found.doubts, *(() if drawn else (UNKEPT,)), *((BROUGHT,) if own else ()))
        return replace(found, name=name, statistic=max(found.statistic, lost), doubts=doubts, notes=unordered(key.tensors))

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return passports that fit a network as it is: of the paper's variant solved for, of the hardened one the best of 1,000 secrets."""
        drawn = self._draw(model, data, secret=secret, rng=rng)
        if self.variant == "paper":
            return solved(model, drawn)
        return guessed(model, drawn, secret, self.text, lambda tensors: self._means(model, drawn.facts, tensors))

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return a second passport, shifted filters, and what changes weights but no answer; forging is tried by `forge`."""
        return (
            Attack("overwrite", {"method": self.card.name}, "stolen"),
            Attack("weight-shift", {}, "true"),
            Attack("permute", {}, "none"),
            Attack("rescale", {}, "none"),
            Attack("fold-bn", {}, "none"),
        )
