"""Scenes of a recipe: what is told of an attempt that came to nothing."""

from modelward.evaluation.farm import TheftSpec
from modelward.reproduce.sample_lock_tables import _tuned
from modelward.reproduce.scenes import _diverged


def test_a_diverged_attempt_has_all_that_tables_ask_of_a_row() -> None:
    spec = TheftSpec("ftal", "fine-tuning", {"images": 30, "lr": 0.01, "epochs": 10})
    row = {**_diverged(spec), "arch": "resnet8", "configuration": "hardened", "scene": 0}
    assert (row["value"], row["n"], row["flags"]) == (None, 0, ["diverged"])
    assert _tuned([row]) == [["resnet8", "hardened", 30, "0.01", "-", "-", 0]]
