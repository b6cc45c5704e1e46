"""More neurons, the same function: pairs of twins whose outputs cancel, so that positive weights no longer say what the network does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import WHITE_BOX
from modelward.attacks.theft.reparameterise import CHECKED
from modelward.core.card import Card
from modelward.core.errors import InputError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import predict
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.channels import Group, groups
from modelward.models.net import Net
from modelward.models.nets import ARCHITECTURES, build, describe
from modelward.models.renaming import by_channel


@dataclass(frozen=True, kw_only=True)
class DummyChannels(TheftMethod):
    """Widen every hidden layer; the new neurons come in pairs that answer alike, and every reader adds one and subtracts the other.

    The answers stay. What shares relevance by positive weights gives the pairs a part of it, and that part shows nothing of the function.

    Parameters
    ----------
    widen
        the new width in units of the old one.
    strength
        size of the weights that read the pairs, in units of the mean size of the reader's own.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> model, images = embedded_model().model, load_data("fashion-mini").test.take(slice(64))
    >>> theft = DummyChannels().steal(AttackerView.of_model(model, images, labels="none"), rng=generator(0))
    >>> theft.arch, theft.log["gap"] < 1e-3
    ('lenet5:width=9', True)
    """

    card: ClassVar[Card] = Card(
        name="dummy-channels",
        title="pairs of neurons that cancel, same function",
        paper="adaptive attack on InFIP (arXiv 2210.07481)",
        taxonomy=WHITE_BOX,
        limits=("for architectures of this package that have a width",),
        cost="milliseconds; the copy is larger and slower",
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    widen: float = 1.5
    strength: float = 4.0

    def __post_init__(self) -> None:
        self._require(widen=(1 < self.widen <= 4, "in (1, 4]"), strength=(0 < self.strength <= 100, "in (0, 100]"))

    @torch.no_grad()
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        old = view.weights
        new = self._wider(old, rng=rng)
        before = {name: tensor.shape for name, tensor in old.state_dict().items()}
        names = {module: name for name, module in new.named_modules()}
        found = [(group, int(before[f"{names[group.writers[0]]}.weight"][0])) for group in groups(new)]
        for change in (self._twins, self._cancel):  # all that writes, then all that reads: what reads old twins is no new twin's business
            for group, kept in found:
                change(group, kept, (group.size - kept) // 2, rng=rng)
        pixels = view.images.pixels[:CHECKED]
        wanted, answers = predict(old, pixels), predict(new, pixels)
        gap = float((answers - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
        if not gap <= 1e-3:
            message = f"{self.card.name} would change the answers of this network (relative difference {gap:.2g})"
            raise InputError(message)
        trace.steps = 1
        return Theft(new, new.arch, log={"epochs": 0, "gap": gap})

    def _wider(self, old: nn.Module, *, rng: torch.Generator) -> Net:
        """Return a wider network with the old weights in the first channels, and zeros elsewhere."""
        if (
            not isinstance(old, Net)
            or describe(old.arch)[0] not in ARCHITECTURES
            or "width" not in ARCHITECTURES[describe(old.arch)[0]].arguments
        ):
            message = f"{self.card.name} widens the architectures of this package that have a width; this network has none"
            raise InputError(message)
        name, given = describe(old.arch)
        arguments = {**ARCHITECTURES[name].defaults, **given}
        arguments["width"] = max(arguments["width"] + 1, round(arguments["width"] * self.widen))
        arch = f"{name}:{','.join(f'{key}={value}' for key, value in arguments.items())}"
        mean, std = old.mean.flatten().tolist(), old.std.flatten().tolist()
        order = None if old.order is None else old.order.tolist()
        new = build(arch, classes=old.classes, channels=old.channels, size=old.size, mean=mean, std=std, rng=rng)
        if order is not None:
            new.register_buffer("order", torch.tensor(order))
        theirs = old.state_dict()
        for key, tensor in new.state_dict().items():
            if not key.endswith(("running_var", "num_batches_tracked")) and tensor.ndim:
                tensor.zero_()
            tensor[tuple(slice(0, side) for side in theirs[key].shape)].copy_(theirs[key])
        return new.eval()

    def _twins(self, group: Group, kept: int, pairs: int, *, rng: torch.Generator) -> None:
        """Give the neurons from ``kept`` on, two by two, the same positive weights."""
        layer = next(one for one in group.writers if isinstance(one, nn.Linear | nn.Conv2d))
        fill = torch.rand((pairs, *layer.weight.shape[1:]), generator=rng) * 2 * layer.weight[:kept].abs().mean()
        layer.weight[kept : kept + 2 * pairs] = torch.cat([fill, fill])
        for norm in (one for one in group.writers if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)):
            norm.weight[kept:] = 1

    def _cancel(self, group: Group, kept: int, pairs: int, *, rng: torch.Generator) -> None:
        """Let every reader add one twin and subtract the other."""
        for reader in group.readers:
            columns = by_channel(reader.weight, group.size)
            shape = (columns.shape[0], pairs, *columns.shape[2:])
            extra: Tensor = torch.rand(shape, generator=rng) * 2 * self.strength * columns[:, :kept].abs().mean()
            columns[:, kept : kept + 2 * pairs] = torch.cat([extra, -extra], 1)
