"""A network behind its normalisation: what every model file becomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError


class Net(nn.Module):
    """A body behind its normalisation: ``body((x[:, order] - mean) / std)``.

    ``arch`` is its name with arguments, as in ``--arch``; ``size`` the (height, width) it was built for. The tensors ``mean`` and ``std`` are part
    of its state, and so is ``order`` where the body does not take its channels as they come. Images may be of any floating type: the body gets
    them in its own, and the logits of a body in half precision come back as float32.

    Parameters
    ----------
    body
        image batch (N, C, H, W), normalised -> logits (N, K).
    arch, classes, size
        name with arguments, number K of outputs, (height, width).
    mean, std
        one number a channel, in the body's order of channels.
    order
        for each channel of the body, the channel of the image that it takes; ``(2, 1, 0)`` for a body that was trained on BGR.

    Examples
    --------
    >>> net = Net(nn.Flatten(), "flat", classes=12, size=(2, 2), mean=[0.5] * 3, std=[0.5] * 3, order=(2, 1, 0))
    >>> net(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2))[0, ::4]
    tensor([ 1.,  0., -1.])
    """

    casts_images: ClassVar[bool] = True
    mean: Tensor
    std: Tensor
    order: Tensor | None

    def __init__(
        self,
        body: nn.Module,
        arch: str,
        *,
        classes: int,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.arch, self.classes, self.size = arch, classes, size
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        plain = order is None or list(order) == list(range(len(mean)))
        self.register_buffer("order", None if plain else torch.tensor(order, dtype=torch.int64))

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return self.mean.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for images (N, C, H, W) in [0, 1]."""
        if x.shape[1:] != (self.channels, *self.size):
            message = f"{self.arch} takes images of shape {(self.channels, *self.size)}, got {tuple(x.shape[1:])}"
            raise InputError(message)
        if self.order is not None:
            x = x[:, self.order]
        x = (x - self.mean) / self.std
        kind = next((parameter.dtype for parameter in self.body.parameters() if parameter.is_floating_point()), x.dtype)
        x = x if x.dtype == kind else x.to(kind)  # after the normalisation, so that bfloat16 rounds once
        if kind == torch.float32:
            logits: Tensor = self.body(x)
            return logits
        with torch.autocast(x.device.type, enabled=False):  # it brings a type of its own, which does not go with these weights
            logits = self.body(x)
        return logits.float() if kind in {torch.float16, torch.bfloat16} else logits
