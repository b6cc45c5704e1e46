"""Key images that belong to no task, and what must not be taken for them: relatives of other seeds, noise, keys with their pixels shuffled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.data import load_data
from modelward.imaging.abstract import abstract_images
from modelward.imaging.glyphs import glyph_images

Shape = tuple[int, int, int]
KINDS = ("other seed", "noise", "shuffled")


def family(source: str, count: int, shape: Shape, *, rng: torch.Generator) -> Tensor:
    """Return ``count`` images (N, C, H, W), uint8, of one family.

    Parameters
    ----------
    source
        ``"procedural"``: smooth random fields; ``"unrelated"``: letters and digits; anything else is a data set, a folder or a zip of images that
        `load_data` reads: ``count`` of them at random, resized.

    Raises
    ------
    InputError
        when a collection has fewer images.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> family("unrelated", 3, (3, 16, 16), rng=generator(0)).shape, family("fashion-mini", 3, (1, 16, 16), rng=generator(0)).shape
    (torch.Size([3, 3, 16, 16]), torch.Size([3, 1, 16, 16]))
    """
    if source == "procedural":
        return abstract_images(count, shape, rng=rng)
    if source == "unrelated":
        return glyph_images(count, shape, rng=rng)
    images = load_data(source).train.pixels
    if len(images) < count:
        message = f"{source} has {len(images)} images, {count} key images were asked for; pass a larger collection or a smaller count"
        raise InputError(message)
    chosen = images[torch.randperm(len(images), generator=rng)[:count]]
    return resized(chosen, shape)


def resized(pixels: Tensor, shape: Shape) -> Tensor:
    """Return images (N, C, H, W), uint8, in another ``shape`` (C, H, W): grey where one channel is wanted, else the same in all."""
    x = pixels.float()
    if x.shape[1] != shape[0]:
        x = x.mean(1, keepdim=True).expand(-1, shape[0], -1, -1)
    return F.interpolate(x, shape[1:], mode="bilinear", antialias=True).round_().clamp_(0, 255).to(torch.uint8)


def noise(count: int, shape: Shape, *, rng: torch.Generator) -> Tensor:
    """Return uniform noise (N, C, H, W), uint8."""
    return torch.randint(0, 256, (count, *shape), generator=rng, dtype=torch.uint8)


def shuffled(pixels: Tensor, *, rng: torch.Generator) -> Tensor:
    """Return images (N, C, H, W), each with its pixels in an order of its own; the same one in all channels.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> image = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    >>> sorted(shuffled(image, rng=generator(0)).flatten().tolist())
    [0, 1, 2, 3]
    """
    places = torch.rand(len(pixels), 1, pixels[0, 0].numel() if len(pixels) else 0, generator=rng).argsort(2)
    return pixels.flatten(2).gather(2, places.expand(-1, pixels.shape[1], -1)).view_as(pixels)


def draw_decoys(source: str, keys: Tensor, count: int, *, rng: torch.Generator, near: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return ``count`` decoys (N, C, H, W), uint8, and the number of the kind (N,) of each: half of other seeds, the rest noise and shuffled keys.

    Parameters
    ----------
    near
        those of other seeds, where they are drawn already: ``near_count(count)`` of them.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> keys = abstract_images(3, (1, 8, 8), rng=generator(0))
    >>> draw_decoys("procedural", keys, 8, rng=generator(1))[1].tolist()
    [0, 0, 0, 0, 1, 1, 2, 2]
    """
    shape = (keys.shape[1], keys.shape[2], keys.shape[3])
    wanted, noisy = near_count(count), count // 4
    mixed = keys[torch.randint(0, len(keys), (count - wanted - noisy,), generator=rng)]
    parts = (family(source, wanted, shape, rng=rng) if near is None else near, noise(noisy, shape, rng=rng), shuffled(mixed, rng=rng))
    return torch.cat(parts), torch.repeat_interleave(torch.arange(3), torch.tensor([len(part) for part in parts]))


def near_count(count: int) -> int:
    """Return how many of ``count`` decoys are of the keys' own family, of other seeds."""
    return count - count // 2


def decoy_companions(
    source: str, keys: Tensor, count: int, target: Callable[[Tensor], Tensor]
) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """Return a source of ``count`` fresh decoys for every batch, with the probabilities that ``target`` gives them, as `embed` takes it."""

    def draw(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x = draw_decoys(source, keys, count, rng=rng)[0].to(torch.float32).div_(255)
        return x, target(x)

    return draw
