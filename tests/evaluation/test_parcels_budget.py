"""What work is estimated to cost, and the parcels in which images and models travel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.core.errors import UnsafeFileError
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.evaluation import budget
from modelward.evaluation.parcels import get_images, get_model, put_images, put_model
from modelward.evaluation.store import Store
from modelward.models.nets import ARCHITECTURES, build


def images(count, seed, *, channels=1, side=12):
    rng = generator(seed)
    pixels = torch.randint(0, 256, (count, channels, side, side), generator=rng, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 3, ("no", "ja", "ünsure"), f"noise {seed}")


@settings(deadline=None)
@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(0, 5000), st.floats(0.1, 20), st.integers(8, 64))
def test_the_estimate_grows_with_images_epochs_width_and_size(arch, count, epochs, side):
    shape = (1, side, side)
    base = budget.train_seconds(arch, count, epochs, shape)
    defaults = ARCHITECTURES[arch].defaults
    assert base >= budget.START_SECONDS
    assert budget.train_seconds(arch, count + 1, epochs, shape) > base
    assert budget.train_seconds(arch, count + 1, epochs * 2, shape) > budget.train_seconds(arch, count + 1, epochs, shape)
    work = base - budget.START_SECONDS
    for option, factor in {"width": 8, "depth": 4, "patch": 1 / 16}.items():
        if option in defaults:
            given = defaults[option]
            assert budget.train_seconds(f"{arch}:{option}={given}", count, epochs, shape) == pytest.approx(base)
            larger = budget.train_seconds(f"{arch}:{option}={4 * given}", count, epochs, shape)
            assert larger - budget.START_SECONDS == pytest.approx(factor * work)
    assert budget.predict_seconds(arch, count, epochs, shape) == pytest.approx(1.5 * base)


def test_every_architecture_has_an_estimate():
    assert budget.TRAIN_MS.keys() == ARCHITECTURES.keys()
    assert budget.train_seconds("mynets:make", 1000, 1, (1, 28, 28)) > budget.START_SECONDS


@pytest.mark.parametrize(("count", "channels"), [(7, 1), (5, 3), (0, 1)])
def test_images_come_back_as_they_went_in(tmp_path, count, channels):
    store, original = Store(tmp_path), images(count, 5, channels=channels)
    digest = put_images(store, original)
    read = get_images(str(tmp_path), digest)
    assert (read.digest, read.classes, read.name, read.shape) == (original.digest, original.classes, original.name, original.shape)
    assert torch.equal(read.pixels, original.pixels)
    assert torch.equal(read.labels, original.labels)
    assert digest == put_images(store, read)
    assert digest != put_images(store, ImageSet(original.pixels, original.labels, ("x", "y", "z"), original.name))
    assert get_images(str(tmp_path), digest) is read


def test_a_strided_view_is_kept_by_content(tmp_path):
    store, whole = Store(tmp_path), images(8, 6)
    assert put_images(store, whole.take(slice(0, 8, 2))) == put_images(store, whole.take([0, 2, 4, 6]))


@pytest.mark.parametrize("arch", ["mlp:width=9", "lenet5", "cnn:width=4", "resnet8:width=4", "resnet14:width=4", "resnet20:width=4"])
@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (16, 20))])
def test_models_come_back_as_they_went_in(tmp_path, arch, channels, size):
    store = Store(tmp_path)
    model = build(arch, classes=7, channels=channels, size=size, rng=generator(1), mean=[0.4] * channels, std=[0.3] * channels).train()
    with torch.no_grad():
        model(torch.rand(4, channels, *size, generator=generator(2)))  # batch statistics move
    digest = put_model(store, model)
    assert model.training
    read = get_model(str(tmp_path), digest)
    assert not read.training
    assert (read.classes, read.channels, read.size) == (7, channels, size)
    assert all(torch.equal(value, read.state_dict()[name]) for name, value in model.state_dict().items())
    x = torch.rand(3, channels, *size, generator=generator(3))
    with torch.no_grad():
        assert torch.equal(read(x), model.eval()(x))
    assert put_model(store, model) == digest == put_model(store, read)


def test_a_damaged_model_is_refused(tmp_path):
    store = Store(tmp_path)
    digest = put_model(store, build("mlp:width=3", classes=2, size=(4, 4), rng=generator(0)))
    data = bytearray(store.path(digest).read_bytes())
    data[-1] ^= 1
    store.path(digest).write_bytes(data)
    with pytest.raises(UnsafeFileError, match="run the same command again"):
        get_model(str(tmp_path), digest)
