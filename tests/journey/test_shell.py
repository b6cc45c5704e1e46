"""One user's way through the shell on real data: audit, protect, verify by weights and by answers, and the same again from the store."""

import json
import os
import re

import pytest
import torch

from modelward import FTAL, AttackerView, Recipe, Suspect, build, embedded_model, fit, generator, load_data, save_model, study
from modelward.core.guard import predict
from modelward.core.verdict import Misses
from modelward.io.images import read_image


@pytest.fixture(scope="module")
def suspects(tmp_path_factory):
    """Return files of a thief and of an independent model."""
    folder = tmp_path_factory.mktemp("suspects")
    model, data = embedded_model().model, study(load_data("fashion-mini"))
    thief = FTAL().steal(AttackerView(Suspect.of_model(model), data.attacker), rng=generator(1)).model
    stranger = build("lenet5", classes=10, rng=generator(7))
    fit(stranger, data.attacker.pixels, data.attacker.labels, Recipe(epochs=15, lr=0.05, batch=64), rng=generator(8))
    save_model(folder / "thief.safetensors", thief)
    save_model(folder / "stranger.safetensors", stranger)
    return folder


@pytest.fixture(scope="module")
def key(tmp_path_factory, quick_siblings):  # noqa: ARG001  # trained before it is read
    """Return a key of the embedded model with nineteen siblings, whose file says how to train them."""
    from modelward.cli.main import main

    path = tmp_path_factory.mktemp("keys") / "owner.mw"
    assert main(["protect", "sac-jc", "--calibrate", "quick", "--jobs", "1", "--out-key", str(path), "--quiet"]) == 0
    return path


@pytest.mark.slow
def test_weights_of_a_thief_and_of_a_stranger(modelward, key, suspects):
    stolen = modelward("verify", suspects / "thief.safetensors", "--key", key, "--json")
    found = json.loads(stolen.out)
    assert (stolen.code, found["decision"], found["strength"]) == (1, "related", "weak")
    assert (found["p_value"], found["draws"], found["misses"]["tried"]) == (0.05, 19, 20)
    assert found["statistic"] < found["threshold"]
    free = modelward("verify", suspects / "stranger.safetensors", "--key", key, "--json")
    told = json.loads(free.out)
    assert told["p_value"] > 0.05
    known = Misses(**told["misses"]).bound <= 0.25
    assert (free.code, told["decision"]) == ((0, "not stolen") if known else (3, "undecided"))
    assert (key.stat().st_mode & 0o777) == 0o600 or os.name == "nt"


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["probabilities", "rounded", "labels"])
def test_answers_of_a_service(modelward, key, suspects, tmp_path, answer):
    assert modelward("probes", key, "--out", tmp_path / "probes").code == 0
    files = sorted((tmp_path / "probes").glob("*.png"))
    pixels = torch.stack([torch.tensor(read_image(file)) for file in files])
    facts = json.loads((tmp_path / "probes" / "probes.json").read_text())
    assert len(files) == len(facts["order"]) == len(pixels) <= 1000
    from modelward import load_model

    for name, codes in (("thief", {1}), ("stranger", {0, 3})):
        probabilities = predict(load_model(suspects / f"{name}.safetensors").model, pixels).softmax(1)
        lines = ["file,label"] if answer == "labels" else ["file," + ",".join(f"p{k}" for k in range(10))]
        for file, row in zip(files, probabilities.tolist(), strict=True):
            values = (
                [str(max(range(10), key=row.__getitem__))]
                if answer == "labels"
                else [f"{p:.{4 if answer == 'rounded' else 9}f}" for p in row]
            )
            lines.append(",".join([file.name, *values]))
        (tmp_path / "answers.csv").write_text("\n".join(lines))
        found = modelward("verify", tmp_path / "answers.csv", "--key", key)
        assert found.code in codes, (answer, name, found.out, found.err)


FEW = """
version: 1
profile: smoke
images: 32
evasion:
  - {method: pgd, eps: [8/255]}
  - {method: noise, eps: [8/255]}
corruptions: [jpeg]
theft:
  - {method: prune}
ownership: [{method: sac-jc}]
"""


@pytest.mark.slow
def test_an_audit_writes_its_report_and_computes_nothing_the_second_time(modelward, tmp_path):
    dry = modelward("audit", "--profile", "smoke", "--dry-run")
    assert dry.code == 0
    assert re.search(r"\d+ cells", dry.out + dry.err)
    assert not list(tmp_path.iterdir())
    plan = tmp_path / "plan.yaml"
    plan.write_text(FEW)
    first = modelward("audit", "--plan", plan, "--jobs", 1, "--out", tmp_path / "a")
    assert first.code in {0, 1}, first.err
    assert str(tmp_path / "a" / "report.html") in (first.out + first.err).replace("\n", "")
    again = modelward("audit", "--plan", plan, "--jobs", 1, "--out", tmp_path / "b", "--json")
    shown = json.loads(again.out)
    one, two = (json.loads((tmp_path / name / "report.json").read_text()) for name in "ab")
    rows = [[row | {"command": ""} for s in document["sections"][:-1] for row in s["rows"]] for document in (one, two)]
    assert rows[0] == rows[1]
    assert two["cost"]["cached"] == two["cost"]["cells"]
    assert shown["schema"].startswith("modelward/")
    assert {s["id"] for s in one["sections"]} == {"intake", "clean", "evasion", "corruption", "theft", "fingerprint", "cost"}
    assert all(s["not_tested"] for s in one["sections"])
    page = (tmp_path / "a" / "report.html").read_text()
    assert len(page) < 5_000_000
    assert "smoke" in page


@pytest.mark.slow
def test_a_smoke_reproduction_says_that_it_is_no_evidence(modelward, tmp_path):
    found = modelward("reproduce", "sac-jc", "--profile", "smoke", "--jobs", 1, "--out", tmp_path)
    assert found.code == 0, found.err
    text = (tmp_path / "sac-jc-smoke.md").read_text()
    assert "not evidence" in text
    document = json.loads((tmp_path / "sac-jc-smoke.json").read_text())
    assert document["anchors"] == {"distance": 0.076824, "halved": 0.038412}
    assert {"metric", "value", "n", "ci_low", "ci_high", "seed", "command"} <= set(document["rows"][0])
