"""Heads that grow and shrink: the other outputs stay, and files know the new number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelward.core.errors import InputError
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.marking.heads import drop_outputs, find_head, mix_outputs, widen_head
from modelward.models import Net, build, load_model, save_model
from modelward.models.assembly import pack, unpack

ARCHES = ("mlp:width=8", "lenet5", "cnn:width=4", "resnet8:width=4", "wrn16:width=1", "mobilenet", "vit-tiny:width=16,depth=1")


@pytest.mark.parametrize("arch", ARCHES)
def test_a_wider_net_keeps_its_logits_and_is_read_back(arch: str, tmp_path: Path, untouched: Callable[..., Any]) -> None:
    net = build(arch, classes=5, channels=3, size=(16, 16), rng=generator(0))
    x = torch.rand(4, 3, 16, 16, generator=generator(1))
    with untouched(net):
        wide = widen_head(net, 3, rng=generator(2)).eval()
        few = drop_outputs(wide, range(5))
    assert wide.classes == 8
    assert torch.allclose(predict(wide, x)[:, :5], predict(net, x), atol=1e-5)
    assert torch.equal(predict(few, x), predict(net, x))
    save_model(tmp_path / "wide.safetensors", wide)
    for again in (load_model(tmp_path / "wide.safetensors").model, unpack(*pack(wide))):
        assert again.classes == 8
        assert torch.equal(predict(again, x), predict(wide, x))
    assert all(parameter.requires_grad for parameter in wide.parameters())


class Twisted(nn.Module):
    """Registers its head before its body, and pools 1x1 convolutions to logits."""

    def __init__(self, *, flips: bool = False) -> None:
        super().__init__()
        self.classify = nn.Conv2d(6, 4, 1)
        self.body = nn.Conv2d(1, 6, 3)
        self.attention = nn.Linear(1, 1)
        self.flips = flips

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 4)."""
        if self.flips and bool(x.sum() < 0):
            x = -x
        h = self.body(x).relu()
        return self.classify(h * self.attention(h.mean((2, 3), keepdim=True))).mean((2, 3))


class Sulky(nn.Module):
    """Looks at values."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x if bool(x.sum() < 0) else x * 1


def test_the_head_is_where_the_logits_come_from_not_the_last_that_was_registered() -> None:
    net, x = Twisted(), torch.rand(2, 1, 8, 8, generator=generator(0))
    assert find_head(net)[0] == "classify"
    wide = widen_head(net, 2, rng=generator(1))
    assert wide(x).shape == (2, 6)
    assert torch.allclose(wide(x)[:, :4], net(x), atol=1e-6)


def test_a_net_that_cannot_be_followed_is_widened_only_where_the_number_of_outputs_bears_it_out() -> None:
    with pytest.raises(InputError, match="has no linear head"):
        find_head(Twisted(flips=True))  # by position it would be the attention
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), Sulky())
    assert find_head(Net(body, "mine", classes=4, size=(8, 8), mean=[0.0], std=[1.0]))[0] == "body.1"
    with pytest.raises(InputError, match="has no linear head"):
        find_head(Net(body, "mine", classes=5, size=(8, 8), mean=[0.0], std=[1.0]))


def test_outputs_are_mixed_in_the_head() -> None:
    net = build("cnn:width=4", classes=3, channels=1, size=(8, 8), rng=generator(0))
    mixing, shift = torch.randn(2, 3, generator=generator(1)), torch.randn(2, generator=generator(2))
    x = torch.rand(5, 1, 8, 8, generator=generator(3))
    assert torch.allclose(predict(mix_outputs(net, mixing, shift), x), predict(net, x) @ mixing.T + shift, atol=1e-4)


def test_what_has_no_linear_head_is_refused_in_one_sentence() -> None:
    for net in (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())):
        with pytest.raises(InputError, match="has no linear head"):
            widen_head(net, rng=generator(0))
    with pytest.raises(InputError, match="at least one output"):
        widen_head(build("mlp", classes=3, rng=generator(0)), 0, rng=generator(0))
    for kept in ([], [3], [-1]):
        with pytest.raises(InputError, match="cannot keep"):
            drop_outputs(build("mlp", classes=3, rng=generator(0)), kept)
    with pytest.raises(InputError, match="single layer"):
        widen_head(nn.Linear(3, 3), rng=generator(0))
