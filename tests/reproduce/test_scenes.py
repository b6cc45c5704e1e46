"""Scenes of a recipe: what is told of an attempt that came to nothing."""

from typing import Any

from modelward.evaluation.cell import Finished
from modelward.evaluation.farm import TheftSpec
from modelward.reproduce.sample_lock_tables import _opened, _tuned, _uses
from modelward.reproduce.scenes import _diverged

SPEC = TheftSpec("ftal", "fine-tuning", {"images": 30, "lr": 0.01, "epochs": 10})
TOLD: dict[str, Any] = {"arch": "resnet8", "configuration": "hardened", "scene": 0}


def test_a_diverged_attempt_has_all_that_tables_ask_of_a_row() -> None:
    row = {**_diverged(SPEC, None), **TOLD}
    assert (row["value"], row["n"], row["flags"]) == (None, 0, ["diverged"])
    assert _tuned([row]) == [["resnet8", "hardened", 30, "0.01", "-", "-", "-", 0]]


def test_training_from_scratch_is_told_beside_an_attempt_that_diverged() -> None:
    alone = Finished("k", [{"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}], None, 1.0)
    row = {**_diverged(SPEC, alone), **TOLD}
    assert _tuned([row]) == [["resnet8", "hardened", 30, "0.01", "-", "0.50 [0.40, 0.60]", "0.50 [0.40, 0.60]", 0]]


def test_a_reference_that_one_variant_lost_is_found_beside_the_other() -> None:
    lost = {**_diverged(SPEC, None), **TOLD, "configuration": "paper"}
    extra = {"images": 30, "fields": dict(SPEC.fields), "from_scratch": 0.5, "from_scratch_ci": [0.4, 0.6]}
    kept = {**lost, **TOLD, "value": 0.7, "n": 100, "ci_low": 0.6, "ci_high": 0.8, "extra": extra}
    assert [line[5] for line in _tuned([lost, kept])] == ["0.50 [0.40, 0.60]"] * 2


def test_what_opens_a_lock_with_labels_stands_beside_training_from_scratch() -> None:
    rate = {"value": 0.7, "n": 100, "ci_low": 0.6, "ci_high": 0.8, "budget": "", **TOLD}
    drawn = {**rate, "metric": "recovered", "attack": "generator from labels", "extra": {}}
    named = {**rate, "metric": "recovered", "attack": "label-remap", "extra": {"from_scratch": 0.3, "from_scratch_ci": [0.2, 0.4]}}
    blind = {**rate, "metric": "recovered", "attack": "wrap-noise", "extra": {}}
    alone = {**rate, "metric": "from_scratch", "attack": "generator from labels", "value": 0.5, "extra": {}}
    found = {line[2]: line[5][:4] for line in _opened([drawn, named, blind, alone, {**alone, "configuration": "paper"}])}
    assert found == {"generator from labels": "0.50", "label-remap": "0.30", "wrap-noise": "-"}


def test_the_papers_claim_heads_the_uses() -> None:
    rate = {"value": 0.1, "n": 100, "attack": "", "budget": "", "extra": {}, **TOLD}
    first, second = _uses([{**rate, "metric": metric} for metric in ("original", "unauthorised", "unauthorised_alone")])
    assert (first[0], first[4]) == ("the paper claims", "1.00 % (SSAT)")
    assert second[6] == second[4] != "-"
