"""Quantised models: what must change their weights says in one sentence that it cannot, what asks them works."""

import warnings

import pytest
import torch
from torch import nn

from modelward import AdvParams, Zhang, embedded_model, generator, load_data
from modelward.core.errors import InputError
from modelward.core.guard import require_finite
from modelward.core.suspect import Suspect


@pytest.fixture(scope="module")
def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.ao.quantization.quantize_dynamic(embedded_model().model, {nn.Linear}, dtype=torch.qint8)
        return made


def test_a_quantised_model_is_neither_marked_nor_locked(quantised: nn.Module) -> None:
    data = load_data("fashion-mini").test.take(slice(40))
    for work in (Zhang().protect, AdvParams().lock, lambda model, *_, **__: require_finite(model)):
        with pytest.raises(InputError, match="quantised; pass the floating-point model"):
            work(quantised, data, secret=bytes(32), rng=generator(0))


def test_a_quantised_suspect_is_asked_like_any_other(quantised: nn.Module) -> None:
    source, data = embedded_model().model, load_data("fashion-mini").test.take(slice(200))
    key = Zhang().claim(source, data, secret=bytes(32), nulls=[source], rng=generator(0))
    asked, same = (Zhang().verify(Suspect.of_model(model), key).statistic for model in (quantised, source))
    assert asked == pytest.approx(same, abs=0.05)
