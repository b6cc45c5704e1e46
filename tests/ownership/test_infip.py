"""InFIP: what its statistic sees and does not see, how probes are chosen, its picture, its recipe."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from modelward import InFIP, PushMaps, Store, embedded_model, generator, load_data
from modelward.attacks.theft import FTAL
from modelward.cli.main import main
from modelward.core.catalogue import find
from modelward.core.errors import AccessError, InputError, UsageError
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.suspect import Suspect
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.keys import write_key
from modelward.models import Net, save_model
from modelward.ownership.heatmaps import balanced, nearness
from modelward.report.relevance_sheet import draw_sheet
from modelward.reproduce import reproduce

Nulls = list[Net]


@pytest.fixture(scope="module")
def nulls(parts: Study, train_net: Callable[..., Net]) -> Nulls:
    """Return independent models."""
    return [train_net("cnn:width=4", (parts.owner, parts.attacker)[seed % 2], 50 + seed, epochs=4) for seed in range(12)]


@pytest.fixture(scope="module")
def keys(victim: Net, parts: Study, nulls: Nulls) -> dict[str, Key]:
    """Return a key of each kind."""
    methods = {"hardened": InFIP(count=20), "paper": InFIP(count=20, variant="paper"), "dtd": InFIP(count=20, rules=("dtd",), pool=3)}
    return {name: method.protect(victim, parts.probes, nulls=nulls, rng=generator(0))[1] for name, method in methods.items()}


def statistic(model: nn.Module, key: Key) -> float:
    """Return the statistic of a suspect."""
    return InFIP().verify(model, key).statistic


@pytest.mark.parametrize("name", ["rescale", "permute", "dummy-channels", "shift-logits", "fold-bn"])
def test_the_epsilon_rule_does_not_see_a_change_that_no_answer_shows(name: str, victim: Net, parts: Study, keys: dict[str, Key]) -> None:
    method = find(name).configured({})
    stolen = method.steal(AttackerView.of_model(victim, parts.attacker, labels="none"), rng=generator(1)).model
    assert statistic(stolen, keys["hardened"]) == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("name", ["rescale", "permute", "fold-bn"])
def test_z_plus_does_not_see_neurons_renamed_or_rescaled(name: str, victim: Net, parts: Study, keys: dict[str, Key]) -> None:
    stolen = find(name).configured({}).steal(AttackerView.of_model(victim, parts.attacker, labels="none"), rng=generator(1)).model
    for kind in ("paper", "dtd"):
        assert statistic(stolen, keys[kind]) == pytest.approx(0, abs=2e-3)


def test_z_plus_is_moved_by_neurons_that_cancel(victim: Net, parts: Study, keys: dict[str, Key]) -> None:
    stolen = (
        find("dummy-channels").configured({}).steal(AttackerView.of_model(victim, parts.attacker, labels="none"), rng=generator(1)).model
    )
    assert statistic(stolen, keys["paper"]) > 0.05
    assert statistic(stolen, keys["dtd"]) > 0.05


def test_pushing_moves_the_maps_further_than_tuning(victim: Net, parts: Study, keys: dict[str, Key]) -> None:
    view = AttackerView.of_model(victim, parts.attacker)
    plain = FTAL(epochs=3, batch=32).steal(view, rng=generator(2)).model
    unpushed = PushMaps(epochs=3, batch=32, weight=0).steal(view, rng=generator(2)).model
    pushed = PushMaps(epochs=3, batch=32, weight=10, probes=64, each=16, rule="epsilon").steal(view, rng=generator(2)).model
    tuned, away = (statistic(model, keys["hardened"]) for model in (plain, pushed))
    assert statistic(unpushed, keys["hardened"]) == tuned
    assert away > tuned + 0.1


def test_a_key_can_be_forged_so_it_needs_a_date(victim: Net, keys: dict[str, Key]) -> None:
    verdict = InFIP().verify(victim, keys["paper"])
    assert verdict.access == "weights"
    assert verdict.decision.value == "undecided"
    attacks = InFIP().adaptive_attacks()
    assert all(find(attack.method).configured(dict(attack.settings)) for attack in attacks)
    assert "push-maps" in {attack.method for attack in attacks}


def test_the_control_of_the_last_layer_is_in_the_key(keys: dict[str, Key]) -> None:
    for key in keys.values():
        (score,) = key.facts["random last layer"]
        assert score > 0.02
        assert set(key.facts["by rule"]) == set(key.facts["rules"])


def test_probes_are_chosen_where_the_references_differ(victim: Net, parts: Study, nulls: Nulls) -> None:
    own = torch.randn(1, 3, 4, 4, generator=generator(0))
    others = [
        torch.cat([own[:, :1], -own[:, 1:2], own[:, 2:]], 1) + 0.1 * torch.randn(1, 3, 4, 4, generator=generator(i)) for i in (1, 2, 3)
    ]
    assert int(nearness(own, others).argmin()) in {0, 1, 2}
    chosen, plain = (
        InFIP(count=20, pool=pool, rules=("dtd",)).protect(victim, parts.probes, nulls=nulls, rng=generator(0))[1] for pool in (4, 1)
    )  # fmt: skip
    references = nulls[: InFIP().siblings(len(nulls))]
    means = [np.mean([1 - statistic(model, key) for model in references]) for key in (chosen, plain)]
    assert means[0] < means[1]


def test_classes_take_turns() -> None:
    picked = balanced(torch.tensor([0] * 30 + [1] * 3), torch.arange(33).float(), 8)
    assert torch.bincount((picked >= 30).long()).tolist() == [5, 3]


@pytest.mark.parametrize(("count", "spent"), [(0, 0), (1, 0), (8, 2), (20, 1), (24, 5), (34, 8), (92, 8)])
def test_the_centre_spends_what_the_calibration_can_spare(count: int, spent: int) -> None:
    assert InFIP().siblings(count) == spent
    assert InFIP(variant="paper").siblings(count) == 0


def test_suspects_that_cannot_be_compared_are_one_sentence(
    keys: dict[str, Key], train_net: Callable[..., Net], make_blobs: Callable[..., ImageSet]
) -> None:
    with pytest.raises(AccessError, match="its weights were asked for"):
        InFIP().verify(Suspect.of_answers(torch.zeros(20, dtype=torch.long)), keys["hardened"])
    other = train_net("cnn:width=4", make_blobs(20, 0, side=12), 0, epochs=0)
    with pytest.raises(InputError, match="takes images of shape"):
        InFIP().verify(other, keys["hardened"])
    with pytest.raises(UsageError, match="there is no relevance rule 'gamma'"):
        InFIP(rules=("gamma",))
    with pytest.raises(UsageError, match="rules is a list"):
        InFIP(rules="dtd")


def test_the_sheet_shows_the_worst_and_the_best_probe() -> None:
    rng = np.random.default_rng(0)
    scores, maps = np.linspace(-1, 1, 100), [rng.normal(size=(100, 28, 28)) for _ in range(3)]
    image = Image.open(io.BytesIO(draw_sheet(rng.integers(0, 256, (100, 3, 28, 28), dtype=np.uint8), maps, scores, title="t")))
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert image.size[1] > image.size[0]


def test_the_shell_draws_the_sheet(tmp_path: Path, victim: Net, keys: dict[str, Key], capsys: pytest.CaptureFixture[str]) -> None:
    write_key(tmp_path / "k.mw", keys["paper"])
    save_model(tmp_path / "m.safetensors", victim)
    sheet = tmp_path / "sheet.png"
    code = run_shell("verify", tmp_path / "m.safetensors", "--key", tmp_path / "k.mw", "--sheet", sheet)
    assert code == 3
    assert sheet.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()


def run_shell(*words: Any) -> int:
    """Run a command and return its exit code."""
    try:
        return int(main([str(word) for word in words]) or 0)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.slow
def test_the_recipe_in_smoke(tmp_path: Path, home: Path) -> None:
    document = reproduce("infip", profile="smoke", store=Store(home), jobs=1, out=tmp_path)
    rows = [row for row in document["rows"] if row["metric"] == "cascade"]
    assert {row["configuration"] for row in rows} == {"hardened", "paper"}
    assert rows[0]["value"] == pytest.approx(0, abs=1e-6)
    assert all(row["value"] > 0.05 for row in rows if row["attack"] == "last 5 layers random")
    assert (tmp_path / "infip-smoke.md").read_text(encoding="utf-8").count("Smoke run: not evidence")


def test_a_push_that_diverges_is_tried_again_more_gently() -> None:
    view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(128)))
    result = PushMaps(epochs=2, probes=16, each=8, lr=1e9).run(view, rng=generator(0))
    assert any("tried again" in flag for flag in result.flags)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in result.value.model.state_dict().values() if tensor.is_floating_point())
    with pytest.raises(InputError, match="diverged"):
        PushMaps(epochs=2, probes=16, each=8, lr=1e12).steal(view, rng=generator(0))
