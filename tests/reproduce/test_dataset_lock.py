"""The recipe of the dataset lock: a smoke run measures every figure, gates tell good rows from bad ones, and its thieves do what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.evaluation.rows import rate
from modelward.evaluation.store import Store
from modelward.reproduce.dataset_lock import dataset_lock
from modelward.reproduce.dataset_lock_tables import gates
from modelward.reproduce.dataset_lock_thieves import _without_means
from modelward.reproduce.render import rendered
from modelward.reproduce.tables import markdown


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return dataset_lock(profile="smoke", seed=0, store=Store(), jobs=1, command="modelward reproduce dataset-lock --profile smoke")


@pytest.mark.slow
def test_a_smoke_run_measures_every_figure(found: dict[str, Any]) -> None:
    captions = {caption: body for caption, _, body in found["tables"]}
    assert len(captions) == 5
    assert "not evidence" in found["paragraphs"][0]
    assert not [text for text in found["paragraphs"] if text.startswith("Not run")]
    metrics = {row["metric"] for row in found["rows"]}
    assert {"original", "unauthorised", "authorised", "recovered", "control", "recovered_images", "psnr"} <= metrics
    back = [row for row in found["rows"] if row["metric"] == "recovered_images"]
    assert [row["value"] for row in back] == [1.0] * 3
    same = next(line for line in captions["Gates"] if "same weights" in line[0])
    assert same[-1] == "yes"
    assert [line[1] for line in next(iter(body for caption, body in captions.items() if caption.startswith("Accuracy on clean")))[:2]] == [
        "the paper claims"
    ] * 2
    assert {line[0] for line in captions["What a thief tries"]} == {"chosen", "eps 32", "random guides"}
    assert rendered({**found, "name": "dataset-lock"})["tables"] == found["tables"]
    mixed = next(row for row in found["rows"] if row["budget"])
    assert 0 < mixed["extra"]["from_scratch"] < 1
    assert "| data | victim | seed | clean | locked |" in markdown(
        {**found, "environment": {}, "command": "x", "seconds": 1, "created": "now"}
    )


@pytest.mark.slow
def test_noise_is_as_large_as_the_lock(found: dict[str, Any]) -> None:
    psnr = {row["configuration"]: row["value"] for row in found["rows"] if row["metric"] == "psnr"}
    assert psnr["noise"] == pytest.approx(psnr["chosen"], abs=2.5)  # pixels at the ends of the range take half of it
    assert psnr["shuffled"] == pytest.approx(psnr["chosen"], abs=2.5)


def rows_of(locked: int, noise: int, back: int, state: str) -> list[dict[str, Any]]:
    """Return rows of one victim with these hits of 100."""
    made = [
        ("clean", rate("original", 85, 100, extra={"state": "a"})), ("chosen", rate("unauthorised", locked, 100)),
        ("noise", rate("control", noise, 100)), ("unlocked", rate("authorised", 85, 100, extra={"state": state})),
        ("chosen", rate("recovered_images", back, 100)), ("chosen", rate("psnr", 100, 100)),
    ]  # fmt: skip
    said = {"task": "toy", "victim": "lenet5", "scene": 0}
    return [{**row.as_json(), **said, "configuration": name, **({"value": 24.5} if row.metric == "psnr" else {})} for name, row in made]


def test_gates_are_met_by_good_rows_alone() -> None:
    assert {line[-1] for line in gates(rows_of(55, 80, 100, "a"))} == {"yes"}
    failed = [line[0] for line in gates(rows_of(56, 79, 99, "b")) if line[-1] != "yes"]
    assert len(failed) == 4


def test_shifts_that_a_class_has_in_common_are_found_by_their_edges() -> None:
    rng = generator(0)
    smooth = torch.nn.functional.interpolate(torch.rand(200, 1, 3, 3, generator=rng) * 60 + 90, size=(16, 16), mode="bicubic")
    shifts = torch.randint(-1, 2, (1, 1, 4, 4), generator=rng).float() * 16
    shifts -= shifts.mean()
    moved = (smooth + shifts.repeat_interleave(4, 2).repeat_interleave(4, 3)).round().clamp(0, 255).to(torch.uint8)
    images = ImageSet(moved, torch.zeros(200, dtype=torch.int64), ("one",), "toy")
    before, after = ((pixels.float() - smooth).square().mean().sqrt() for pixels in (moved, _without_means(images, 4)))
    assert after < 0.35 * before
