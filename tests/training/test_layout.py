"""Networks that the library behind convolutions cannot train in channels last are trained in another layout, with right gradients."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from modelward.core.rng import generator
from modelward.models import build
from modelward.training import Recipe, fit
from modelward.training.layout import layout


def test_residual_nets_of_few_channels_are_trained_as_they_come() -> None:
    small, usual = (build(f"resnet8:width={width}", classes=2, rng=generator(0)) for width in (4, 16))
    assert (layout(small), layout(usual)) == (torch.contiguous_format, torch.channels_last)


def test_one_step_is_the_step_that_the_gradients_give() -> None:
    """A loop of plain autograd on contiguous tensors makes the same step."""
    images = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8, generator=generator(1))
    labels = torch.arange(32) % 2
    ours, plain = (build("resnet8:width=4", classes=2, channels=3, size=(16, 16), rng=generator(0)) for _ in range(2))
    fit(ours, images, labels, Recipe(epochs=1, batch=32, lr=0.1, momentum=0.0, weight_decay=0.0, precision="fp32"), rng=generator(2))
    plain.train()
    F.cross_entropy(plain(images.float() / 255), labels).backward()
    with torch.no_grad():
        steps = {name: (old - new) / old.grad for (name, old), (_, new) in zip(plain.named_parameters(), ours.named_parameters(), strict=True)
                 if old.grad is not None and name.endswith("weight") and isinstance(plain.get_submodule(name[:-7]), nn.Conv2d)}  # fmt: skip
    rates = torch.cat([step.flatten()[step.isfinite().flatten()] for step in steps.values()])
    assert len(steps) >= 7
    assert rates.quantile(0.9) / rates.quantile(0.1) < 1.05  # one rate for all entries of all convolutions
