"""Passport layers: convolutions whose normalisation takes scale and shift from a secret feature map instead of learnt numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.core.guard import private_copy
from modelward.models.channels import folds

MARGIN = 0.1  # the sign loss asks each scale to be so far from 0


@dataclass(frozen=True)
class Gate:
    """Names of a convolution and of the batch normalisation behind it, which a passport fills."""

    conv: str
    norm: str


def find_gates(model: nn.Module, count: int) -> list[Gate]:
    """Return the last ``count`` convolutions, of more than 1x1, that are followed by a batch normalisation of their own.

    Raises
    ------
    InputError
        when the network has fewer.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.models.nets import build
    >>> find_gates(build("cnn", classes=10, rng=generator(0)), 1)
    [Gate(conv='body.8', norm='body.9')]
    """
    names = {module: name for name, module in model.named_modules()}
    found = [
        Gate(names[layer], names[norm])
        for layer, norm in folds(model)
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1) and layer.groups == 1
    ]
    if len(found) < count:
        message = (
            f"passports need {count} convolutions with a batch normalisation behind each, this {type(model).__name__} has {len(found)}; "
            "cnn and the residual networks have them"
        )
        raise InputError(message)
    return found[len(found) - count :]


def conv_of(model: nn.Module, gate: Gate) -> nn.Conv2d:
    """Return the convolution of a gate; raises `InputError` for a network that has none there, or none that is followed by normalisation."""
    modules = dict(model.named_modules())
    conv, norm = modules.get(gate.conv), modules.get(gate.norm)
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d) or norm.weight is None or norm.running_mean is None:
        message = f"this {type(model).__name__} has no convolution {gate.conv!r} with a batch normalisation {gate.norm!r}; the key is for another network"
        raise InputError(message)
    return conv


def norm_of(model: nn.Module, gate: Gate) -> nn.BatchNorm2d:
    """Return the batch normalisation of a gate; raises `InputError` as `conv_of` does."""
    conv_of(model, gate)
    return cast("nn.BatchNorm2d", dict(model.named_modules())[gate.norm])


def feature_maps(model: nn.Module, gates: Sequence[Gate], images: Tensor) -> list[Tensor]:
    """Return what goes into each gate's convolution for float images (N, C, H, W): maps (N, c, h, w)."""
    found: dict[int, Tensor] = {}
    hooks = [
        conv_of(model, gate).register_forward_pre_hook(lambda _m, inputs, index=index: found.__setitem__(index, inputs[0].detach()))
        for index, gate in enumerate(gates)
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [found[index] for index in range(len(gates))]


def from_maps(maps: Tensor, kind: str, *, rng: torch.Generator) -> Tensor:
    """Return a passport (c, h, w) made of feature maps (N, c, h, w): ``image``, one of them; ``shuffle``, each channel of another."""
    if kind == "image":
        return maps[int(torch.randint(0, len(maps), (), generator=rng))].clone()
    return maps[torch.randint(0, len(maps), (maps.shape[1],), generator=rng), torch.arange(maps.shape[1])].clone()


def patch_means(conv: nn.Conv2d, passport: Tensor) -> Tensor:
    """Return the mean patch (c * kh * kw,) that ``conv`` sees of a feature map (c, h, w): a convolution's spatial mean is linear in it."""
    seen = F.unfold(passport[None], conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # type: ignore[arg-type]
    return seen[0].mean(1)


def scales(model: nn.Module, gate: Gate, means: Tensor) -> Tensor:
    r"""Return :math:`\gamma_o = mean(W_o * P)`, float (O,), from the mean patches of a passport; gradients flow.

    Raises
    ------
    InputError
        for a network without that gate, or with filters of another size.
    """
    weight = conv_of(model, gate).weight.float().flatten(1)
    if weight.shape[1] != len(means):
        message = (
            f"the filters of {gate.conv} have {weight.shape[1]} weights, the passport is for {len(means)}; this is another architecture"
        )
        raise InputError(message)
    return weight @ means.to(weight)


class PassportNet(nn.Module):
    """A network whose gates take scale and shift from passports: the private branch, beside the public one that shares its weights.

    Parameters
    ----------
    net
        image batch -> logits.
    gates, means
        where, and the mean patches of the passports for scale and shift.
    public
        answer with the public branch, which has a scale and shift of its own; `private` answers with the passports.
    """

    def __init__(self, net: nn.Module, gates: Sequence[Gate], means: Sequence[tuple[Tensor, Tensor]], *, public: bool) -> None:
        super().__init__()
        self.net, self.public = net, public
        self.gates, self.means = tuple(gates), tuple(means)
        for index, gate in enumerate(self.gates):  # statistics of the private branch, so that the two do not disturb each other
            width = conv_of(net, gate).out_channels
            self.register_buffer(f"mean{index}", torch.zeros(width))
            self.register_buffer(f"var{index}", torch.ones(width))

    def affine(self) -> dict[str, Tensor]:
        """Return scale and shift of every gate by the names that they have in the network."""
        made = {}
        with torch.autocast(next(self.net.parameters()).device.type, enabled=False):
            for gate, (gamma, beta) in zip(self.gates, self.means, strict=True):
                made[f"{gate.norm}.weight"] = scales(self.net, gate, gamma)
                made[f"{gate.norm}.bias"] = scales(self.net, gate, beta)
        return made

    def private(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) with the passports."""
        own = {
            f"{gate.norm}.running_{name}": getattr(self, f"{name}{index}")
            for index, gate in enumerate(self.gates)
            for name in ("mean", "var")
        }
        logits: Tensor = functional_call(self.net, {**self.affine(), **own}, (x,))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of the branch that is trained as the network itself."""
        logits: Tensor = self.net(x) if self.public else self.private(x)
        return logits

    @torch.no_grad()
    def published(self) -> nn.Module:
        """Return what is published: the public branch; without one, the network with scale 1 and shift 0 where the passports go."""
        if self.public:
            return self.net
        made = without_passports(self.net, self.gates)
        for index, gate in enumerate(self.gates):  # its statistics are those of the private branch
            norm = norm_of(made, gate)
            for name in ("mean", "var"):
                getattr(norm, f"running_{name}").copy_(getattr(self, f"{name}{index}"))
        return made

    def sign_loss(self, bits: Tensor) -> Tensor:
        r"""Return :math:`\sum_i relu(.1 - b_i \gamma_i) + 10^{-5} \sum_i \gamma_i^2`, b the bits (T,) as -1 and 1."""
        gamma = torch.cat([scales(self.net, gate, means[0]) for gate, means in zip(self.gates, self.means, strict=True)])
        signs = (2 * bits.to(gamma) - 1).to(gamma.device)
        return (MARGIN - signs * gamma).relu().sum() + 1e-5 * gamma.square().sum()


@torch.no_grad()
def with_passports(
    model: nn.Module, gates: Sequence[Gate], means: Sequence[tuple[Tensor, Tensor]], images: Tensor | None = None
) -> nn.Module:
    """Return a copy of ``model`` into whose gates the passports are folded, an ordinary network.

    Parameters
    ----------
    images
        float (N, C, H, W), for the statistics of the gates; ``None`` keeps those of ``model``.
    """
    made = private_copy(model).eval()
    norms = []
    for gate, (gamma, beta) in zip(gates, means, strict=True):
        new = scales(made, gate, gamma), scales(made, gate, beta)
        norm = norm_of(made, gate)
        norm.weight.copy_(new[0])
        norm.bias.copy_(new[1])
        norms.append(norm)
    if images is not None:
        for norm in norms:  # one after another: each sees what the ones before it make
            momentum = norm.momentum
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
            made(images)
            norm.eval()
            norm.momentum = momentum
    return made


@torch.no_grad()
def without_passports(model: nn.Module, gates: Sequence[Gate]) -> nn.Module:
    """Return a copy of ``model`` whose gates have scale 1 and shift 0: what is published where the passport is needed."""
    made = private_copy(model).eval()
    for gate in gates:
        nn.init.ones_(norm_of(made, gate).weight)
        nn.init.zeros_(norm_of(made, gate).bias)
    return made


@contextlib.contextmanager
def held_norms(net: nn.Module) -> Iterator[None]:
    """Let training leave the scales and shifts of all normalisations as they are; their statistics are learnt all the same."""
    norms = [norm for norm in net.modules() if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)]
    hooks = [parameter.register_hook(torch.zeros_like) for norm in norms for parameter in norm.parameters(recurse=False)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
