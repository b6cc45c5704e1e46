"""Networks whose weights are computed from others: copied, settled, stolen from, made anew, saved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from modelward.attacks.theft import Prune, Quantise, WeightNoise
from modelward.core.catalogue import find
from modelward.core.copies import computed, copied, settle
from modelward.core.guard import plain_copy, predict, private_copy, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.suspect import Suspect
from modelward.core.view import AttackerView
from modelward.models.parts import fresh_like

Wrap = Callable[[nn.Module], nn.Module]
WRAPS: dict[str, Wrap] = {
    "weight_norm": nn.utils.parametrizations.weight_norm, "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal, "older weight_norm": nn.utils.weight_norm, "older spectral_norm": nn.utils.spectral_norm,
}  # fmt: skip
each = pytest.mark.parametrize("name", WRAPS)
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def net(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = nn.Sequential(WRAPS[name](nn.Conv2d(1, 4, 3, stride=2)), nn.ReLU(), nn.Flatten(), WRAPS[name](nn.Linear(36, 5)))
        made(torch.rand(4, 1, 8, 8))  # the older hooks compute their weight in a pass
    return made.eval()


@pytest.fixture
def images() -> ImageSet:
    pixels = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=generator(1))
    return ImageSet(pixels, torch.arange(60) % 5, tuple("abcde"), "noise")


@each
def test_a_copy_answers_alike_and_shares_nothing(name: str, images: ImageSet) -> None:
    model = net(name)
    before, digest = predict(model, images.pixels), state_digest(model)
    for copy in (copied(model), private_copy(model), plain_copy(model)):
        assert torch.allclose(predict(copy, images.pixels), before, atol=1e-6)
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter.add_(1)
        assert state_digest(model) == digest
        assert torch.equal(predict(model, images.pixels), before)


@each
def test_settled_weights_are_parameters_that_train(name: str, images: ImageSet) -> None:
    model = net(name)
    assert computed(model) == ["0.weight", "3.weight"]
    made = settle(copied(model))
    assert computed(made) == []
    assert computed(model) == ["0.weight", "3.weight"]
    assert {key for key, _ in made.named_parameters()} == {"0.weight", "0.bias", "3.weight", "3.bias"} == set(made.state_dict())
    made(images.batch(slice(8))).sum().backward()
    assert all(parameter.grad is not None for parameter in made.requires_grad_().parameters())


@each
def test_what_a_thief_writes_stays(name: str, images: ImageSet) -> None:
    model = net(name)
    view = AttackerView(Suspect.of_model(model), images)
    pruned, coarse, noisy = (
        method.steal(view, rng=generator(0)).model for method in (Prune(sparsity=0.9), Quantise(bits=2), WeightNoise(sigma=0.5))
    )
    for copy in (pruned, coarse, noisy):
        predict(copy, images.pixels)
        assert not torch.allclose(copy[3].weight, model[3].weight, atol=1e-3)
    assert float((pruned[3].weight == 0).float().mean()) > 0.8
    assert len(coarse[3].weight.unique()) <= 4


@each
def test_an_untrained_network_has_nothing_of_the_victim(name: str, images: ImageSet) -> None:
    model = net(name)
    for made in (
        fresh_like(model, rng=generator(1)),
        find("scratch").configured({"epochs": 0}).steal(AttackerView(Suspect.of_model(model), images), rng=generator(1)).model,
    ):
        for own, theirs in ((made[0].weight, model[0].weight), (made[3].weight, model[3].weight)):
            likeness = torch.nn.functional.cosine_similarity(own.detach().flatten(), theirs.detach().flatten(), dim=0)
            assert abs(float(likeness)) < 0.6
