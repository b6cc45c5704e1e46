"""A mark that changes a layer's histogram is seen, one that does not is not, and clean models are seen as often as chance says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.evaluation.stealth import kolmogorov_smirnov, marked_layers, oddness, weight_stealth
from modelward.models import build
from modelward.report.matrix import summary
from modelward.report.measures import shown

samples = st.lists(st.floats(-5, 5), min_size=1, max_size=30).map(np.array)


@settings(deadline=None)
@given(first=samples, second=samples)
def test_the_distance_is_its_definition(first: np.ndarray, second: np.ndarray) -> None:
    slow = max(abs(float((first <= x).mean()) - float((second <= x).mean())) for x in [*first, *second])
    assert kolmogorov_smirnov(first, second) == pytest.approx(slow)


def test_clean_models_have_every_rank_alike() -> None:
    rng = np.random.default_rng(0)
    ps = [oddness(rng.normal(size=60), [rng.normal(size=60) for _ in range(9)])[1] for _ in range(200)]
    assert np.mean(np.array(ps) <= 0.1) == pytest.approx(0.1, abs=4 * (0.09 / 200) ** 0.5)
    assert np.mean(np.array(ps) <= 0.5) == pytest.approx(0.5, abs=4 * (0.25 / 200) ** 0.5)


def nets(count: int) -> list[torch.nn.Module]:
    return [build("lenet5:width=3", classes=10, channels=1, size=(28, 28), rng=generator(i)) for i in range(count)]


def test_a_loud_layer_is_seen_and_the_others_are_not() -> None:
    model, *clean = nets(20)
    key = Key("uchida", "paper", "", {"layer": "body.3"})
    quiet = weight_stealth(model, key, clean)[0]
    with torch.no_grad():
        dict(model.named_modules())["body.3"].weight.mul_(3)
    (loud,) = weight_stealth(model, key, [*clean, build("mlp:width=8", classes=10, channels=1, size=(28, 28), rng=generator(0))])
    assert (loud.value, loud.n, loud.unit) == (1 / 20, 19, "p")  # the stranger's layers are others: it counts for nothing
    assert quiet.value > loud.value
    assert loud.extra["layers"]["body.3"]["distance"] > quiet.extra["layers"]["body.3"]["distance"]
    assert loud.extra["least_unmarked_p"] == quiet.extra["least_unmarked_p"] == min(one["p"] for one in loud.extra["unmarked"].values())
    assert "body.3" not in loud.extra["unmarked"]


def test_what_is_not_in_weights_or_has_no_models_beside_it_has_no_row() -> None:
    model, *clean = nets(5)
    assert marked_layers(Key("zhang", "paper", "", {"target": 3})) == []
    assert weight_stealth(model, Key("zhang", "paper", "", {}), clean) == []
    assert weight_stealth(model, Key("uchida", "paper", "", {"layer": "body.3"}), clean[:2]) == []


def test_the_column_tells_weights_and_key_images_apart() -> None:
    common = {"variant": "paper", "attack": "", "n": 9, "flags": [], "seconds": 0.0}
    rows = [
        {**common, "method": "a", "metric": "verification", "value": 0.0, "extra": {"matches": True}},
        {**common, "method": "a", "metric": "stealth", "value": 0.05, "unit": "p", "extra": {"least_unmarked_p": 0.35}},
        {**common, "method": "b", "metric": "verification", "value": 0.0, "extra": {"matches": True}},
        {**common, "method": "b", "metric": "key_image_auc", "value": 0.914, "unit": "auc", "extra": {}},
    ]
    told = [shown("stealth", row["measures"]["stealth"]) for row in summary(rows)["rows"]]
    assert told == ["p 0.05, other layers 0.35", "AUC 0.91"]
