"""The thefts that stand around the copy: what they do to images and answers, and that each answer hangs on its own image alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelward.attacks.theft import (
    DetectDivergence,
    DetectDuplicates,
    DetectOOD,
    DetectReconstruction,
    WrapBlur,
    WrapFlip,
    WrapJPEG,
    WrapLabel,
    WrapLevels,
    WrapNoise,
    WrapReconstruct,
    WrapRound,
    WrapSqueeze,
)
from modelward.attacks.theft.detecting import Detecting
from modelward.attacks.theft.wrapping import Wrapping
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.imaging.corruptions import gaussian_blur
from modelward.models import Net
from modelward.models.assembly import Assembly

IMAGE = [WrapBlur(), WrapBlur(kind="mean"), WrapBlur(kind="median"), WrapJPEG(), WrapLevels(), WrapSqueeze(), WrapNoise(), WrapFlip()]
DETECTORS = [DetectReconstruction(coder_epochs=20, batch=32), DetectDivergence(coder_epochs=5), DetectOOD(), DetectOOD(rule="energy")]
ALL = [*IMAGE, WrapRound(), WrapLabel(), WrapReconstruct(coder_epochs=40, batch=16), *DETECTORS]
by_name = pytest.mark.parametrize("method", ALL, ids=lambda method: method.card.name)


def wrapped(method: Wrapping, model: nn.Module, images: ImageSet) -> Assembly:
    made = method.steal(AttackerView.of_model(model, images, labels="none"), rng=generator(0)).model
    assert isinstance(made, Assembly)
    return made


@by_name
def test_an_answer_hangs_on_its_own_image_alone_and_is_always_the_same(method: Wrapping, victim: Net, parts: Study) -> None:
    thief = wrapped(method, victim, parts.attacker)
    pixels = parts.test.pixels[:24]
    whole = predict(thief, pixels)
    single = torch.cat([predict(thief, image[None]) for image in pixels])
    backwards = predict(thief, pixels.flip(0)).flip(0)
    assert torch.allclose(whole, single, atol=1e-4)
    assert torch.allclose(whole, backwards, atol=1e-4)
    assert torch.equal(whole, predict(thief, pixels))


@by_name
def test_a_wrapper_is_worth_having(method: Wrapping, victim: Net, parts: Study) -> None:
    thief = wrapped(method, victim, parts.attacker)
    right = (predict(thief, parts.test.pixels).argmax(1) == parts.test.labels).float().mean()
    assert float(right) >= float((predict(victim, parts.test.pixels).argmax(1) == parts.test.labels).float().mean()) - 0.2
    assert state_digest(thief.parts[0]) == state_digest(victim)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(IMAGE), st.integers(0, 4), st.sampled_from([1, 3]), st.integers(5, 13), st.integers(5, 13), st.integers(0, 99))
def test_changed_images_are_images_of_the_same_shape(method, count, channels, height, width, seed):
    x = torch.rand(count, channels, height, width, generator=generator(seed))
    changed = method.change(x)
    assert changed.shape == x.shape
    assert not count or (float(changed.min()) >= 0 and float(changed.max()) <= 1 + 1e-6)
    assert not count or torch.allclose(method.change(x[:1]), changed[:1], atol=1e-5)


def test_the_copy_is_shown_the_changed_image(victim: Net, few: ImageSet) -> None:
    x = few.batch(slice(8))
    for method, wanted in (
        (WrapFlip(), x.flip(3)),
        (WrapBlur(std=0.7), gaussian_blur(x, 0.7)),
        (WrapLevels(levels=4), (x * 3).round() / 3),
    ):
        assert torch.allclose(predict(wrapped(method, victim, few), x), predict(victim, wanted), atol=1e-5)


def test_noise_hangs_on_the_seed_and_the_image() -> None:
    x = torch.full((400, 1, 8, 8), 0.5) + torch.linspace(0, 0.01, 400).view(-1, 1, 1, 1)
    noise = WrapNoise(std=0.1, seed=1).change(x) - x
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.005)
    assert len({row.numpy().tobytes() for row in noise}) == 400
    assert not torch.equal(WrapNoise(std=0.1, seed=2).change(x) - x, noise)


def test_gradients_pass_where_the_filter_is_smooth(victim: Net, few: ImageSet) -> None:
    x = few.batch(slice(4)).requires_grad_()
    for method in (WrapBlur(), WrapNoise(), WrapFlip(), WrapReconstruct(coder_epochs=1)):
        (grad,) = torch.autograd.grad(wrapped(method, victim, few)(x).sum(), x)
        assert float(grad.abs().max()) > 0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 6), st.integers(2, 12), st.integers(0, 999))
def test_rounded_answers_keep_the_label_and_are_round(decimals, classes, seed):
    logits = torch.randn(20, classes, generator=generator(seed)) * 3
    answers = WrapRound(decimals=decimals).assemble([nn.Identity()])(logits)
    assert torch.equal(answers.argmax(1), logits.argmax(1))
    told = answers.exp() * 10**decimals
    assert float((told - told.round()).abs().max()) <= 1e-4 * 10**decimals
    only = WrapLabel().assemble([nn.Identity()])(logits)
    assert torch.equal(only.argmax(1), logits.argmax(1))
    assert len(only.unique()) == 2


@pytest.mark.parametrize("method", [*DETECTORS, DetectDuplicates()], ids=lambda method: method.card.name)
def test_detectors_leave_most_clean_images_alone(method: Detecting, victim: Net, parts: Study) -> None:
    thief = wrapped(method, victim, parts.attacker)
    plain, told = (predict(model, parts.test.pixels, batch=128) for model in (victim, thief))  # as many at a time as the threshold saw
    same = torch.isclose(plain, told, atol=1e-5).all(1).float().mean()
    assert float(same) >= 0.94  # .99 is aimed at, on 128 images


def test_a_reconstruction_detector_catches_what_is_no_image(victim: Net, make_blobs: Any) -> None:
    clean = make_blobs(256, 30, noise=5.0)
    method = DetectReconstruction(coder_epochs=30, batch=16)
    thief = wrapped(method, victim, clean)
    with torch.no_grad():
        strange = method.score(thief, torch.rand(200, 3, 8, 8, generator=generator(0)))
        usual = method.score(thief, make_blobs(200, 31, noise=5.0).batch(slice(None)))
    assert float((strange > thief.threshold).float().mean()) >= 0.99
    assert float((usual > thief.threshold).float().mean()) <= 0.06


@pytest.mark.parametrize("reaction", ["random", "refuse"])
def test_a_suspicious_image_gets_another_answer(reaction: str, victim: Net, few: ImageSet) -> None:
    class Always(DetectOOD):
        def score(self, assembly: Assembly, x: Tensor) -> Tensor:
            del assembly
            return x.flatten(1)[:, 0]

    thief = Always(reaction=reaction).assemble([victim])
    thief.threshold.fill_(0.5)
    x = few.batch(slice(64)).clone()
    x[:32, 0, 0, 0], x[32:, 0, 0, 0] = 1.0, 0.0
    plain, told = predict(victim, x), predict(thief, x)
    assert torch.equal(told[32:], plain[32:])
    if reaction == "refuse":
        assert not bool(told[:32].any())
    else:
        assert torch.equal(told[:32].sort(1).values, plain[:32].sort(1).values)
        assert 5 <= int((told[:32].argmax(1) != plain[:32].argmax(1)).sum()) <= 31


def test_repeated_questions_are_noticed_within_a_batch(victim: Net, parts: Study) -> None:
    thief = wrapped(DetectDuplicates(reaction="refuse"), victim, parts.attacker)
    x = parts.test.batch(slice(6))
    near = (x + 0.01 * torch.rand(x.shape, generator=generator(0))).clamp(0, 1)
    refused = (predict(thief, torch.cat([x, near])) == 0).all(1)
    assert refused.tolist() == [False] * 6 + [True] * 6
    assert not bool((predict(thief, near) == 0).all(1).any())


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (WrapBlur, {"kind": "box"}),
        (WrapBlur, {"std": 0.0}),
        (WrapBlur, {"size": 2}),
        (WrapJPEG, {"quality": 0}),
        (WrapLevels, {"levels": 1}),
        (WrapSqueeze, {"bits": 9}),
        (WrapNoise, {"std": -1.0}),
        (WrapNoise, {"seed": -1}),
        (WrapRound, {"decimals": 7}),
        (WrapReconstruct, {"coder_epochs": 0}),
        (WrapReconstruct, {"width": 0}),
        (DetectOOD, {"rule": "mahalanobis"}),
        (DetectOOD, {"quantile": 1.5}),
        (DetectOOD, {"reaction": "laugh"}),
        (DetectDivergence, {"temperature": 0.0}),
        (DetectReconstruction, {"lr": 0.0}),
    ],
)
def test_bad_settings_are_refused(kind: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        kind.configured(fields)


def test_what_cannot_be_wrapped_is_refused_in_a_sentence(victim: Net, few: ImageSet) -> None:
    with pytest.raises(InputError, match="channels"):
        wrapped(WrapReconstruct(), nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), few)
    with pytest.raises(InputError, match="at least 4 images"):
        wrapped(DetectOOD(), victim, few.take(slice(3)))
    with pytest.raises(InputError, match="needs images"):
        wrapped(WrapReconstruct(), victim, few.take(slice(0)))
