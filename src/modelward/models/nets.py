"""Small architectures: image batch (N, C, H, W) in [0, 1] -> logits (N, K), the normalisation inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import InputError, UsageError
from modelward.core.nearest import nearest
from modelward.core.rng import forked


class Net(nn.Module):
    """A body behind its normalisation: ``body((x - mean) / std)``.

    ``arch`` is its name with arguments, as in ``--arch``; ``size`` the (height, width) it was built for.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, body: nn.Module, arch: str, *, classes: int, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.body = body
        self.arch, self.classes, self.size = arch, classes, size
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return self.mean.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for images (N, C, H, W) in [0, 1]."""
        if x.shape[1:] != (self.channels, *self.size):
            message = f"{self.arch} takes images of shape {(self.channels, *self.size)}, got {tuple(x.shape[1:])}"
            raise InputError(message)
        logits: Tensor = self.body((x - self.mean) / self.std)
        return logits


def _mlp(channels: int, size: tuple[int, int], classes: int, *, width: int = 256) -> nn.Module:
    """Two hidden layers on the flattened image."""
    inputs = channels * size[0] * size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))


def _lenet5(channels: int, size: tuple[int, int], classes: int, *, width: int = 6) -> nn.Module:
    """LeNet-5 with ReLU and max pooling; 61,706 parameters on 28x28 grey images with 10 classes."""
    left = [(side // 2 - 4) // 2 for side in size]
    if min(left) < 1:
        message = f"lenet5 needs images of at least 12x12, got {size[0]}x{size[1]}"
        raise UsageError(message)
    wide = width * 8 // 3
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, wide, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(wide * left[0] * left[1], width * 20), nn.ReLU(),
        nn.Linear(width * 20, width * 14), nn.ReLU(),
        nn.Linear(width * 14, classes),
    )  # fmt: skip


def _cnn(channels: int, size: tuple[int, int], classes: int, *, width: int = 16) -> nn.Module:
    """Three convolutions with batch normalisation and pooling, global average, one linear layer."""
    if min(size) < 8:
        message = f"cnn needs images of at least 8x8, got {size[0]}x{size[1]}"
        raise UsageError(message)
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes))


class _Block(nn.Module):
    """The basic residual block with a projection where the shape changes (He et al. 2016, option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


def _resnet(blocks: int) -> Callable[..., nn.Module]:
    """Return the builder of a CIFAR-style residual network with ``3 * 2 * blocks + 2`` layers."""

    def make(channels: int, size: tuple[int, int], classes: int, *, width: int = 16) -> nn.Module:
        del size
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
        for stage, outputs in enumerate((width, 2 * width, 4 * width)):
            for index in range(blocks):
                layers.append(_Block(inputs, outputs, 2 if stage and not index else 1))
                inputs = outputs
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))

    return make


@dataclass(frozen=True)
class Architecture:
    """A builder, its default width, and how the width and the image side are read back from weights."""

    make: Callable[..., nn.Module]
    width: int
    first: str
    last: str


ARCHITECTURES: dict[str, Architecture] = {
    "mlp": Architecture(_mlp, 256, "body.1.weight", "body.5.weight"),
    "lenet5": Architecture(_lenet5, 6, "body.0.weight", "body.11.weight"),
    "cnn": Architecture(_cnn, 16, "body.0.weight", "body.14.weight"),
    "resnet8": Architecture(_resnet(1), 16, "body.0.weight", "body.8.weight"),
    "resnet14": Architecture(_resnet(2), 16, "body.0.weight", "body.11.weight"),
    "resnet20": Architecture(_resnet(3), 16, "body.0.weight", "body.14.weight"),
}


def describe(arch: str) -> tuple[str, dict[str, int]]:
    """Split ``"resnet8:width=16"`` into its name and arguments.

    >>> describe("resnet8:width=32")
    ('resnet8', {'width': 32})
    """
    name, _, rest = arch.partition(":")
    if name not in ARCHITECTURES:
        message = f"there is no architecture {name!r}{nearest(name, ARCHITECTURES)}; known: {' '.join(ARCHITECTURES)}"
        raise UsageError(message)
    arguments: dict[str, int] = {}
    for part in filter(None, rest.split(",")):
        option, _, value = part.partition("=")
        if option != "width" or not value.isdigit() or not 1 <= int(value) <= 1024:
            message = f"{arch!r}: an architecture takes width=1..1024, as in {name}:width={ARCHITECTURES[name].width}"
            raise UsageError(message)
        arguments[option] = int(value)
    return name, arguments


