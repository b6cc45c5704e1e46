"""Work goes to the device that was asked for, and what the caller holds stays where it was.

The device of these tests is ``meta``: it takes every model and tensor, and refuses to be mixed with the CPU as an accelerator does.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from modelward.core.devices import Following, bf16_is_faster, bf16_is_native, computing, device_of, following, lent, moved, working_device
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.imaging.corruptions import gaussian_noise
from modelward.imaging.norms import random_in_ball
from modelward.models import build
from modelward.training import Recipe

META = torch.device("meta")


class Seen(nn.Module):
    """Remembers where its input lay, and answers from where it lies itself."""

    places: list[str] = []  # noqa: RUF012  # shared by copies on purpose

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        self.places.append(x.device.type)
        return x.flatten(1)[:, :2] * self.weight


def test_predict_works_where_it_was_told_and_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = Seen(), torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    monkeypatch.setattr(Seen, "places", [])
    predict(model, pixels)
    with computing("meta"), pytest.raises(NotImplementedError):  # nothing can be copied out of meta: the answer was on its way back
        predict(model, pixels)
    assert Seen.places == ["cpu", "meta"]
    assert device_of(model).type == "cpu"
    assert working_device(model).type == "cpu"


def test_a_model_on_a_device_is_worked_with_there() -> None:
    model = build("cnn:width=2", classes=2, size=(8, 8), rng=generator(0)).to(META)
    assert working_device(model) == META
    assert lent(model, META) is model
    with pytest.raises(NotImplementedError):
        predict(model, torch.zeros(2, 1, 8, 8))


def test_a_lent_model_is_a_copy_and_a_moved_one_comes_back() -> None:
    model = nn.Linear(2, 2)
    kept = copy.deepcopy(model.state_dict())
    other = lent(model, META)
    assert other is not model
    assert device_of(other) == META
    assert device_of(model).type == "cpu"
    with moved(model, torch.device("cpu")):
        assert device_of(model).type == "cpu"
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_makers_and_draws_follow_the_device() -> None:
    with Following(META):
        made = [torch.zeros(2), torch.arange(3), torch.tensor([1.0]), torch.full((2,), 1.0), torch.randperm(4, generator=generator(0))]
        made += [random_in_ball((2, 1, 4, 4), norm, 0.1, rng=generator(0)) for norm in ("linf", "l2")]
        assert torch.zeros(2, device="cpu").device.type == "cpu"
    assert {tensor.device.type for tensor in made} == {"meta"}
    assert torch.zeros(1).device.type == "cpu"


def test_draws_are_those_of_the_cpu() -> None:
    before, after = generator(5), generator(5)
    with following(META):
        torch.rand(7, generator=after)
    torch.rand(7, generator=before)
    assert torch.equal(before.get_state(), after.get_state())


def test_without_following_a_draw_would_be_mixed() -> None:
    x = torch.zeros(2, 1, 4, 4, device=META)
    with pytest.raises(RuntimeError, match=r"same device|meta"):
        gaussian_noise(x, 0.1, rng=generator(0))
    with following(META):
        assert gaussian_noise(x, 0.1, rng=generator(0)).device == META


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_bf16_is_chosen_by_the_flags_of_the_processor(monkeypatch: pytest.MonkeyPatch, flags: dict[str, bool], native: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    bf16_is_native.cache_clear()
    try:
        assert bf16_is_native() is native
        deep = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, 1) for _ in range(3)))
        assert Recipe().autocasts(deep) is native
        assert bf16_is_faster(torch.device("cpu")) is native
    finally:
        bf16_is_native.cache_clear()


@pytest.mark.parametrize("native", [True, False])
def test_an_accelerator_is_asked_itself_and_emulation_does_not_count(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: native or including_emulation)
    assert bf16_is_faster(torch.device("cuda")) is native
