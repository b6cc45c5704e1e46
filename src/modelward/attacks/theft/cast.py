"""Changes of the model format: half precision, and batch normalisation folded into the layer before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from modelward.attacks.theft.finetune import WHITE_BOX
from modelward.core.card import Card
from modelward.core.errors import InputError, UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.channels import folds

TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class CastWeights(TheftMethod):
    """Store all weights and statistics as 16-bit floats; they are read back as 32-bit ones, so that every reader can run the copy.

    Parameters
    ----------
    dtype
        ``"float16"`` (10 bits of mantissa) or ``"bfloat16"`` (7).

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(8)), labels="none")
    >>> weight = CastWeights(dtype="float16").steal(view, rng=generator(0)).model.body[0].weight
    >>> weight.dtype, bool((weight == weight.half().float()).all())
    (torch.float32, True)
    """

    card: ClassVar[Card] = Card(
        name="cast", title="weights as 16-bit floats",
        paper="Micikevicius et al.: Mixed precision training, ICLR 2018, arXiv 1710.03740",
        taxonomy=WHITE_BOX, cost="milliseconds",
    )  # fmt: skip
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in TYPES:
            message = f"dtype is {' or '.join(TYPES)}, not {self.dtype!r}"
            raise UsageError(message)

    @torch.no_grad()
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        model = plain_copy(view.weights)
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(TYPES[self.dtype]))
        trace.steps = 1
        return Theft(model, view.arch, log={"epochs": 0, "dtype": self.dtype})


@dataclass(frozen=True, kw_only=True)
class FoldNorm(TheftMethod):
    """Fold every batch normalisation into the layer before it, as deployment tools do; the answers stay up to rounding.

    W becomes W * g / sqrt(var + eps). The normalisation keeps its place, so that the copy has the architecture it had, and only adds what is left:
    b - mean * g / sqrt(var + eps).

    Examples
    --------
    >>> from modelward import AttackerView, build, generator, load_data
    >>> net = build("cnn:width=2", classes=10, rng=generator(0))
    >>> theft = FoldNorm().steal(AttackerView.of_model(net, load_data("fashion-mini").test.take(slice(8)), labels="none"), rng=generator(0))
    >>> theft.log["folded"], theft.model.body[1].running_mean.tolist()
    (3, [0.0, 0.0])
    """

    card: ClassVar[Card] = Card(
        name="fold-bn", title="batch normalisation folded into the weights",
        paper="Jacob et al.: Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR 2018, arXiv 1712.05877",
        taxonomy=WHITE_BOX, cost="milliseconds",
    )  # fmt: skip
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    @torch.no_grad()
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        model = plain_copy(view.weights)
        pairs = folds(model)
        if not pairs:
            raise InputError("no layer of this network is followed by batch normalisation alone; there is nothing to fold")
        for layer, norm in pairs:
            mean, variance = norm.running_mean, norm.running_var
            if mean is None or variance is None:
                continue
            scale = norm.weight / (variance + norm.eps).sqrt()
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
            before = layer.bias if layer.bias is not None else torch.zeros_like(mean)
            norm.bias.add_((before - mean) * scale)
            if layer.bias is not None:
                layer.bias.zero_()
            mean.zero_()
            variance.fill_(1)
            norm.weight.fill_((1 + norm.eps) ** 0.5)
        trace.steps = 1
        return Theft(model, view.arch, log={"epochs": 0, "folded": len(pairs)})
