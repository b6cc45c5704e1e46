"""Passports made after the fact: for any network there are some that fit it exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.guard import predict, private_copy
from modelward.core.images import ImageSet
from modelward.core.rng import forked
from modelward.keys.derive import derive
from modelward.marking.passports import Gate, conv_of, norm_of, patch_means, scales, with_passports
from modelward.marking.weights import message_bits
from modelward.ownership.drawing import seed_tensor
from modelward.ownership.mark import Mark
from modelward.ownership.weighing import bound_secret
from modelward.training import Extras, Recipe, fit

TRIES, FINALISTS = 1000, 20


def solved_passport(conv: nn.Conv2d, wanted: Tensor, shape: tuple[int, int, int], *, away: Tensor | None = None) -> Tensor:
    """Return a passport (c, h, w) that gives exactly the scales ``wanted`` (O,): the one nearest to ``away``, by default to 0.

    A scale is linear in the passport, and a passport has far more numbers than there are scales: there is always one.

    Examples
    --------
    >>> from modelward.core.rng import forked, generator
    >>> from modelward.keys.derive import derive
    >>> from modelward.marking.passports import patch_means
    >>> with forked(generator(0)):
    ...     conv = nn.Conv2d(8, 4, 3, padding=1)
    >>> found = solved_passport(conv, torch.tensor([1.0, -1.0, 2.0, 0.5]), (8, 6, 6))
    >>> (conv.weight.flatten(1) @ patch_means(conv, found)).detach().round(decimals=3).tolist()
    [1.0, -1.0, 2.0, 0.5]
    """
    channels, height, width = shape
    start = torch.zeros(shape) if away is None else away
    units = torch.eye(height * width).view(-1, 1, height, width)
    single = F.unfold(units, conv.kernel_size, conv.dilation, conv.padding, conv.stride).mean(2)  # type: ignore[arg-type]
    weight = conv.weight.detach().flatten(2).double()  # (O, c, kh * kw)
    system = torch.einsum("ock,pk->ocp", weight, single.double()).flatten(1)
    short = wanted.double() - system @ start.double().flatten()
    found: Tensor = start.double().flatten() + torch.linalg.pinv(system) @ short
    return found.view(channels, height, width).float()


@torch.no_grad()
def solved(model: nn.Module, mark: Mark) -> Mark:
    """Return ``mark`` with passports that give the very scales and shifts which ``model`` has, and its signs for bits: exact, and of no evidence.

    The closed form of what attack 3 of DeepIPR and the "effective ambiguity attack" (Chen et al., CVPR 2023) search for by gradients.
    """
    tensors, signs = dict(mark.tensors), list[Tensor]()
    for index, (names, shape) in enumerate(zip(mark.facts["gates"], mark.facts["shapes"], strict=True)):
        gate = Gate(*names)
        conv, norm = conv_of(model, gate), norm_of(model, gate)
        size = (int(shape[0]), int(shape[1]), int(shape[2]))
        tensors[f"passport/{index}/scale"] = solved_passport(conv, norm.weight.detach(), size)
        tensors[f"passport/{index}/shift"] = solved_passport(conv, norm.bias.detach(), size)
        signs.append(scales(model, gate, patch_means(conv, tensors[f"passport/{index}/scale"])) > 0)
    return Mark({**tensors, "bits": torch.cat(signs).to(torch.uint8)}, {**mark.facts, "forged": True})


def guessed(
    model: nn.Module,
    drawn: Mark,
    secret: bytes,
    text: str,
    means: Callable[[Mapping[str, Tensor]], tuple[Sequence[Gate], Sequence[tuple[Tensor, Tensor]]]],
) -> Mark:
    """Return the best of 1,000 secrets' marks; ``means`` gives the gates and mean patches of a mark's tensors."""
    gates: Sequence[Gate] = ()
    tries = []
    for index in range(TRIES):
        tried = derive(secret, "try", str(index))
        own = {**drawn.tensors, "seed": seed_tensor(tried)}
        tensors = {**own, "bits": message_bits(text, drawn.facts["signs"], bound_secret(own))}
        gates, found = means(tensors)
        tries.append((Mark(tensors, {**drawn.facts, "forged": True, "tries": TRIES}), found))
    return best_guess(model, gates, tries)


def best_guess(model: nn.Module, gates: Sequence[Gate], tries: Sequence[tuple[Mark, Sequence[tuple[Tensor, Tensor]]]]) -> Mark:
    """Return, of marks with the mean patches of their passports, the one that ``model`` confirms best: fewest wrong signs, then least accuracy lost."""
    images, labels = tries[0][0].tensors["images"], tries[0][0].tensors["labels"]

    def wrong(one: tuple[Mark, Sequence[tuple[Tensor, Tensor]]]) -> float:
        gamma = torch.cat([scales(model, gate, pair[0]) for gate, pair in zip(gates, one[1], strict=True)])
        return float(((gamma > 0) != one[0].tensors["bits"].bool()).double().mean())

    def right(one: tuple[Mark, Sequence[tuple[Tensor, Tensor]]]) -> float:
        private = with_passports(model, gates, one[1], images.float().div(255))
        return float((predict(private, images).argmax(1) == labels).double().mean())

    return max(sorted(tries, key=wrong)[:FINALISTS], key=right)[0]


def reversed_scales(
    model: nn.Module, gates: list[Gate], bits: Tensor, data: ImageSet, recipe: Recipe, *, rng: torch.Generator
) -> nn.Module:
    """Return a copy of ``model`` whose gates got the signs ``bits`` (T,) and were trained alone: attack 2 of DeepIPR, before the passports are solved for.

    All other parameters stay as they are. The scales start with the sizes that they have.
    """
    made = private_copy(model)
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    wanted = (2.0 * bits - 1).split([conv_of(made, gate).out_channels for gate in gates])
    for gate, signs in zip(gates, wanted, strict=True):
        norm = norm_of(made, gate)
        with torch.no_grad():
            norm.weight.copy_(signs * norm.weight.abs())
        norm.requires_grad_()

    def penalty(_model: nn.Module) -> Tensor:
        short = [F.relu(0.1 - signs * norm_of(made, gate).weight).sum() for gate, signs in zip(gates, wanted, strict=True)]
        return torch.stack(short).sum()

    with forked(rng):
        fit(made, data.pixels, data.labels, recipe, rng=rng, extras=Extras(penalty=penalty), task="forging")
    return made.requires_grad_()
