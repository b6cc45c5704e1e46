"""What a net expects of its images where that is not RGB in [0, 1]: put inside the model, so that everything else sees one convention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modelward.core.errors import UsageError
from modelward.models.net import Net

ORDERS = ("rgb", "bgr")


@dataclass(frozen=True, kw_only=True)
class Convention:
    r"""The images a net was trained on: ``net`` gets :math:`((h - l) x' + l - \mu) / \sigma`, where x' is the image in the net's order of channels.

    Parameters
    ----------
    range
        (l, h): what black and white are before mean and std; (0, 255) for nets that were fed bytes, (1, 0) for inverted images.
    mean, std
        :math:`\mu` and :math:`\sigma`, one number for all channels or one for each, in the units of ``range``, in the order of ``channels``.
    channels
        ``rgb`` or ``bgr``.

    Raises
    ------
    UsageError
        for an empty range, a std of 0, numbers that are not finite, another order.

    Examples
    --------
    >>> from torch import nn, tensor
    >>> net = Net(nn.Flatten(), "flat", classes=3, size=(1, 1), mean=[0.0] * 3, std=[1.0] * 3)
    >>> outside = Convention(range=(0, 255), mean=(104, 117, 123), channels="bgr")
    >>> outside.around(net)(tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).round()
    tensor([[-104., -117.,  132.]])
    """

    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: str = "rgb"

    def __post_init__(self) -> None:
        if len(self.range) != 2 or self.range[0] == self.range[1] or not all(map(math.isfinite, self.range)):
            message = f"the range is two different numbers, what black and what white is, as in 0,255; got {self.range}"
            raise UsageError(message)
        if not self.mean or not self.std or not all(map(math.isfinite, (*self.mean, *self.std))) or 0 in self.std:
            message = f"mean and std are finite numbers, std not 0; got mean {self.mean} and std {self.std}"
            raise UsageError(message)
        if self.channels not in ORDERS:
            message = f"channels are {' or '.join(ORDERS)}, not {self.channels!r}"
            raise UsageError(message)

    def applied(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] as the net expects them."""
        images = x.flip(1) if self.channels == "bgr" else x
        mean, std = (torch.tensor(values, dtype=x.dtype).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images * (self.range[1] - self.range[0]) + self.range[0] - mean) / std

    def around(self, net: Net) -> Net:
        """Return a net that takes RGB in [0, 1] around the same body, which keeps its weights; ``net`` is left as it is.

        What ``net`` does to its images already comes after the convention. Both are affine maps of a channel, and become one.
        """
        count = net.channels
        if {len(self.mean), len(self.std)} - {1, count}:
            message = (
                f"the net has {count} channels, the convention {len(self.mean)} means and {len(self.std)} stds; give one or {count} of each"
            )
            raise UsageError(message)
        if self.channels == "bgr" and count != 3:
            message = f"the net has {count} channels; bgr is an order of three"
            raise UsageError(message)
        mine = list(range(count))[:: -1 if self.channels == "bgr" else 1]
        inner = net.order.tolist() if net.order is not None else list(range(count))
        low, high = self.range
        mean, std = [], []
        for channel, m, s in zip(inner, net.mean.flatten().tolist(), net.std.flatten().tolist(), strict=True):
            own_mean, own_std = self.mean[channel % len(self.mean)], self.std[channel % len(self.std)]
            mean.append((own_mean + own_std * m - low) / (high - low))
            std.append(own_std * s / (high - low))
        order = [mine[channel] for channel in inner]
        return Net(net.body, net.arch, classes=net.classes, size=net.size, mean=mean, std=std, order=order).train(net.training)
