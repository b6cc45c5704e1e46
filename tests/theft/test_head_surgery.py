"""Surgery on heads: what is dropped, merged or read anew, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from modelward.attacks.theft import HeadSurgery
from modelward.core.errors import UsageError
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.marking.heads import drop_outputs, widen_head
from modelward.models import Net
from modelward.models.assembly import pack, unpack


@pytest.fixture(scope="module")
def wide(victim: Net) -> torch.nn.Module:
    """Return the victim with two further outputs that often win."""
    made = widen_head(victim, 2, rng=generator(0))
    with torch.no_grad():
        dict(made.named_modules())["body.14"].bias[3:] += 3.0
    return made.eval()


def test_dropped_outputs_are_gone_and_the_others_stay(wide: torch.nn.Module, parts: Study) -> None:
    theft = HeadSurgery().steal(AttackerView.of_model(wide, parts.attacker, labels="none"), rng=generator(0))
    assert theft.log["dropped"] == 2
    assert torch.allclose(predict(theft.model, parts.test.pixels), predict(wide, parts.test.pixels)[:, :3], atol=1e-6)


@pytest.mark.parametrize("into", [None, 2])
def test_merged_outputs_give_their_probability_to_one_class(wide: torch.nn.Module, parts: Study, into: int | None) -> None:
    theft = HeadSurgery(how="merge", into=into).steal(AttackerView.of_model(wide, parts.attacker, labels="none"), rng=generator(0))
    before, after = (predict(net, parts.test.pixels).softmax(1) for net in (wide, theft.model))
    expected = before[:, :3].clone()
    expected[:, theft.log["into"]] += before[:, 3:].sum(1)
    assert torch.allclose(after, expected, atol=1e-5)
    assert into is None or theft.log["into"] == into
    again = unpack(*pack(theft.model))
    assert torch.equal(predict(again, parts.test.pixels), predict(theft.model, parts.test.pixels))


def test_a_remap_mends_a_head_whose_classes_were_swapped(victim: Net, parts: Study) -> None:
    swapped = drop_outputs(victim, [1, 2, 0])

    def right(model: torch.nn.Module) -> float:
        return float((predict(model, parts.test.pixels).argmax(1) == parts.test.labels).double().mean())

    mended = HeadSurgery(how="remap", lr=0.1).steal(AttackerView.of_model(swapped, parts.attacker), rng=generator(0))
    assert right(swapped) < 0.2
    assert right(mended.model) >= right(victim) - 0.05
    assert mended.log["images"] == 40


def test_a_head_without_further_outputs_answers_as_before(victim: Net, parts: Study) -> None:
    for how in ("drop", "merge"):
        theft = HeadSurgery(how=how).steal(AttackerView.of_model(victim, parts.attacker, labels="none"), rng=generator(0))
        assert theft.log["dropped"] == 0
        assert torch.allclose(predict(theft.model, parts.test.pixels), predict(victim, parts.test.pixels), atol=1e-6)


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"how": "cut"}, {"into": -1}, {"images": 0}, {"steps": 0}, {"lr": 0.0}):
        with pytest.raises(UsageError, match=f"head-surgery: {next(iter(wrong))} must be"):
            HeadSurgery(**wrong)