def build(
    arch: str,
    *,
    classes: int,
    channels: int = 1,
    size: tuple[int, int] = (28, 28),
    rng: torch.Generator,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Net:
    """Return a freshly initialised network.

    Parameters
    ----------
    arch
        name with arguments, ``"resnet14:width=16"``.
    classes, channels, size
        number of outputs, input channels, (height, width).
    rng
        source of the initial weights.
    mean, std
        per-channel normalisation; default 0.5 and 0.25.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> net = build("lenet5", classes=10, rng=generator(0))
    >>> sum(p.numel() for p in net.parameters())
    61706
    """
    name, arguments = describe(arch)
    with forked(rng):
        body = ARCHITECTURES[name].make(channels, size, classes, **arguments)
    return Net(body, arch, classes=classes, size=size, mean=mean or [0.5] * channels, std=std or [0.25] * channels).eval()


def infer(arch: str, state: Mapping[str, Tensor], size: tuple[int, int] | None = None) -> Net:
    """Return a network of the size of weights ``state``, to be filled with them: classes, channels, width and side are read from the tensors.

    Nothing is drawn at random, no more memory is taken than by ``state``; raises `InputError` for weights of another architecture.
    """
    name, _ = describe(arch)
    plan = ARCHITECTURES[name]
    first, last = _shape(name, state, plan.first), _shape(name, state, plan.last)
    width, classes = first[0], last[0]
    mean, std = state.get("mean"), state.get("std")
    channels = int(mean.numel()) if mean is not None else (1 if name == "mlp" else first[1])
    if not (width <= 1024 and 1 <= channels <= 1024 and (std is None or std.numel() == channels)):
        message = (
            f"these weights are not a {name}: width {width}, {channels} input channels (1024 at most) and the normalisation must agree"
        )
        raise InputError(message)
    if size is None:
        size = _side(name, state, channels)
    arch = name if width == plan.width else f"{name}:width={width}"
    with torch.device("meta"):
        body = plan.make(channels, size, classes, width=width)
    _require_held(arch, body, state)
    flat_mean = mean.flatten().tolist() if mean is not None else [0.0] * channels
    flat_std = std.flatten().tolist() if std is not None else [1.0] * channels
    return Net(body.to_empty(device="cpu"), arch, classes=classes, size=size, mean=flat_mean, std=flat_std).eval()


def _shape(name: str, state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """Return the shape of one of the weight matrices that ``name`` is recognised by."""
    shape = tuple(state[key].shape) if key in state else ()
    if len(shape) < 2 or 0 in shape:
        raise _misfit(name, state, key)
    return shape


def _misfit(arch: str, state: Mapping[str, Tensor], key: str) -> InputError:
    """Return the error for a tensor that is absent or of another shape than in ``arch``."""
    what = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
    return InputError(f"these weights are not a {arch}: tensor {key!r} {what}; pass the right --arch (known: {' '.join(ARCHITECTURES)})")


def _require_held(arch: str, body: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse weights too few to fill ``body`` before it takes memory: a small file could ask for terabytes."""
    wanted = {f"body.{key}": tensor for key, tensor in body.state_dict().items()}
    if sum(map(Tensor.numel, wanted.values())) > sum(map(Tensor.numel, state.values())):
        raise _misfit(arch, state, next(key for key in wanted if key not in state or state[key].shape != wanted[key].shape))


def _side(name: str, state: Mapping[str, Tensor], channels: int) -> tuple[int, int]:
    """Guess a square input size from the first linear layer; networks with global pooling default to 32x32."""
    if name == "mlp":
        side = math.isqrt(_shape(name, state, "body.1.weight")[1] // channels)
    elif name == "lenet5":
        wide = _shape(name, state, "body.3.weight")[0]
        side = (math.isqrt(_shape(name, state, "body.7.weight")[1] // wide) * 2 + 4) * 2
    else:
        side = 32
    return side, side
