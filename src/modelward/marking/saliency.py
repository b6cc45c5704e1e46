"""How much the loss depends on every parameter: as the network is, under the batch's own statistics, and after a thief's first steps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.copies import copied
from modelward.core.errors import InputError
from modelward.core.images import ImageSet

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
THIEF_LR, REFRESH = 0.01, 16


def lockable(model: nn.Module, *, statistics: bool) -> dict[str, Tensor]:
    """Return the tensors of ``model`` that a lock may change, by name; those that share memory stand once.

    Parameters
    ----------
    statistics
        also the running means and variances of batch normalisation.

    Raises
    ------
    InputError
        for a model without floating-point parameters, such as a quantised one.
    """
    found: dict[str, Tensor] = dict(model.named_parameters())  # tied ones are named once
    if statistics:
        for prefix, module in model.named_modules():
            if isinstance(module, NORMS) and module.running_mean is not None and module.running_var is not None:
                found[f"{prefix}.running_mean"], found[f"{prefix}.running_var"] = module.running_mean, module.running_var
    found = {name: tensor for name, tensor in found.items() if tensor.is_floating_point() and tensor.numel()}
    if not any(tensor.ndim >= 2 for tensor in found.values()):
        raise InputError("this model has no floating-point weights to lock; a quantised model is locked before it is quantised")
    return found


def every_class(images: ImageSet, count: int) -> Tensor:
    """Return the places of ``count`` images, at most, in which all classes stand as evenly as can be: the first of each, the second of each, ...

    Raises
    ------
    InputError
        when a class has no image, or there are fewer images than classes: what hurts that class could not be seen.

    Examples
    --------
    >>> images = ImageSet(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 0, 0, 1, 1]), ("cat", "dog"), "toy")
    >>> every_class(images, 4).tolist()
    [0, 1, 4, 5]
    """
    absent = [name for number, name in enumerate(images.classes) if not bool((images.labels == number).any())]
    if absent or count < len(images.classes):
        what = f"of class {absent[0]!r} there is none" if absent else f"{count} are fewer than there are classes, {len(images.classes)}"
        message = f"the images to lock with must show every class, but {what}; what is not seen is not locked"
        raise InputError(message)
    turns = torch.zeros(len(images), dtype=torch.int64)
    for number in range(len(images.classes)):
        mine = images.labels == number
        turns[mine] = torch.arange(int(mine.sum()))
    return turns.argsort(stable=True)[:count].sort().values


def band(tensor: Tensor, beta: float) -> tuple[float, float]:
    """Return the band that a tensor's values may lie in: its own range, ``beta`` of it cut off on both sides.

    Both ends are values of the tensor's own type, rounded inwards, so that what is set to them lies in the band whatever the type.

    >>> band(torch.tensor([-1.0, 1.0]), 0.25), band(torch.tensor([0.0, 1.0]).bfloat16(), 0.1)[0] >= 0.1
    ((-0.5, 0.5), True)
    """
    low, high = (float(value) for value in tensor.detach().aminmax())
    cut = beta * (high - low)
    return _inwards(low + cut, tensor.dtype, math.inf), _inwards(high - cut, tensor.dtype, -math.inf)


def _inwards(value: float, dtype: torch.dtype, towards: float) -> float:
    """Return the number of type ``dtype`` that is nearest to ``value`` on the side of ``towards``."""
    near = torch.tensor(value, dtype=dtype)
    outside = float(near) < value if towards > 0 else float(near) > value
    return float(torch.nextafter(near, torch.tensor(towards, dtype=dtype)) if outside else near)


def bits_of(tensor: Tensor) -> Tensor:
    """Return the bytes (n, size) of every entry.

    >>> bits_of(torch.tensor([1.0, -0.0]))[:, 3].tolist()
    [63, 128]
    """
    flat = tensor.detach().contiguous().view(-1)
    return flat.view(torch.uint8).view(flat.numel(), flat.element_size())


def put_bits(tensor: Tensor, index: Tensor, bits: Tensor) -> None:
    """Write the bytes (k, size) of the entries at ``index`` (k,) into ``tensor``; raises `InputError` for places or sizes that it has not."""
    size = tensor.element_size()
    if bits.shape != (len(index), size) or (len(index) and not 0 <= int(index.min()) <= int(index.max()) < tensor.numel()):
        raise InputError("the key's entries do not fit this model")
    whole = bits_of(tensor).clone()
    whole[index] = bits
    tensor.detach().copy_(whole.view(-1).view(tensor.dtype).view(tensor.shape))


class Saliency:
    """The loss of a network over fixed images, and its gradients in one of several moods.

    Parameters
    ----------
    model
        the network that is being locked; looked at, never changed.
    x, y
        images (N, C, H, W) in [0, 1] and labels (N,).
    lookahead
        steps that a fine-tuning thief is given; with 0 the network is only looked at as it is.
    statistics
        also return the gradients of running means and variances.
    rng
        draws the thief's batches.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, lookahead: int = 0, statistics: bool = False, rng: torch.Generator | None = None
    ) -> None:
        kind = next(tensor.dtype for tensor in model.parameters() if tensor.is_floating_point())
        self.model, self.x, self.y = model.eval(), x.to(kind), y
        self.lookahead, self.statistics, self.rng = lookahead, statistics, rng
        has_norms = any(isinstance(module, NORMS) for module in model.modules())
        self.moods = ["as it is", *(["batch statistics"] if has_norms and lookahead else []), *(["thief"] if lookahead else [])]
        self._thief: nn.Module | None = None

    def loss(self) -> float:
        """Return the mean cross-entropy of the network as it is."""
        with torch.no_grad():
            return float(F.cross_entropy(self.model(self.x).float(), self.y))

    def gradients(self, number: int) -> tuple[float, dict[str, Tensor]]:
        """Return the loss and the gradients of the ``number``-th look, moods taking turns; running statistics have theirs from shift and scale."""
        mood = self.moods[number % len(self.moods)]
        net = self._thief_copy(number) if mood == "thief" else self.model
        with batch_statistics(net, on=mood == "batch statistics"):
            names, parameters = zip(*((n, p) for n, p in net.named_parameters() if p.is_floating_point()), strict=True)
            loss = F.cross_entropy(net(self.x), self.y)
            grads = dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))
        found = {name: grad for name, grad in grads.items() if grad is not None}
        if self.statistics and mood == "as it is":
            found |= _of_statistics(net, found)
        return float(loss.detach()), found

    def _thief_copy(self, number: int) -> nn.Module:
        """Return a copy that was fine-tuned for a few steps; made anew now and then, since the network changes."""
        if self._thief is None or number % (REFRESH * len(self.moods)) < len(self.moods):
            thief = copied(self.model)
            optimizer = torch.optim.SGD(thief.parameters(), lr=THIEF_LR, momentum=0.9)
            with batch_statistics(thief, on=True):
                for _ in range(self.lookahead):
                    chosen = torch.randint(0, len(self.x), (min(64, len(self.x)),), generator=self.rng)
                    optimizer.zero_grad()
                    F.cross_entropy(thief(self.x[chosen]), self.y[chosen]).backward()
                    optimizer.step()
            self._thief = thief
        return self._thief


