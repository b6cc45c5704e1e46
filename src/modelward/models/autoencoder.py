"""A small convolutional autoencoder, and how it learns to give images back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.core.guard import outputs
from modelward.core.rng import forked


class Autoencoder(nn.Module):
    """Two strided convolutions down, two transposed ones up: images (N, C, H, W) in [0, 1] -> images of the same shape in [0, 1].

    Parameters
    ----------
    channels
        of the images.
    width
        channels after the first convolution; the narrowest part holds 2 * width * (H / 4) * (W / 4) numbers.

    Examples
    --------
    >>> Autoencoder(1, 4)(torch.rand(2, 1, 13, 10)).shape
    torch.Size([2, 1, 13, 10])
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.down = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU()
        )  # fmt: skip
        self.up = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Sigmoid()
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction; sides that are no multiple of 4 are padded inside."""
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")
        made: Tensor = self.up(self.down(padded))
        return made[:, :, :height, :width]


def empty_autoencoder(channels: int, width: int) -> Autoencoder:
    """Return an autoencoder whose weights are yet to be drawn or filled in: nothing is drawn from torch's global generator."""
    with torch.device("meta"):
        model = Autoencoder(channels, width)
    return model.to_empty(device="cpu").requires_grad_(True)


def train_autoencoder(
    model: Autoencoder, pixels: Tensor, *, epochs: int, lr: float, noise: float, batch: int, rng: torch.Generator
) -> list[float]:
    """Train ``model`` in place to give uint8 images (N, C, H, W) back from noisy copies; return the mean squared error of each epoch.

    Raises
    ------
    InputError
        when there are no images, or they have another number of channels.
    """
    if not len(pixels) or pixels.shape[1] != model.channels:
        message = f"an autoencoder for {model.channels} channels needs images of that many, got shape {tuple(pixels.shape)}"
        raise InputError(message)
    with forked(rng):
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.reset_parameters()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    log = []
    model.train()
    for _ in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(pixels), generator=rng).split(batch):
            x = pixels[chosen].to(torch.float32).div_(255)
            loss = F.mse_loss(model(x.add(torch.randn(x.shape, generator=rng), alpha=noise).clamp_(0, 1)), x)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
        log.append(total / len(pixels))
    model.eval()
    for parameter in model.parameters():
        parameter.grad = None
    return log


def reconstruction_errors(model: Autoencoder, pixels: Tensor) -> Tensor:
    """Return the mean squared error (N,) of each uint8 or float image."""
    x = pixels.to(torch.float32).div(255) if pixels.dtype == torch.uint8 else pixels
    return (outputs(model, pixels) - x).square().flatten(1).mean(1)
