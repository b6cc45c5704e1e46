"""The owner's bits in the weights of one layer, for when a lock has failed (Uchida et al., ICMR 2017, arXiv 1701.04082)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.commitment import Commitment
from modelward.core.deciding import Finding, Standing, decide
from modelward.core.errors import InputError
from modelward.core.guard import private_copy, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import forked
from modelward.core.verdict import Verdict
from modelward.keys.derive import derive
from modelward.marking.chances import by_chance
from modelward.marking.weights import BitPenalty, find_layer, message_bits, projection
from modelward.training import Recipe, fit
from modelward.training.extras import Extras

SIGNIFICANCE = 1e-6
ROUNDS = 6
UNLEARNT = "The bits do not survive extraction: they lie in the weights, not in the answers."


@dataclass(frozen=True, kw_only=True)
class Watermark:
    """Bits drawn from a secret, taught to the mean filter of one layer by a short fine-tuning.

    Parameters
    ----------
    bits
        how many; 0 leaves the network as it is.
    lam, epochs, lr
        weight of the bits in the loss, and the fine-tuning; it is repeated until every bit is right, a few times at most.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(0, 256))
    >>> mark = Watermark(bits=32)
    >>> net, facts = mark.embed(embedded_model().model, images, b"0" * 32, rng=generator(0))
    >>> mark.errors(net, facts, b"0" * 32), mark.errors(embedded_model().model, facts, b"0" * 32) > 0.2
    (0.0, True)
    """

    bits: int = 64
    lam: float = 0.2
    epochs: int = 3
    lr: float = 0.02

    def require_layer(self, model: nn.Module, who: str) -> None:
        """Raise `InputError` where no layer can carry the bits: unlike other marks, a lock has no setting that names one."""
        if not self.bits:
            return
        try:
            find_layer(model, bits=self.bits)
        except InputError as error:
            reason = str(error).rpartition("; ")[0] or str(error)  # what follows names settings of other marks
            message = f"{reason}; {who} picks the layer itself: bits=0 locks without bits in the weights, fewer bits fit shorter filters"
            raise InputError(message) from error

    def embed(self, model: nn.Module, data: ImageSet, secret: bytes, *, rng: torch.Generator) -> tuple[nn.Module, dict[str, Any]]:
        """Return a copy that carries the bits, and where they lie.

        Raises
        ------
        InputError
            when no layer has room, or the bits do not take.
        """
        made = private_copy(model)
        if not self.bits:
            return made.eval(), {}
        name, layer = find_layer(made, bits=self.bits)
        facts = {"layer": name, "width": layer.weight[0].numel(), "bits": self.bits}
        penalty = self._penalty(facts, secret)
        recipe = Recipe(epochs=self.epochs, batch=64, lr=self.lr, schedule="cosine", precision="fp32")
        for _ in range(ROUNDS):
            with forked(rng):
                fit(made, data.pixels, data.labels, recipe, rng=rng, extras=Extras(penalty=penalty), task="watermark")
            if bool((penalty.read(made) == penalty.bits).all()):
                return made.eval(), facts
        message = f"{self.bits} bits do not take in layer {name} of this network; embed fewer, or raise lam or epochs"
        raise InputError(message)

    def _penalty(self, facts: dict[str, Any], secret: bytes) -> BitPenalty:
        """Return the bits with their matrix, which hangs on the bits: nobody picks a matrix for a message."""
        count, width = int(facts["bits"]), int(facts["width"])
        own = derive(secret, "watermark")
        bits = message_bits("", count, own)
        matrix = projection(own, count, width, "orthonormal", bound="".join(map(str, bits.tolist())))
        return BitPenalty(str(facts["layer"]), matrix, bits, self.lam)

    def errors(self, suspect: nn.Module, facts: dict[str, Any], secret: bytes) -> float:
        """Return the share of wrong bits of a suspect, .5 for a network that has nothing to do with the owner's."""
        penalty = self._penalty(facts, secret)
        wrong: Tensor = penalty.read(suspect) != penalty.bits
        return float(wrong.double().mean())

    def verdict(
        self, suspect: nn.Module, key: Key, secret: bytes, nulls: Sequence[nn.Module] = (), commitment: Commitment | None = None
    ) -> Verdict:
        """Return what the bits say of a suspect, by the rule of all marks: p is exact over the secret that drew the bits.

        Parameters
        ----------
        nulls
            independent networks with that layer: how many of them the bits would accuse is counted, and decides nothing.
        commitment
            what dates the key; a secret that fits can be searched for after the fact, so that without it nothing is decided.
        """
        facts = key.fact(dict, "watermark")
        if not facts:
            raise InputError("this key's network was locked without bits in its weights (bits=0); there is nothing to verify")
        accused = sum(self._finding(null, facts, secret).claims for null in nulls)
        standing = Standing(
            method=key.method, variant=key.variant, forgeable=True, access="weights", queries=0, nulls=len(nulls), false_claims=accused,
            commitment=commitment, same=state_digest(suspect) == key.model_digest,
        )  # fmt: skip
        return decide(self._finding(suspect, facts, secret), standing)

    def _finding(self, suspect: nn.Module, facts: dict[str, Any], secret: bytes) -> Finding:
        """Return what the bits say, before anything is decided."""
        count = int(facts["bits"])
        wrong = round(self.errors(suspect, facts, secret) * count)
        return replace(
            by_chance(wrong, count, f"wrong bits (of {count})", of="draws of the bits", significance=SIGNIFICANCE), notes=(UNLEARNT,)
        )
