"""Uchida et al.: embedding watermarks into deep neural networks (ICMR 2017, arXiv 1701.04082)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card
from modelward.core.claims import Claim, withstands
from modelward.core.deciding import Finding
from modelward.core.errors import InputError
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.keys.derive import derive
from modelward.marking.chances import by_chance
from modelward.marking.weights import KINDS, BitPenalty, bits_of, filter_mean, find_layer, message_bits, projection, text_of
from modelward.ownership.drawing import seed_tensor
from modelward.ownership.mark import Mark
from modelward.ownership.weighing import PARAMETER, UNKEPT, WeightMethod, bits_in, bound_secret, require_mean, unordered
from modelward.training.extras import Penalty

TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Uchida(WeightMethod):
    r"""Teach the signs of :math:`X w` to be the bits b of a message: :math:`E = E_0 + \lambda \sum_j BCE(\sigma((X w)_j), b_j)`.

    w is the mean of one layer's filters, X a secret matrix; the statistic is the share of wrong bits, .5 for any other network.
    ``variant="hardened"`` also takes a message whose bits are all inverted for the message: shifted filters do that.

    For any network there are X and b that fit it. ``variant="hardened"`` draws X from the secret and the message, so that a key is these two and
    a key that brings a matrix of its own is refused: a forger is left with trying secrets. ``variant="paper"`` takes X from the key as it is.

    The bits that the secret draws are independent of X, whatever X is: a suspect that does not know the secret has :math:`Bin(n, 1/2)` of them
    right, so that the p-value is exact. Bits of ``text`` are read and not counted.

    Parameters
    ----------
    bits
        length of the message; at most half of the weights of a filter.
    lam
        lambda; .01 in the paper, whose training is hundreds of epochs long.
    kind
        of X: ``random``, ``direct``, ``diff`` or ``orthonormal``.
    text
        the message; bits that it leaves over are drawn from the secret.
    significance
        of the exact binomial over bits.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(0, 256))
    >>> method = Uchida(bits=32, text="me", lam=0.5, epochs=4)
    >>> model, key = method.protect(embedded_model().model, images, secret=b"1" * 32, rng=generator(0))
    >>> method.message(model, key)[:2], method.verify(model, key).statistic
    ('me', 0.0)
    """

    card: ClassVar[Card] = Card(
        name="uchida",
        title="message bits in the mean filter of one layer",
        paper="Uchida, Nagai, Sakazawa, Satoh: Embedding watermarks into deep neural networks, ICMR 2017, arXiv 1701.04082",
        taxonomy=PARAMETER,
        claims=(
            *withstands("ftal", "prune", figures={"prune": "65 % of the weights"}),
            Claim("does not cost accuracy", metric="fidelity_drop", most=0.01, figure="error 7.97 to 8.37 % marked, 8.04 % unmarked"),
        ),
        limits=(
            "a key can be made for any network after the fact: only a dated commitment to it says whose model it is",
            "a second mark of the same scheme, and shifted filters, can overwrite it",
            "the layer's weights are spread more widely than in other networks: that can be seen",
            "does not survive extraction: it lies in the weights, not in the answers",
        ),
        cost="embedding: eight epochs of fine-tuning; verification: reading one layer, no query",
    )

    bits: int = 64
    lam: float = 0.05
    kind: str = "random"
    text: str = ""
    significance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            bits=(self.bits >= 1, ">= 1"), lam=(self.lam >= 0, ">= 0"), kind=(self.kind in KINDS, ", ".join(KINDS)),
            text=(8 * len(self.text.encode()) <= self.bits, f"at most {self.bits // 8} bytes for {self.bits} bits"),
            significance=(0 < self.significance < 1, "in (0, 1)"),
        )  # fmt: skip

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        del data, rng
        name, layer = find_layer(model, self.layer, bits=self.bits)
        facts = {"layer": name, "width": layer.weight[0].numel(), "bits": self.bits, "draws": {"of": "bits"}}
        mark = self._referred(Mark({"seed": seed_tensor(secret)}, facts), model)
        return Mark({**mark.tensors, "bits": message_bits(self.text, self.bits, bound_secret(mark.tensors))}, facts)

    def _matrix(self, tensors: Mapping[str, Tensor], width: int) -> Tensor:
        """Return X: what secret and message give, or, in the paper's variant, what the key brings."""
        if "matrix" in tensors and self.variant == "paper":
            if tensors["matrix"].shape != (self.bits, width):
                message = f"the matrix in this key has shape {tuple(tensors['matrix'].shape)}, {(self.bits, width)} is wanted"
                raise InputError(message)
            return tensors["matrix"]
        if "matrix" in tensors:
            raise InputError(
                "this key brings a matrix of its own; X comes from the secret and the message, or anybody could claim any network"
            )
        message = "".join(map(str, bits_in(tensors, self.bits).tolist()))
        return projection(bound_secret(tensors), self.bits, width, self.kind, bound=message if self.variant == "hardened" else "")

    @property
    def _strength(self) -> tuple[str, float]:
        return "lam", self.lam

    def counted(self, key: Key) -> int:
        """Return how many bits are drawn from the secret."""
        del key
        return self.bits - len(bits_of(self.text))

    def _penalty(self, mark: Mark) -> Penalty:
        return BitPenalty(mark.facts["layer"], self._matrix(mark.tensors, mark.facts["width"]), mark.tensors["bits"], self.lam)

    def message(self, suspect: nn.Module, key: Key) -> str:
        """Return the text that a suspect's weights say under a key; what is no text shows as question marks."""
        method = self.enrolled(key)
        return text_of(method._bits(method.observe(suspect, key), key).tolist())  # noqa: SLF001

    def _bits(self, observed: Observation, key: Key) -> Tensor:
        """Return the bits that were read, bool (T,)."""
        mean = require_mean(observed, int(key.fact(float, "width")))
        return self._matrix(key.tensors, len(mean)) @ mean >= 0

    def _finding(self, observed: Observation, key: Key) -> Finding:
        told, bits = len(bits_of(self.text)), bits_in(key.tensors, self.bits)
        wrong = (self._bits(observed, key) != bits.bool())[told:]
        hardened, many = self.variant == "hardened", self.bits - told
        name = f"wrong bits, or all of them inverted (of {many} drawn)" if hardened else f"wrong bits (of {many} drawn)"
        found = by_chance(int(wrong.sum()), many, name, of="draws of the bits", significance=self.significance, inverted=hardened)
        drawn = torch.equal(bits, message_bits(self.text, self.bits, bound_secret(key.tensors))) and "matrix" not in key.tensors
        doubts = found.doubts if drawn else (*found.doubts, UNKEPT)
        return replace(found, doubts=doubts, notes=unordered(key.tensors))

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return a key for a network as it is: of the paper's variant X is solved for, of the hardened one the best of 1,000 secrets is taken."""
        drawn = self._draw(model, data, secret=secret, rng=rng)
        with torch.no_grad():
            mean = filter_mean(model, drawn.facts["layer"])
        if self.variant == "paper":
            own, wanted = self._matrix(drawn.tensors, len(mean)), 2 * drawn.tensors["bits"].float() - 1
            # the smallest change of a random X after which X w is +-|w|: least squares, which has a solution for every w
            short = (wanted * mean.norm() - own @ mean) / mean.dot(mean)
            return Mark({**drawn.tensors, "matrix": own + short[:, None] * mean}, {**drawn.facts, "forged": True})
        best = min((self._tried(derive(secret, "try", str(index)), mean, drawn) for index in range(TRIES)), key=lambda pair: pair[0])[1]
        return Mark(best.tensors, {**best.facts, "forged": True, "tries": TRIES})

    def _tried(self, secret: bytes, mean: Tensor, drawn: Mark) -> tuple[int, Mark]:
        """Return how many bits are wrong under one secret, and its mark."""
        own = {**drawn.tensors, "seed": seed_tensor(secret)}
        tensors = {**own, "bits": message_bits(self.text, self.bits, bound_secret(own))}
        found = self._matrix(tensors, len(mean)) @ mean >= 0
        return int((found != tensors["bits"].bool()).sum()), Mark(tensors, drawn.facts)
