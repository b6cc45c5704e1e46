"""InFIP: what its statistic sees and does not see, how probes are chosen, its picture, its recipe."""

from __future__ import annotations

import dataclasses
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
from modelward.core.siblings import Siblings
from modelward.core.suspect import Suspect
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.keys import write_key
from modelward.models import Net, save_model
from modelward.ownership.heatmaps import alike_among, balanced
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
    family = Siblings(models=tuple(nulls[:8]))
    return {
        name: method.protect(victim, parts.probes, siblings=family, nulls=nulls[8:], rng=generator(0))[1]
        for name, method in methods.items()
    }


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
    assert away > 1.4 * tuned > 0.05


def test_a_key_can_be_forged_so_it_needs_a_date(victim: Net, keys: dict[str, Key]) -> None:
    verdict = InFIP().verify(victim, keys["paper"])
    assert verdict.access == "weights"
    assert verdict.decision.value == "undecided"
    attacks = InFIP().adaptive_attacks()
    assert all(find(attack.method).configured(dict(attack.settings)) for attack in attacks)
    assert "push-maps" in {attack.method for attack in attacks}


def test_the_control_of_the_last_layer_is_in_the_key(victim: Net, keys: dict[str, Key]) -> None:
    for key in keys.values():
        assert key.facts["random last layer"] in {place / 9 for place in range(1, 10)}  # the owner's rank among nine
        assert set(key.facts["by rule"]) == set(key.facts["rules"])
        assert all(len(scores["nulls"]) == 4 for scores in key.facts["by rule"].values())
        told = dataclasses.replace(key, facts={**key.facts, "random last layer": 0.05})
        for one, faithless in ((key, False), (told, True)):
            caveats = InFIP().verify(victim, one).caveats
            assert any("random last layer would be claimed as well" in text for text in caveats) == faithless


def test_a_ceiling_of_null_models_takes_claims_away_and_makes_none(victim: Net, parts: Study, nulls: Nulls, keys: dict[str, Key]) -> None:
    key = keys["hardened"]
    found, limit = InFIP().verify(victim, key), key.facts["ceiling"]
    assert 0 < limit < min(np.mean([rule["nulls"] for rule in key.facts["by rule"].values()], 0))
    assert found.parametric_p is not None
    assert found.parametric_p < 5e-3
    bare = InFIP(count=20).protect(victim, parts.probes, siblings=nulls[:8], rng=generator(0))[1]
    assert bare.facts["ceiling"] is None
    assert InFIP().verify(victim, bare).parametric_p is None
    assert [InFIP().verify(victim, one).draws for one in (key, bare)] == [8, 8]


def test_probes_are_chosen_where_the_maps_of_the_candidates_differ(victim: Net, parts: Study, nulls: Nulls) -> None:
    def apart(pool: int) -> float:
        key = InFIP(count=20, pool=pool, rules=("dtd",)).protect(victim, parts.probes, siblings=nulls[:4], rng=generator(0))[1]
        maps = key.tensors["maps"].double()
        return float((maps - maps.mean(0)).flatten(3).norm(dim=3).mean())

    assert apart(4) > apart(1)


def test_probes_and_classes_are_those_of_most_candidates(parts: Study, nulls: Nulls) -> None:
    keys = [
        InFIP(count=20).protect(one, parts.probes, siblings=[net for net in nulls[:4] if net is not one], rng=generator(0))[1]
        for one in nulls[:4]
    ]
    for key in keys[1:]:  # whose role is the owner's changes nothing that is asked
        for name in ("probes", "labels", "maps"):
            assert torch.equal(key.tensors[name], keys[0].tensors[name])


def test_likeness_is_the_same_in_whatever_order_the_candidates_stand() -> None:
    maps = torch.randn(5, 2, 20, 6, 6, generator=generator(0))
    other = maps[1] + 0.5 * torch.randn(2, 20, 6, 6, generator=generator(1))
    order = torch.tensor([3, 1, 4, 0, 2])
    for paper in (False, True):
        plain = alike_among(other, maps, paper=paper)
        assert plain.shape == (5, 2, 20)
        assert torch.allclose(alike_among(other, maps[order], paper=paper), plain[order], atol=1e-12)
        assert int(plain.mean((1, 2)).argmax()) == 1


def test_classes_take_turns() -> None:
    picked = balanced(torch.tensor([0] * 30 + [1] * 3), torch.arange(33).float(), 8)
    assert torch.bincount((picked >= 30).long()).tolist() == [5, 3]


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
