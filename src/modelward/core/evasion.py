"""The family of evasion attacks: those with a budget, and those that look for the smallest change."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from modelward.core.devices import following, lent, working_device
from modelward.core.errors import InputError, ModelwardError, UsageError
from modelward.core.guard import asked, require_batch, require_depth, require_labels
from modelward.core.method import Method
from modelward.core.result import Result, Trace


def _sizes(delta: Tensor, norm: str) -> Tensor:
    """Return the per-sample size (N,) of a difference in ``norm``."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(p=1 if norm == "l1" else 2, dim=1)


@dataclass(frozen=True, kw_only=True)
class EvasionMethod(Method, ABC):
    """Change images a little so that a model errs: ``perturb(model, x, y, *, rng) -> x_adv``.

    Parameters
    ----------
    norm
        ``"linf"``, ``"l2"`` or, where the method has it, ``"l1"``.
    eps
        the largest allowed size of the change, pixels in [0, 1].
    targeted
        ``y`` is the class to reach instead of the class to leave.
    """

    family: ClassVar[str] = "evasion"
    universal: ClassVar[bool] = False  # one change for all images: the images are not to be attacked in parts
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    masks: ClassVar[bool] = False
    """whether ``_perturb`` takes the keyword ``mask``, float (N, C, H, W) of zeros and ones, or ``None``"""

    norm: str = "linf"
    eps: float = 8 / 255
    targeted: bool = False

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            message = f"{self.card.name} works in {' or '.join(self.norms)}, not {self.norm!r}"
            raise UsageError(message)
        if not self.eps >= 0:
            message = f"eps must be >= 0 (pixels in [0, 1]; 8/255 is usual), got {self.eps}"
            raise UsageError(message)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, mask: Tensor | None = None) -> Tensor:
        """Return adversarial images (N, C, H, W) in [0, 1] within ``eps`` of ``x`` in ``norm``.

        Parameters
        ----------
        model
            image batch -> logits; never changed.
        x, y
            images (N, C, H, W) in [0, 1] and int64 labels (N,).
        rng
            source of all randomness.
        mask
            zeros and ones, broadcastable to ``x``: pixels with 0 never change.

        Raises
        ------
        InputError
            for images, labels or a mask that do not fit.
        """
        return self.run(model, x, y, rng=rng, mask=mask).value

    def run(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, mask: Tensor | None = None) -> Result[Tensor]:
        """Do as `perturb`, and also return flags, steps, queries and seconds."""
        with torch.inference_mode(mode=False), torch.no_grad():  # test loops of training frameworks run in inference mode
            return self._run(model, *(given.clone() if given.is_inference() else given for given in (x, y)), rng=rng, mask=mask)

    def _run(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, mask: Tensor | None) -> Result[Tensor]:
        kind = require_depth(model, x)
        require_batch(x)
        require_labels(y, len(x))
        region: dict[str, Any] = {} if mask is None else {"mask": self._region(mask, x)}
        started, trace = time.perf_counter(), Trace()
        x = x.detach()
        value = x.clone()
        if len(x):
            device = working_device(model)
            model, there = lent(model, device), {name: tensor.to(device, kind) for name, tensor in region.items()}
            with asked(model), following(device), torch.enable_grad():
                given = x.to(device, kind)
                found = self._perturb(model, given, y.to(device), rng=rng, trace=trace, **there).detach()
            value = torch.where((found == given).to(x.device), x, found.to(x.device, x.dtype)) if kind != x.dtype else found.to(x.device)
            self._check(x, value, **region)
        return Result(value, tuple(trace.flags), trace.steps, trace.queries, time.perf_counter() - started)

    def _region(self, mask: Tensor, x: Tensor) -> Tensor:
        """Return the mask in the shape and type of ``x``."""
        if not self.masks:
            message = f"{self.card.name} changes whole images; it takes no mask"
            raise UsageError(message)
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise InputError("a mask holds zeros and ones only: 1 where a pixel may change")
        try:
            return mask.to(x.dtype).expand_as(x)
        except RuntimeError as error:
            message = f"a mask of shape {tuple(mask.shape)} does not fit images of shape {tuple(x.shape)}"
            raise InputError(message) from error

    def _check(self, x: Tensor, value: Tensor, mask: Tensor | None = None) -> None:
        """Refuse a result whose measured budget exceeds the declared one."""
        low, high = value.aminmax()
        size = float(_sizes(value - x, self.norm).max())
        if not (low >= 0 and high <= 1 and size <= self.eps * (1 + 1e-5) + 1e-6):
            message = f"{self.card.name} left its budget: {self.norm} {size:.6f} > {self.eps:.6f} or pixels outside [0, 1]; this is a bug"
            raise ModelwardError(message)
        if mask is not None and not torch.equal(value[mask == 0], x[mask == 0]):
            message = f"{self.card.name} changed pixels outside its mask; this is a bug"
            raise ModelwardError(message)

    @abstractmethod
    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace) -> Tensor:
        """Return the changed images; ``model`` is frozen, ``x`` is not empty. Where ``masks`` says so, it takes the keyword ``mask`` too."""


@dataclass(frozen=True, kw_only=True)
class MinimumNormMethod(EvasionMethod, ABC):
    """Look for the smallest change that makes a model err.

    Images that were never turned, or only by a change larger than ``eps``, come back unchanged: they count as robust.

    Parameters
    ----------
    eps
        cap on the change, pixels in [0, 1]; ``inf`` (in plain settings ``null`` or ``"inf"``) is no cap.
    """

    masks: ClassVar[bool] = True

    eps: float = math.inf

    @classmethod
    def configured(cls, settings: dict[str, Any]) -> Self:
        """Build the method from plain settings, in which an ``eps`` of ``null`` or ``"inf"`` is no cap: JSON has no infinity."""
        if settings.get("eps", 0.0) in (None, "inf"):
            settings = {**settings, "eps": math.inf}
        return super().configured(settings)

    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None = None) -> Tensor:
        found = self._search(model, x, y, rng=rng, trace=trace, mask=mask)
        kept = _sizes(found - x, self.norm) <= self.eps
        return torch.where(kept.view(-1, 1, 1, 1), found, x)

    @abstractmethod
    def _search(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None) -> Tensor:
        """Return the nearest images that the model errs on; ``x`` itself where none was found."""
