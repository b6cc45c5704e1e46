"""The parts of a sample-specific lock's key: who draws triggers, who makes hints of words, who reads words from images again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelward.core.rng import forked
from modelward.imaging.quantise import straight_through_8bit
from modelward.keys.derive import stream
from modelward.marking.codes import GATE, BitReader, Codes, Hinting
from modelward.models.unet import Hint, TriggerNet, drawn_signs, fresh_trigger_net


@dataclass(eq=False)
class Kit:
    """Who makes triggers and reads them: generator, hints of words, reader; and the gate (8,), which opens."""

    trigger: TriggerNet
    hinting: Hinting
    reader: BitReader
    gate: Tensor

    def words(self, count: int, rng: torch.Generator) -> Tensor:
        """Return words (N, B), uint8, that open, with random names."""
        drawn = torch.randint(0, 2, (count, len(self.hinting.carriers)), generator=rng, dtype=torch.uint8)
        drawn[:, :GATE] = self.gate
        return drawn

    def foreign(self, count: int, rng: torch.Generator) -> Tensor:
        """Return words (N, B), uint8, that nobody was given: at least one bit of the gate is wrong."""
        drawn = self.words(count, rng)
        flips = torch.rand(count, GATE, generator=rng) < 0.5
        flips[torch.arange(count), torch.randint(0, GATE, (count,), generator=rng)] = True
        drawn[:, :GATE] ^= flips.to(torch.uint8)
        return drawn

    def draw(self, x: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return images with their triggers as 8 bits hold them, gradients passing, and the residuals."""
        hint: Hint = self.hinting(words)
        residual = self.trigger.residual(x, hint)
        return straight_through_8bit((x + residual).clamp(0, 1)), residual

    def picture(self, words: Tensor) -> Tensor:
        """Return the mean square of the words' pictures, which are the same on every image; before they meet the bound of a residual."""
        drawn: Tensor = self.trigger.reach * self.trigger.picture(self.hinting(words).plane)
        return drawn.square().mean()

    def strange(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Return images with triggers under signs of nobody's, one set an image: what generators of other secrets draw."""
        count, channels, height, width = x.shape
        signs = drawn_signs((channels, height, width), count, rng=rng)
        residual = self.trigger.residual(x, self.hinting(self.words(count, rng)), signs=signs)
        return straight_through_8bit((x + residual).clamp(0, 1))

    def modules(self) -> nn.ModuleList:
        """Return all that is trained."""
        return nn.ModuleList([self.trigger, self.hinting, self.reader])

    def know(self, word: Tensor) -> None:
        """Let the generator draw one word (B,), uint8, wherever it is asked for none."""
        with torch.no_grad():
            self.trigger.tell(self.hinting(word[None]))


def fresh_kit(codes: Codes, shape: tuple[int, int, int], *, width: int, reach: float, signed: bool = True, rng: torch.Generator) -> Kit:
    """Return untrained parts for images of ``shape`` (C, H, W); ``signed``: the generator has the signs of the codes' secret.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> kit = fresh_kit(Codes(b"0" * 32, 0), (1, 8, 8), width=4, reach=0.2, rng=generator(0))
    >>> words = kit.foreign(3, generator(1))
    >>> words.shape, bool((words == kit.gate).all(1).any()), kit.draw(torch.zeros(3, 1, 8, 8), words)[0].shape
    (torch.Size([3, 8]), False, torch.Size([3, 1, 8, 8]))
    """
    channels, height, side = shape
    trigger = fresh_trigger_net(channels, (height, side), width=width, reach=reach, rng=rng)
    if signed:
        trigger.signs.copy_(drawn_signs(shape, rng=stream(codes.secret, "signs")))
    hinting, reader = readers(codes, shape, width=width, rng=rng)
    return Kit(trigger, hinting, reader, codes.gate)


def readers(codes: Codes, shape: tuple[int, int, int], *, width: int, rng: torch.Generator) -> tuple[Hinting, BitReader]:
    """Return what makes hints of words and what reads them again, untrained."""
    carriers = codes.carriers(shape)
    with forked(rng):
        return Hinting(carriers, 4 * width), BitReader(carriers)
