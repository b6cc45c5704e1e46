"""Seven signs that a robustness figure cannot be trusted, after those of AutoAttack (Croce and Hein, ICML 2020, arXiv 2003.01690)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import gradient
from modelward.attacks.evasion.pgd import PGD
from modelward.core.guard import asked, predict, state_digest
from modelward.core.rng import generator

ALONE = 50  # images that are asked one by one
FLAGS = {
    "randomised": "the model answers differently to the same image: average over its randomness before believing an attack that failed",
    "batch-dependent": "an image's answer depends on what it is asked with: put batch normalisation in eval mode, with running statistics",
    "softmax": "the outputs look like probabilities: gradients through a second softmax vanish; return logits",
    "zero-gradient": "the input gradient is zero on many images: gradient attacks are blind there; use loss='margin' or a transfer attack",
    "loss-decides": "PGD on the logit ratio fools images that it does not fool on the cross-entropy: the net is saturated; use loss='dlr'",
    "black-box-wins": "random noise or a single step fools images that the iterated attack does not: the gradients mislead",
    "inference-optimisation": "the forward pass optimises or changes its own state: attack through that loop or evaluate adaptively",
}


@contextlib.contextmanager
def _autograd_calls() -> Iterator[list[str]]:
    """Record calls of autograd made inside the block."""
    calls: list[str] = []

    def spy(name: str, real: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return real(*args, **kwargs)

        return called

    with (
        mock.patch("torch.autograd.grad", spy("grad", torch.autograd.grad)),
        mock.patch("torch.autograd.backward", spy("backward", torch.autograd.backward)),
    ):
        yield calls


def masking_flags(model: nn.Module, x: Tensor, y: Tensor, *, limit: float = 0.1, eps: float = 8 / 255) -> dict[str, str]:
    """Return the flags that hold for ``model`` on images (N, C, H, W) with labels (N,), each with the evidence in words.

    ``black-box-wins`` needs attack results and is decided by `black_box_wins`.

    Parameters
    ----------
    limit
        share of images without gradient that is too many.
    eps
        Linf radius of the two short attacks whose losses are compared, pixels in [0, 1].
    """
    found: dict[str, str] = {}
    if not len(x):
        return found
    before = state_digest(model)
    with asked(model):
        with torch.no_grad(), _autograd_calls() as calls:
            first, second = model(x), model(x)
        if not torch.equal(first, second):
            found["randomised"] = f"two answers to the same {len(x)} images differ by up to {float((first - second).abs().max()):.3g}"
        if bool((first >= 0).all()) and torch.allclose(first.sum(1), torch.ones(len(first)), atol=1e-3):
            found["softmax"] = "every answer is non-negative and sums to 1"
        if calls or state_digest(model) != before:
            found["inference-optimisation"] = (
                f"the forward pass called autograd {len(calls)} times" if calls else "the forward pass changed its state"
            )
        grad, logits = gradient(model, x, y)
        blind = (grad.flatten(1).abs().amax(1) == 0) & (logits.argmax(1) == y)
        found |= {} if "randomised" in found else _by_company(model, x, first)
    if int(blind.sum()) / len(x) > limit:
        found["zero-gradient"] = f"{int(blind.sum())} of {len(x)} images have no input gradient at all"
    if logits.shape[1] > 2 and not found.keys() & {"randomised", "batch-dependent", "softmax", "inference-optimisation"}:
        evidence = loss_decides(*(_standing(model, x, y, loss, eps) for loss in ("ce", "dlr")))
        found |= {"loss-decides": evidence} if evidence else {}
    return found


@torch.no_grad()
def _by_company(model: nn.Module, x: Tensor, together: Tensor) -> dict[str, str]:
    """Return the flag of a model whose answers to some images change when it is asked about one by one."""
    few = min(ALONE, len(x))
    try:
        alone = torch.cat([model(x[index : index + 1]) for index in range(few)])
    except (RuntimeError, ValueError) as error:  # batch normalisation has no variance over one image
        return {"batch-dependent": f"the model fails on a single image: {(str(error).splitlines() or [type(error).__name__])[0]}"}
    if torch.allclose(alone, together[:few], rtol=1e-3, atol=1e-3 * float(together.abs().max())):
        return {}
    changed = int((alone.argmax(1) != together[:few].argmax(1)).sum())
    return {"batch-dependent": f"asked one by one, the images are answered otherwise; {changed} of {few} get another class"}


def _standing(model: nn.Module, x: Tensor, y: Tensor, loss: str, eps: float) -> Tensor:
    """Return which images a short descent on ``loss`` from the image itself leaves classified correctly, bool (N,)."""
    attack = PGD(eps=eps, step=eps / 4, steps=10, random_start=False, loss=loss)
    return predict(model, attack.perturb(model, x, y, rng=generator(0))).argmax(1) == y


def loss_decides(ce: Tensor, dlr: Tensor) -> str | None:
    """Return the evidence when one attack is much stronger on the logit ratio than on the cross-entropy; bool (N,): still correct.

    Healthy nets differ by a few images either way; a tenth of all is too much.
    """
    gain = int(ce.sum()) - int(dlr.sum())
    many = gain > max(2, round(0.1 * len(ce)))
    return f"{int(ce.sum())} of {len(ce)} images stand on the cross-entropy, {int(dlr.sum())} on the logit ratio" if many else None


def black_box_wins(strong: Tensor, weak: Tensor) -> str | None:
    """Return the evidence when a weak attack fools images that a strong one does not; both are bool (N,): still correct."""
    missed = int((strong & ~weak).sum())
    allowed = max(2, round(0.02 * len(strong)))
    return f"{missed} of {len(strong)} images fall to the weaker attack only" if missed > allowed else None
