"""One change for all images: its size, its rate against noise of equal size, its dominant label, its mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modelward.attacks.evasion import RandomNoise, Universal, UniversalPerturbation
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.rng import generator
from modelward.data import load_data
from modelward.models.embedded import embedded_model


@pytest.fixture(scope="module")
def lenet() -> nn.Module:
    return embedded_model().model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_data("fashion-mini").test.batch(slice(0, 300))


@pytest.fixture(scope="module")
def found(lenet: nn.Module, images: Tensor) -> Universal:
    return UniversalPerturbation(eps=3.5).fit(lenet, images, rng=generator(0))


def rate(net: nn.Module, x: Tensor, moved: Tensor) -> float:
    """The share of images whose class changes: compared with the net's own answer, not with labels."""
    return float((predict(net, moved).argmax(1) != predict(net, x).argmax(1)).float().mean())


def test_most_images_are_turned_and_noise_turns_few(lenet: nn.Module, images: Tensor, found: Universal) -> None:
    assert found.v.shape == (1, 1, 28, 28)
    assert float(found.v.norm()) == pytest.approx(3.5, abs=1e-3)
    assert found.fooling_rate >= 0.8
    assert found.fooling_rate == pytest.approx(rate(lenet, images, found.apply(images)), abs=1e-6)
    noise = RandomNoise(norm="l2", eps=3.5).perturb(lenet, images, torch.zeros(300, dtype=torch.int64), rng=generator(1))
    assert rate(lenet, images, noise) <= 0.1  # the null control


def test_images_it_never_saw_are_turned_too(lenet: nn.Module, found: Universal) -> None:
    others = load_data("fashion-mini").test.batch(slice(300, 500))
    assert rate(lenet, others, found.apply(others)) >= 0.6


def test_the_dominant_label_is_where_most_end(lenet: nn.Module, images: Tensor, found: Universal) -> None:
    counts = predict(lenet, found.apply(images)).argmax(1).bincount(minlength=10)
    assert found.dominant_label == int(counts.argmax())
    assert found.dominant_share == pytest.approx(int(counts.max()) / 300)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l1", 30.0)])
def test_other_norms_beat_noise_of_their_size(norm: str, eps: float, lenet: nn.Module, images: Tensor) -> None:
    x = images[:128]
    one = UniversalPerturbation(norm=norm, eps=eps, steps=120).fit(lenet, x, rng=generator(0))
    size = float(one.v.abs().max() if norm == "linf" else one.v.abs().sum())
    assert size <= eps * (1 + 1e-5)
    noise = RandomNoise(norm=norm, eps=eps).perturb(lenet, x, torch.zeros(128, dtype=torch.int64), rng=generator(1))
    assert one.fooling_rate >= 2 * rate(lenet, x, noise) + 0.1


def test_the_classic_walk_turns_images_too(lenet: nn.Module, images: Tensor) -> None:
    x = images[:24]
    one = UniversalPerturbation(eps=4.0, mode="classic", passes=2).fit(lenet, x, rng=generator(0))
    noise = RandomNoise(norm="l2", eps=4.0).perturb(lenet, x, torch.zeros(24, dtype=torch.int64), rng=generator(1))
    assert float(one.v.norm()) <= 4.0 * (1 + 1e-5)
    assert one.fooling_rate >= rate(lenet, x, noise) + 0.2


def test_perturb_adds_what_fit_finds(lenet: nn.Module, images: Tensor) -> None:
    method, x, before = UniversalPerturbation(eps=2.0, steps=40), images[:64], state_digest(lenet)
    one, other = (
        method.perturb(lenet, x, labels, rng=generator(5)) for labels in (torch.zeros(64, dtype=torch.int64), torch.arange(64) % 10)
    )
    assert torch.equal(one, other)  # labels are not looked at
    assert torch.equal(one, method.fit(lenet, x, rng=generator(5)).apply(x))
    assert state_digest(lenet) == before


def test_a_set_of_images_is_taken_as_it_is(lenet: nn.Module) -> None:
    stored = load_data("fashion-mini").test.take(slice(0, 32))
    method = UniversalPerturbation(eps=2.0, steps=20)
    one, other = (method.fit(lenet, images, rng=generator(0)) for images in (stored, stored.batch(slice(None))))
    assert torch.equal(one.v, other.v)


def test_a_mask_keeps_v_inside(lenet: nn.Module, images: Tensor) -> None:
    mask = torch.zeros(1, 1, 28, 28)
    mask[..., :10] = 1
    for mode in ("minibatch", "classic"):
        method = UniversalPerturbation(eps=3.0, steps=40, mode=mode, passes=1)
        one = method.fit(lenet, images[:24], rng=generator(0), mask=mask)
        assert not bool(one.v[..., 10:].any())
        assert bool(one.v[..., :10].any())
    several = torch.ones(24, 1, 28, 28)
    several[0] = 0
    with pytest.raises(InputError, match="one mask"):
        method.perturb(lenet, images[:24], torch.zeros(24, dtype=torch.int64), rng=generator(0), mask=several)


def test_one_class_can_be_the_target(lenet: nn.Module, images: Tensor) -> None:
    x, wanted = images[:128], torch.full((128,), 8)
    one = UniversalPerturbation(eps=4.0, steps=120, targeted=True).fit(lenet, x, y=wanted, rng=generator(0))
    before = float((predict(lenet, x).argmax(1) == 8).float().mean())
    assert one.fooling_rate == pytest.approx(float((predict(lenet, one.apply(x)).argmax(1) == 8).float().mean()), abs=1e-6)
    assert one.fooling_rate >= before + 0.4
    assert one.dominant_label == 8


def test_what_does_not_fit_is_refused(lenet: nn.Module, images: Tensor, found: Universal) -> None:
    with pytest.raises(InputError, match="no images"):
        UniversalPerturbation().fit(lenet, images[:0], rng=generator(0))
    with pytest.raises(InputError, match="does not fit"):
        found.apply(images[:2, :, :20])
    with pytest.raises(UsageError, match="needs y"):
        UniversalPerturbation(targeted=True).fit(lenet, images[:4], rng=generator(0))
    for wrong in ({"mode": "fast"}, {"mode": "classic", "norm": "l1"}, {"mode": "classic", "targeted": True}, {"steps": 0}, {"delta": 1.0}):
        with pytest.raises(UsageError, match="uap"):
            UniversalPerturbation(**wrong)
