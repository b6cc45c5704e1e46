"""The networks that the robustness figures are measured on, trained once, then read from disk."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from modelward import Recipe, build, fit, generator, load_data, load_model, save_model
from modelward.attacks.evasion.descent import gradient
from modelward.core.images import ImageSet

COUNT = 8_000


def fast_adversary(model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    """Return one signed step of 10/255 from a random point of the 8/255 ball (Wong, Rice, Kolter 2020, arXiv 2001.03994)."""
    eps, step = 8 / 255, 10 / 255
    start = (x + torch.empty_like(x).uniform_(-eps, eps, generator=rng)).clamp_(0, 1)
    grad, _ = gradient(model, start.contiguous(memory_format=torch.channels_last), y, bf16=True)
    return torch.clamp(start + step * grad.sign(), min=x - eps, max=x + eps).clamp_(0, 1)


def nets(folder: Path) -> tuple[dict[str, nn.Module], ImageSet]:
    """Return the two ResNet-14 by name, and 512 CIFAR-10 test images."""
    data = load_data("cifar10-jpeg")
    found = {}
    for name, adversary in (("plain", None), ("adversarial", fast_adversary)):
        path = folder / f"bench-resnet14-{name}.safetensors"
        if not path.is_file():
            chosen = torch.randperm(len(data.train), generator=generator(1))[:COUNT]
            images = data.train.take(chosen)
            net = build("resnet14", classes=10, channels=3, size=(32, 32), rng=generator(0))
            recipe = Recipe(epochs=10, lr=0.2, batch=128, flip=True, crop=2)
            fit(net, images.pixels, images.labels, recipe, rng=generator(2), adversary=adversary)
            folder.mkdir(parents=True, exist_ok=True)
            save_model(path, net)
        found[name] = load_model(path, "resnet14").model
    order = torch.randperm(len(data.test), generator=generator(3))[:512]
    return found, data.test.take(order)


def fashion_resnet8(folder: Path) -> nn.Module:
    """Return a ResNet-8 trained on Fashion-MNIST."""
    path = folder / "bench-resnet8-fashion.safetensors"
    if not path.is_file():
        images = load_data("fashion-mini").train
        net = build("resnet8", classes=10, channels=1, size=(28, 28), rng=generator(0))
        fit(net, images.pixels, images.labels, Recipe(epochs=6, lr=0.1, batch=64), rng=generator(1))
        folder.mkdir(parents=True, exist_ok=True)
        save_model(path, net)
    return load_model(path, "resnet8").model
