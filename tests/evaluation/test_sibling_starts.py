"""Siblings by the owner's code have to begin where the owner says: the order of hidden units tells."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from modelward.core.errors import InputError
from modelward.core.siblings import Siblings
from modelward.evaluation.sibling_starts import require_start


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 5))


def tuned(start: nn.Module, seed: int) -> nn.Module:
    """Return a net that was moved a little."""
    torch.manual_seed(seed)
    made = copy.deepcopy(start)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * weight.std() * torch.randn_like(weight))
    return made


BASE = net(0)
FROM_BASE, ANEW = [tuned(BASE, seed) for seed in (1, 2, 3)], [net(seed) for seed in (11, 12, 13)]


@pytest.mark.parametrize("start", ["base", "start"])
def test_all_began_there(start: str) -> None:
    require_start(Siblings(origin="code", start=start), FROM_BASE[1:], FROM_BASE[0], BASE)


@pytest.mark.parametrize("start", ["base", "start"])
def test_siblings_that_began_elsewhere_are_refused(start: str) -> None:
    with pytest.raises(InputError, match=f"--{start}: 2 of 3 siblings do not stand"):
        require_start(Siblings(origin="code", start=start), [FROM_BASE[1], *ANEW[:2]], FROM_BASE[0], BASE)


def test_a_model_that_did_not_begin_at_the_base_is_refused() -> None:
    with pytest.raises(InputError, match="your model's hidden units do not stand"):
        require_start(Siblings(origin="code", start="base"), ANEW[1:], ANEW[0], BASE)
    with pytest.raises(InputError, match="your model's hidden units do not stand"):
        require_start(Siblings(origin="code", start="start"), FROM_BASE[1:], ANEW[0], BASE)
    require_start(
        Siblings(origin="code", start="start"), ANEW[1:], ANEW[0], BASE
    )  # training may have forgotten the initial weights: all of them did


def test_weights_drawn_anew_stand_in_no_common_order() -> None:
    require_start(Siblings(origin="code", start="none"), ANEW[1:], ANEW[0], None)
    for models, owner in ((FROM_BASE, ANEW[0]), ([FROM_BASE[0], ANEW[0]], FROM_BASE[1])):
        with pytest.raises(InputError, match="stand in one order of hidden units"):
            require_start(Siblings(origin="code", start="none"), models, owner, None)


def sorted_units(model: nn.Module) -> nn.Module:
    """Return the same function with its hidden units in the order of their size: their order tells nothing then."""
    made = copy.deepcopy(model)
    order = model[1].weight.norm(dim=1).argsort()
    with torch.no_grad():
        made[1].weight.copy_(model[1].weight[order])
        made[1].bias.copy_(model[1].bias[order])
        made[3].weight.copy_(model[3].weight[:, order])
    return made


def test_one_sibling_that_hides_its_order_does_not_spare_the_others() -> None:
    hidden = sorted_units(ANEW[1])
    with pytest.warns(UserWarning, match="could not be tried in 1 cases"):
        require_start(Siblings(origin="code", start="base"), [hidden, *FROM_BASE[1:]], FROM_BASE[0], BASE)
    with pytest.raises(InputError, match="1 of 3 siblings do not stand"):
        require_start(Siblings(origin="code", start="base"), [hidden, FROM_BASE[1], ANEW[0]], FROM_BASE[0], BASE)
    with pytest.raises(InputError, match="stand in one order of hidden units"):
        require_start(Siblings(origin="code", start="none"), [hidden, *FROM_BASE], ANEW[0], None)


def test_what_our_recipe_trained_is_not_tried_and_what_cannot_be_tried_is_said() -> None:
    require_start(Siblings(origin="recipe", start="base"), ANEW, ANEW[0], BASE)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.warns(UserWarning, match="could not be tried"):
        require_start(Siblings(origin="code", start="base"), [plain], plain, plain)
