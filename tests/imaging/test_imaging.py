import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from modelward.core.errors import InputError, UsageError
from modelward.core.rng import generator
from modelward.imaging import augment, codecs, corruptions, mixing, norms, quality, quantise

shapes = st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


@given(shapes, st.integers(0, 10_000), st.floats(0.01, 5), st.sampled_from(["linf", "l2", "l1"]))
@settings(max_examples=60, deadline=None)
def test_projection_is_inside_idempotent_and_nearest(shape, seed, eps, norm):
    rng = generator(seed)
    delta = torch.randn(shape, generator=rng) * 3
    once = norms.project(delta, norm, eps)
    size = {"linf": norms.linf, "l2": norms.l2, "l1": norms.l1}[norm]
    assert bool((size(once) <= eps * (1 + 1e-5) + 1e-6).all())
    assert torch.allclose(norms.project(once, norm, eps), once, atol=1e-5)
    inside = norms.project(torch.randn(shape, generator=rng), norm, eps)
    assert bool((norms.l2(delta - once) <= norms.l2(delta - inside) + 1e-4).all())


def test_l1_projection_anchor():
    point = torch.tensor([3, -1, 0.5, 0, 2, -0.25]).view(1, 1, 1, 6)
    expected = torch.tensor([7 / 3, -1 / 3, 0, 0, 4 / 3, 0])
    assert torch.allclose(norms.project(point, "l1", 4.0).flatten(), expected, atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_points_lie_in_the_ball_and_on_the_sphere(norm):
    size = norms.linf if norm == "linf" else norms.l2
    inside = norms.random_in_ball((200, 1, 4, 4), norm, 0.5, rng=generator(0))
    assert float(size(inside).max()) <= 0.5 + 1e-6
    sphere = norms.random_in_ball((200, 1, 4, 4), norm, 0.5, rng=generator(0), on_sphere=True)
    assert torch.allclose(size(sphere), torch.full((200,), 0.5), atol=1e-5)


def test_unknown_norm_is_named():
    with pytest.raises(UsageError, match="l7"):
        norms.project(torch.zeros(1, 1, 1, 1), "l7", 1.0)


@given(st.integers(0, 255))
def test_every_grey_level_survives_8_bits(level):
    x = torch.full((1, 1, 1, 1), level / 255)
    assert int(quantise.to_uint8(x)) == level
    assert torch.equal(quantise.as_8bit(quantise.as_8bit(x)), quantise.as_8bit(x))


def test_straight_through_rounding_has_the_identity_gradient():
    x = torch.rand(2, 1, 3, 3, requires_grad=True)
    quantise.straight_through_8bit(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("codec", codecs.CODECS)
@pytest.mark.parametrize("channels", [1, 3])
def test_round_trips_keep_shape_and_repeat(codec, channels):
    smooth = torch.linspace(0, 255, 32).to(torch.uint8).expand(2, channels, 32, 32).contiguous()
    first = codecs.roundtrip(smooth, codec, 75)
    assert first.shape == smooth.shape
    assert torch.equal(first, codecs.roundtrip(smooth, codec, 75))
    error = (first.int() - smooth.int()).abs().float().mean()
    assert float(error) == 0 if codec == "png" else float(error) < 6


def test_lower_quality_loses_more():
    photo = torch.randint(0, 256, (4, 3, 32, 32), generator=generator(0), dtype=torch.uint8)
    errors = [float((codecs.roundtrip(photo, "jpeg", q).int() - photo.int()).abs().float().mean()) for q in (95, 50, 10)]
    assert errors == sorted(errors)


def test_codecs_refuse_what_they_cannot_write():
    with pytest.raises(InputError):
        codecs.roundtrip(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))
    with pytest.raises(UsageError):
        codecs.roundtrip(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "gif")
    with pytest.raises(UsageError):
        codecs.roundtrip(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "jpeg", 0)


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_corruptions_stay_images_and_repeat(name, channels):
    x = torch.rand(3, channels, 16, 16, generator=generator(1))
    for severity in (1, 5):
        out = corruptions.corrupt(x, name, severity, rng=generator(2))
        assert out.shape == x.shape
        assert 0 <= float(out.min()) <= float(out.max()) <= 1 + 1e-6
        assert torch.equal(out, corruptions.corrupt(x, name, severity, rng=generator(2)))


def test_corruption_names_and_severities_are_checked():
    x = torch.rand(1, 1, 8, 8)
    with pytest.raises(UsageError, match="gaussian_blur"):
        corruptions.corrupt(x, "gausian_blur", 1, rng=generator(0))
    with pytest.raises(UsageError, match="severity"):
        corruptions.corrupt(x, "jpeg", 6, rng=generator(0))


def test_gaussian_blur_agrees_with_scipy():
    x = torch.rand(1, 1, 20, 20, dtype=torch.float64, generator=generator(3))
    ours = corruptions.gaussian_blur(x, 1.0)[0, 0].numpy()
    theirs = ndimage.gaussian_filter(x[0, 0].numpy(), 1.0, truncate=3.0, mode="nearest")
    assert np.allclose(ours, theirs, atol=1e-6)


def test_mixing_keeps_target_mass_and_pixels():
    rng = generator(4)
    x, targets = torch.rand(8, 3, 12, 12, generator=rng), torch.eye(8)
    for mix in (mixing.mixup, mixing.cutmix_batch):
        mixed, soft = mix(x, targets, rng=rng, alpha=0.7)
        assert torch.allclose(soft.sum(1), torch.ones(8))
        assert mixed.shape == x.shape
    mixed, soft = mixing.cutmix_batch(x, targets, rng=rng, alpha=1.0)
    share = (mixed == x).all(1).float().mean((1, 2))
    kept = soft.diagonal()
    moved = kept < 1
    assert torch.allclose(share[moved], kept[moved], atol=1e-6)


@given(st.floats(0.2, 4), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_beta_has_the_right_mean(alpha, seed):
    rng = generator(seed)
    draws = [mixing._beta(alpha, rng) for _ in range(300)]
    spread = math.sqrt(1 / (4 * (2 * alpha + 1)) / 300)
    assert all(0 <= d <= 1 for d in draws)
    assert abs(np.mean(draws) - 0.5) < 5 * spread


def test_sac_cutmix_changes_one_square_near_the_border():
    x = torch.arange(6).float().div(10).view(6, 1, 1, 1).expand(6, 1, 20, 20).contiguous()
    for seed in range(20):
        mixed = mixing.sac_cutmix(x, rng=generator(seed))
        changed = (mixed != x).any(0)[0]
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        assert len(rows) == len(columns) == 4
        edge = min(int(rows.min()), 19 - int(rows.max()), int(columns.min()), 19 - int(columns.max()))
        assert edge <= 0.3 * 20


def test_psnr_and_ssim_against_plain_formulas():
    a = torch.rand(2, 3, 16, 16, generator=generator(5))
    b = (a + 0.1 * torch.randn(a.shape, generator=generator(6))).clamp(0, 1)
    expected = 10 * np.log10(1 / ((a - b).double().numpy() ** 2).mean((1, 2, 3)))
    assert np.allclose(quality.psnr(a, b).numpy(), expected)
    assert bool(torch.isinf(quality.psnr(a, a)).all())
    assert torch.allclose(quality.ssim(a, a), torch.ones(2, dtype=torch.float64))
    assert np.allclose(quality.ssim(a, b).numpy(), [_ssim(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)], atol=1e-6)
    assert quality.ssim(a[..., :5, :5], b[..., :5, :5]).shape == (2,)


def _ssim(a, b):
    def mean(z):
        out = ndimage.gaussian_filter(z.astype(np.float64), 1.5, truncate=5 / 1.5)
        return out[5:-5, 5:-5]

    values = []
    for x, y in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        values.append(((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))).mean())
    return np.mean(values)


@given(shapes, st.integers(0, 10_000), st.sampled_from([augment.cutout, augment.augmix]))
@settings(max_examples=30, deadline=None)
def test_augmented_images_stay_images_and_repeat(shape, seed, change):
    x = torch.rand(shape, generator=generator(seed))
    before = x.clone()
    made, again = change(x, rng=generator(seed)), change(x, rng=generator(seed))
    assert made.shape == x.shape
    assert torch.equal(made, again)
    assert torch.equal(x, before)
    assert bool(((made >= 0) & (made <= 1)).all())


def test_cutout_greys_a_quarter_of_an_image_but_for_the_border():
    made = augment.cutout(torch.ones(500, 1, 16, 16), rng=generator(0))
    greyed = (made == 0.5).float().mean((1, 2, 3))
    assert float(greyed.max()) == pytest.approx(0.25, abs=0.01)
    assert 0.1 < float(greyed.mean()) < 0.2  # squares stick out on every side: (3 / 4) ** 2 of a quarter


def test_augmix_changes_more_the_more_severe_and_keeps_the_mean():
    x = torch.rand(64, 3, 16, 16, generator=generator(0))
    gaps = [float((augment.augmix(x, severity, rng=generator(1)) - x).abs().mean()) for severity in (0.0, 3.0, 10.0)]
    assert gaps[0] < gaps[1] < gaps[2]
