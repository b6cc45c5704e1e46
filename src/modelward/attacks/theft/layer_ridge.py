"""Cut a network at a layer and read its features by ridge regression on few labels: what the lock did behind the cut does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.attacks.theft.undoing import card
from modelward.core.card import Card
from modelward.core.errors import InputError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.assembly import Assembly
from modelward.models.net import Net
from modelward.models.parts import fresh_like, weight_layers

SIDE = 4  # maps are averaged down to so many places a side
PENALTIES = tuple(10.0**power for power in range(-4, 5))
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class LayerRidge(TheftMethod):
    """Take what the layer reads that stands ``cut`` places before the end, and map it to the classes by ridge regression.

    Features are averaged over maps down to 4 x 4 and standardised; the penalty is the one with the least error of every image when it is
    left out.

    Parameters
    ----------
    cut
        1 reads what the last layer reads, 2 what the layer before it reads, and so on; beyond the first layer, what the first one reads.
    images
        that many of the thief's labelled images, spread over his set; 0 takes all.
    untrained
        read an untrained network of the same architecture instead: no theft, but the control, since features of random weights go far too.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test
    >>> theft = LayerRidge(cut=2, images=100).steal(AttackerView.of_model(embedded_model().model, images), rng=generator(0))
    >>> theft.log["features"], theft.model(images.batch(slice(3))).shape
    (120, torch.Size([3, 10]))
    """

    card: ClassVar[Card] = card("layer-ridge", "read the features of a layer by ridge regression", "a forward pass of the thief's images")
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    cut: int = 1
    images: int = 100
    untrained: bool = False

    def __post_init__(self) -> None:
        self._require(cut=(self.cut >= 1, ">= 1"), images=(self.images >= 0, ">= 0"))

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the copy with an empty reader of its features."""
        net = parts[0]
        if not isinstance(net, Net):
            raise InputError("layer-ridge reads the layers of a network of a named architecture; this one is another")
        sample = torch.zeros(1, net.channels, *net.size, dtype=next(net.parameters()).dtype)
        size = self._features(net.eval(), sample).shape[1]
        return Assembly(self, parts, tools={"reader": torch.nn.utils.skip_init(nn.Linear, size, net.classes)})

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return what the reader makes of the features, (N, K)."""
        logits: Tensor = assembly.tools["reader"](self._features(assembly.parts[0], x).float())
        return logits

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        view.targets()  # labels are what it needs
        own = view.images.few(self.images) if self.images else view.images
        made = self.assemble([fresh_like(view.weights, rng=rng) if self.untrained else plain_copy(view.weights)])
        kind = next(made.parts[0].parameters()).dtype
        parts = [self._features(made.parts[0], own.batch(slice(s, s + BATCH)).to(kind)).double() for s in range(0, len(own), BATCH)]
        weight, bias, facts = ridge(torch.cat(parts), F.one_hot(own.labels, made.classes).double())
        reader = made.tools["reader"]
        for name, value in (("weight", weight), ("bias", bias)):
            getattr(reader, name).data = value.float()
        trace.steps = 1
        return Theft(made, view.arch, log={"epochs": 0, "features": weight.shape[1], "images": len(own), **facts})

    @torch.no_grad()
    def _features(self, net: nn.Module, x: Tensor) -> Tensor:
        """Return what the layer at the cut reads of images (N, C, H, W), (N, features)."""
        layers = [layer for _, layer in weight_layers(net)]
        if not layers:
            raise InputError("this network has no linear or convolutional layer to cut it at")
        seen: list[Tensor] = []
        hook = layers[-min(self.cut, len(layers))].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            net(x)
        finally:
            hook.remove()
        maps = seen[0]
        return (F.adaptive_avg_pool2d(maps, (min(SIDE, maps.shape[2]), min(SIDE, maps.shape[3]))) if maps.ndim == 4 else maps).flatten(1)


def ridge(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
    r"""Return weight (K, d), bias (K,) and facts of the ridge regression of targets (N, K) on features (N, d), standardised within.

    The penalty has the least mean squared error with each row left out, :math:`(y - \hat y) / (1 - h)`.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]]).double()
    >>> weight, bias, facts = ridge(x, 2 * x + 1)
    >>> round(float(weight), 2), round(float(bias), 2)
    (2.0, 1.0)
    """
    centre, spread = features.mean(0), features.std(0, correction=0)
    scale = torch.where(spread > 1e-12 * spread.max().clamp(min=1e-300), 1 / spread.clamp(min=1e-300), 0.0)
    x, middle = (features - centre) * scale, targets.mean(0)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    shares = u.T @ (targets - middle)
    left_out: dict[float, float] = {}
    for penalty in PENALTIES:
        kept = s**2 / (s**2 + penalty * len(x))
        leverage = (u**2 * kept).sum(1) + 1 / len(x)
        wrong = (targets - middle - (u * kept) @ shares) / (1 - leverage).clamp(min=1e-9)[:, None]
        left_out[penalty] = float((wrong**2).mean())
    least = min(left_out, key=lambda penalty: left_out[penalty])
    weight = ((vh.T * (s / (s**2 + least * len(x)))) @ shares).T * scale
    return weight, middle - weight @ centre, {"penalty": least, "left_out": left_out[least]}
