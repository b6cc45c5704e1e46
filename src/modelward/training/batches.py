"""What happens to a batch, and to the modes of a network, before a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def train_mode(model: nn.Module) -> None:
    """Put ``model`` in training mode, except layers whose parameters are all frozen: their running statistics stay too."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def random_crop(x: Tensor, pad: int, rng: torch.Generator) -> Tensor:
    """Return ``x`` shifted by up to ``pad`` pixels per image, zeros coming in."""
    n, _, height, width = x.shape
    padded = F.pad(x, (pad, pad, pad, pad))
    top, left = (torch.randint(0, 2 * pad + 1, (2, n), generator=rng)).unbind()
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def augmented(x: Tensor, *, crop: int, flip: bool, rng: torch.Generator) -> Tensor:
    """Return images (N, C, H, W) moved by up to ``crop`` pixels, zeros coming in, and half of them mirrored where ``flip`` is set.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> row = torch.tensor([[[[1.0, 2.0, 3.0]]]]).expand(64, -1, -1, -1)
    >>> sorted({tuple(made) for made in augmented(row, crop=0, flip=True, rng=generator(0))[:, 0, 0].tolist()})
    [(1.0, 2.0, 3.0), (3.0, 2.0, 1.0)]
    """
    if crop:
        x = random_crop(x, crop, rng)
    if flip:
        mirrored = torch.rand(len(x), generator=rng) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x


def joined(x: Tensor, y: Tensor, more_x: Tensor, more_y: Tensor) -> tuple[Tensor, Tensor]:
    """Return two batches as one; labels become probabilities when one of the two has them.

    Parameters
    ----------
    x, more_x
        images (N, C, H, W) and (M, C, H, W).
    y, more_y
        int64 labels (N,), or probabilities (N, K).

    Examples
    --------
    >>> images, soft = torch.zeros(2, 1, 4, 4), torch.full((2, 4), 0.25)
    >>> joined(images, torch.tensor([3, 1]), images, soft)[1][[0, 2]].tolist()
    [[0.0, 0.0, 0.0, 1.0], [0.25, 0.25, 0.25, 0.25]]
    """
    if y.ndim != more_y.ndim:
        classes = (y if y.ndim == 2 else more_y).shape[1]
        y, more_y = (t if t.ndim == 2 else F.one_hot(t, classes).float() for t in (y, more_y))
    return torch.cat([x, more_x.to(x.device)]), torch.cat([y, more_y.to(y.device)])