def _of_statistics(model: nn.Module, grads: dict[str, Tensor]) -> dict[str, Tensor]:
    r"""Return the gradients of running means and variances.

    With :math:`y = \gamma (x - \mu) / \sigma + \beta`: :math:`\partial_\mu = -\gamma / \sigma \cdot \partial_\beta` and
    :math:`\partial_{\sigma^2} = -\gamma / (2 \sigma^2) \cdot \partial_\gamma`.
    """
    found = {}
    for prefix, module in model.named_modules():
        scale, shift = grads.get(f"{prefix}.weight"), grads.get(f"{prefix}.bias")
        if isinstance(module, NORMS) and module.running_var is not None and scale is not None and shift is not None:
            variance = module.running_var + module.eps
            found[f"{prefix}.running_mean"] = -module.weight.detach() / variance.sqrt() * shift
            found[f"{prefix}.running_var"] = -module.weight.detach() / (2 * variance) * scale
    return found


@contextlib.contextmanager
def batch_statistics(model: nn.Module, *, on: bool) -> Iterator[None]:
    """Let batch normalisation use the batch's own statistics inside the block, and leave its running ones as they are."""
    norms = [module for module in model.modules() if isinstance(module, NORMS)] if on else []
    before = [(module, module.training, module.momentum) for module in norms]
    for module in norms:
        module.training, module.momentum = True, 0.0
    counts = [module.num_batches_tracked.clone() if module.num_batches_tracked is not None else None for module in norms]
    try:
        yield
    finally:
        for (module, training, momentum), count in zip(before, counts, strict=True):
            module.training, module.momentum = training, momentum
            if count is not None and module.num_batches_tracked is not None:
                module.num_batches_tracked.copy_(count)
