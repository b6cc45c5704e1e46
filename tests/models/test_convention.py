"""What a net expects of its images, put inside the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelward.core.errors import InputError, ModelwardError, UsageError
from modelward.core.guard import private_copy, state_digest
from modelward.core.rng import generator
from modelward.evaluation.parcels import get_model, put_model
from modelward.evaluation.store import Store
from modelward.io.safetensors import load_tensors, save_tensors
from modelward.models import Convention, Net, build, load_model, save_model

number = st.floats(-300, 300)
spread = st.floats(0.05, 300)


def converted(x: Tensor, convention: Convention) -> Tensor:
    """The definition, step by step."""
    images = x.flip(1) if convention.channels == "bgr" else x
    low, high = convention.range
    column = {name: torch.tensor(getattr(convention, name)).view(1, -1, 1, 1) for name in ("mean", "std")}
    return (low + (high - low) * images - column["mean"]) / column["std"]


@st.composite
def conventions(draw: st.DrawFn) -> Convention:
    length = draw(st.sampled_from([1, 3]))
    low, high = draw(st.sampled_from([(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (1.0, 0.0)]))
    mean, std = (tuple(draw(st.lists(values, min_size=length, max_size=length))) for values in (number, spread))
    return Convention(range=(low, high), mean=mean, std=std, channels=draw(st.sampled_from(["rgb", "bgr"])))


@settings(deadline=None, max_examples=50)
@given(convention=conventions(), inner=st.sampled_from([None, (2, 1, 0), (1, 2, 0)]), seed=st.integers(0, 2**32))
def test_the_net_sees_what_it_was_trained_on(convention: Convention, inner: tuple[int, ...] | None, seed: int) -> None:
    body = torch.nn.Flatten()
    net = Net(body, "flat", classes=12, size=(2, 2), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], order=inner).eval()
    x = torch.rand(2, 3, 2, 2, generator=generator(seed))
    assert torch.allclose(convention.applied(x), converted(x, convention), rtol=1e-5, atol=1e-4)
    expected = net(converted(x, convention))
    found = convention.around(net)(x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3 * float(expected.abs().max()))
    again = convention.around(convention.around(net))(x)
    assert torch.allclose(again, convention.around(net)(converted(x, convention)), rtol=1e-4, atol=1e-3 * float(again.abs().max()))


def test_the_usual_convention_changes_nothing(rng: torch.Generator) -> None:
    net = build("cnn", classes=3, channels=3, size=(8, 8), rng=rng)
    same = Convention().around(net)
    x = torch.rand(2, 3, 8, 8, generator=rng)
    assert torch.equal(same(x), net(x))
    assert state_digest(same) == state_digest(net)


@pytest.mark.parametrize("arch", ["cnn", "mlp:width=8", "vit-tiny:width=8,heads=2,depth=1"])
def test_it_survives_files_the_store_and_copies(arch: str, tmp_path: Path, rng: torch.Generator) -> None:
    bare = build(arch, classes=3, channels=3, size=(8, 8), rng=rng)
    state = {name: tensor for name, tensor in bare.state_dict().items() if name.startswith("body.")}
    save_tensors(tmp_path / "bare.safetensors", state)
    convention = Convention(range=(0, 255), mean=(104, 117, 123), std=(57,), channels="bgr")
    heads = arch.replace("width=8,", "").replace(",depth=1", "") if "heads" in arch else arch.partition(":")[0]
    loaded = load_model(tmp_path / "bare.safetensors", heads, like=(3, 8, 8), convention=convention)
    x = torch.rand(2, 3, 8, 8, generator=rng)
    expected = bare.body(converted(x, convention))
    assert torch.allclose(loaded.model(x), expected, rtol=1e-3, atol=1e-4)
    assert loaded.digest != load_model(tmp_path / "bare.safetensors", heads, like=(3, 8, 8)).digest
    save_model(tmp_path / "inside.safetensors", loaded.model)
    store = Store(tmp_path / "store")
    others = [
        load_model(tmp_path / "inside.safetensors").model,
        get_model(str(store.folder), put_model(store, loaded.model)),
        private_copy(loaded.model),
    ]
    for other in others:
        assert state_digest(other) == loaded.digest
        assert torch.equal(other(x), loaded.model(x))


def test_the_source_is_left_alone(rng: torch.Generator) -> None:
    net = build("cnn", classes=3, channels=3, size=(8, 8), rng=rng)
    digest = state_digest(net)
    Convention(range=(0, 255), channels="bgr").around(net)
    assert state_digest(net) == digest
    assert net.order is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"range": (1, 1)}, "two different numbers"),
        ({"range": (0, float("inf"))}, "two different numbers"),
        ({"std": (1, 0, 1)}, "std not 0"),
        ({"mean": ()}, "finite numbers"),
        ({"mean": (float("nan"),)}, "finite numbers"),
        ({"channels": "gbr"}, "rgb or bgr"),
        ({"mean": (1, 2)}, "has 3 channels, the convention 2 means and 1 stds"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], words: str, rng: torch.Generator) -> None:
    with pytest.raises(UsageError, match=words):
        Convention(**given).around(build("cnn", classes=2, channels=3, size=(8, 8), rng=rng))  # type: ignore[arg-type]


def test_grey_images_have_no_order(rng: torch.Generator) -> None:
    with pytest.raises(UsageError, match="bgr is an order of three"):
        Convention(channels="bgr").around(build("cnn", classes=2, rng=rng))


@pytest.mark.parametrize("order", [[0, 1, 1], [0, 1], [0, 1, 3], [2, 1, 0, 3]])
def test_a_file_with_an_impossible_order_is_refused(order: list[int], tmp_path: Path, rng: torch.Generator) -> None:
    net = build("cnn", classes=2, channels=3, size=(8, 8), rng=rng)
    save_tensors(tmp_path / "m.safetensors", {**net.state_dict(), "order": torch.tensor(order)}, {"arch": "cnn"})
    with pytest.raises(InputError, match="the order of its channels"):
        load_model(tmp_path / "m.safetensors")


def test_a_spread_of_zero_is_refused(tmp_path: Path, rng: torch.Generator) -> None:
    save_model(tmp_path / "m.safetensors", build("cnn", classes=2, rng=rng, std=[0.0]))
    with pytest.raises(ModelwardError, match="none may be 0"):
        load_model(tmp_path / "m.safetensors")
    assert "order" not in load_tensors(tmp_path / "m.safetensors")[0]
