"""Marks in the weights of one layer: its filter mean, secret projections of it, and the penalty that teaches bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import InputError, UsageError
from modelward.keys.derive import stream
from modelward.models.parts import WeightLayer, head, weight_layers

KINDS = ("random", "direct", "diff", "orthonormal")


def bits_of(text: str) -> list[int]:
    """Return the bits of a text's UTF-8 bytes, highest first.

    Examples
    --------
    >>> bits_of("A")
    [0, 1, 0, 0, 0, 0, 0, 1]
    """
    return [byte >> place & 1 for byte in text.encode() for place in range(7, -1, -1)]


def text_of(bits: Sequence[int]) -> str:
    """Return the text whose bits these are; incomplete bytes are left out, and what is no UTF-8 is shown as a question mark.

    Examples
    --------
    >>> text_of([*bits_of("owner"), 1, 0])
    'owner'
    """
    whole = [bits[start : start + 8] for start in range(0, len(bits) - 7, 8)]
    return bytes(int("".join(map(str, map(int, byte))), 2) for byte in whole).decode(errors="replace")


def message_bits(text: str, count: int, secret: bytes) -> Tensor:
    """Return ``count`` bits, uint8 (count,): those of ``text``, then bits drawn from ``secret``.

    Raises
    ------
    UsageError
        for a text that is too long.

    Examples
    --------
    >>> text_of(message_bits("me", 20, b"0" * 32).tolist())
    'me'
    """
    said = bits_of(text)
    if len(said) > count:
        message = f"the text has {len(said)} bits, {count} are embedded; shorten it or embed more"
        raise UsageError(message)
    drawn = torch.randint(0, 2, (count - len(said),), generator=stream(secret, "bits"))
    return torch.cat([torch.tensor(said, dtype=torch.uint8), drawn.to(torch.uint8)])


def find_layer(model: nn.Module, name: str = "auto", *, bits: int) -> tuple[str, WeightLayer]:
    """Return the layer that carries ``bits`` bits, with its name.

    Parameters
    ----------
    name
        of a linear or convolutional layer; ``"auto"``: the hidden convolution with the most weights a filter, else such a linear layer.
    bits
        at most half of the weights of a filter: with more of them there is a fitting set of weights near any network.

    Raises
    ------
    InputError
        when there is no such layer, when its filters are too short, or when ``"auto"`` cannot tell the head from the hidden layers.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.models.nets import build
    >>> find_layer(build("lenet5", classes=10, rng=generator(0)), bits=64)
    ('body.3', Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1)))
    """
    last = _head(model) if name == "auto" else None
    layers = {found: layer for found, layer in weight_layers(model) if (layer is not last if name == "auto" else found == name)}
    if not layers:
        what = "no hidden linear or convolutional layer" if name == "auto" else f"no linear or convolutional layer {name!r}"
        message = f"this {type(model).__name__} has {what} to carry a mark"
        raise InputError(message)
    fit = [pair for pair in layers.items() if _width(pair[1]) >= 2 * bits]
    if not fit:
        longest = max(_width(layer) for layer in layers.values())
        message = f"{bits} bits need filters of at least {2 * bits} weights, here they have {longest}; embed {longest // 2} bits or take another layer"
        raise InputError(message)
    chosen = max(fit, key=lambda pair: (isinstance(pair[1], nn.Conv2d), _width(pair[1])))
    if sum(parameter is chosen[1].weight for module in model.modules() for parameter in module.parameters(recurse=False)) > 1:
        message = f"the weights of {chosen[0]} serve in two places; a mark needs a layer of its own, name one with layer="
        raise InputError(message)
    return chosen


def _head(model: nn.Module) -> WeightLayer:
    """Return the layer of the logits, which carries no mark; raises `InputError` for a network in which it cannot be told."""
    try:
        return head(model)[1]
    except InputError as error:
        kinds = sorted({type(module).__name__ for module in model.modules() if next(module.children(), None) is None})
        message = (
            f"a mark in weights needs a hidden linear or convolutional layer below a head that is linear or a 1x1 convolution; this "
            f"{type(model).__name__} has no such head, its layers are {', '.join(kinds)}"
        )
        hidden = [name for name, _ in weight_layers(model)][:-1]
        message += f"; name one of its hidden layers yourself, as in layer={hidden[-1]}" if hidden else ""
        raise InputError(message) from error


def _width(layer: WeightLayer) -> int:
    """Return the number of weights of one filter."""
    return layer.weight[0].numel()


def filter_mean(model: nn.Module, name: str, width: int | None = None) -> Tensor:
    r"""Return :math:`w = \frac{1}{O} \sum_o W_o`, float (n,), the mean over the output filters of layer ``name``; gradients flow.

    Raises
    ------
    InputError
        when the network has no such layer, or when its filters have not ``width`` weights.
    """
    layer = dict(weight_layers(model)).get(name)
    if layer is None or not isinstance(layer.weight, Tensor) or not layer.weight.is_floating_point():
        message = (
            f"this {type(model).__name__} has no linear or convolutional layer {name!r} of plain weights; the mark cannot be read from it"
        )
        raise InputError(message)
    if width is not None and _width(layer) != width:
        message = f"the filters of {name} have {_width(layer)} weights, the key is for {width}; this is another architecture"
        raise InputError(message)
    return layer.weight.float().mean(0).flatten()


def projection(secret: bytes, bits: int, width: int, kind: str = "random", *, bound: str = "") -> Tensor:
    """Return the secret matrix X, float (bits, width), that a mark is read with.

    Parameters
    ----------
    kind
        ``random``: N(0, 1); ``direct``: one 1 a row; ``diff``: a 1 and a -1 a row; ``orthonormal``: random rows at right angles, of the length of
        random ones, which even out what an optimiser with step sizes of its own does to them.
    bound
        what the matrix is bound to besides the secret, such as the message: who wants another message gets another matrix.

    Examples
    --------
    >>> x = projection(b"0" * 32, 8, 30, "orthonormal")
    >>> bool((x @ x.T - 30 * torch.eye(8)).abs().max() < 1e-4), bool((x == projection(b"0" * 32, 8, 30, "orthonormal")).all())
    (True, True)
    """
    rng = stream(secret, "projection", kind, bound)
    if kind in {"direct", "diff"}:
        order = torch.randperm(width, generator=rng)
        made = torch.zeros(bits, width)
        rows = torch.arange(bits)
        made[rows, order[:bits]] = 1
        if kind == "diff":
            made[rows, order[bits : 2 * bits]] = -1
        return made
    drawn = torch.randn(bits, width, generator=rng)
    if kind != "orthonormal":
        return drawn
    square: Tensor = torch.linalg.qr(drawn.T.double())[0].T.float() * width**0.5
    return square


@dataclass(frozen=True, eq=False)
class BitPenalty:
    r"""A plug-in for any training: :math:`\lambda \sum_j BCE(\sigma((X w)_j), b_j)`, w the filter mean of one layer.

    Give it as the penalty of `modelward.training.Extras`, or add it to a loss of your own.

    Parameters
    ----------
    layer
        name of the layer.
    matrix
        X, float (T, n).
    bits
        b, uint8 (T,).
    strength
        lambda.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.models.nets import build
    >>> net = build("lenet5", classes=10, rng=generator(0))
    >>> mark = BitPenalty("body.3", projection(b"0" * 32, 64, 150), message_bits("mine", 64, b"0" * 32), 0.01)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    >>> for _ in range(300):
    ...     optimizer.zero_grad()
    ...     mark(net).backward()
    ...     optimizer.step()
    >>> text_of(mark.read(net).tolist())[:4]
    'mine'
    """

    layer: str
    matrix: Tensor
    bits: Tensor
    strength: float

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the penalty of ``model``, a scalar."""
        mean = filter_mean(model, self.layer, self.matrix.shape[1])
        answers = self.matrix.to(mean.device) @ mean
        wrong: Tensor = F.binary_cross_entropy_with_logits(answers, self.bits.to(answers), reduction="sum")
        return self.strength * wrong

    @torch.no_grad()
    def read(self, model: nn.Module) -> Tensor:
        """Return the bits that ``model`` carries, uint8 (T,)."""
        return (self.matrix @ filter_mean(model, self.layer, self.matrix.shape[1]).cpu() >= 0).to(torch.uint8)
