"""``modelward steal``: the copy loads, is what the figures say, carries its lineage; what is refused before any work."""

import json

import pytest

from modelward import load_data, load_model, study
from modelward.cli.main import main
from modelward.core.guard import predict

SMOKE = ["--profile", "smoke", "--quiet"]


def test_a_copy_with_its_lineage(tmp_path, capsys):
    path = tmp_path / "copy.safetensors"
    assert main(["steal", "ftal", "--set", "epochs=1", "--out-model", str(path), *SMOKE, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "modelward/theft"
    copy = load_model(path)
    lineage = json.loads(copy.facts["lineage"])
    assert lineage == told["lineage"]
    assert lineage["method"] == "ftal"
    test = study(load_data("fashion-mini"), seed=0).test.few(600)
    accuracy = float((predict(copy.model, test.pixels).argmax(1) == test.labels).float().mean())
    assert accuracy == pytest.approx(told["rows"][0]["value"])
    assert told["rows"][0]["value"] > told["reference"]["value"] + 0.1
    assert main(["verify", str(path), "--key", str(tmp_path / "none.mw")]) != 0


def test_extraction_by_labels_counts_its_queries(tmp_path, capsys):
    arguments = ["steal", "extract-l", "--thief-arch", "mlp:width=16", "--set", "epochs=1", "--out-model", str(tmp_path / "c.safetensors")]
    assert main([*arguments, *SMOKE]) == 0
    assert "600 queries" in capsys.readouterr().out
    assert load_model(tmp_path / "c.safetensors").arch == "mlp:width=16"


def test_a_dry_run_steals_nothing(tmp_path, capsys):
    assert main(["steal", "ftal", "--out-model", str(tmp_path / "c.safetensors"), *SMOKE, "--dry-run"]) == 0
    assert "Nothing was run" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pgd"], "not theft"), (["fatl"], "did you mean"), (["ftal", "--labels", "none"], "labels of ftal"), (["ftal", "--set", "epoch=1"], "'epochs'"),
        (["ftal", "--thief-arch", "resnet7"], "did you mean 'resnet8'"), (["ftal", "--set", "epochs=many"], "epochs is int"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, words):
    assert main(["steal", *arguments, "--out-model", str(tmp_path / "c.safetensors"), *SMOKE]) == 4
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
    assert main(["steal", "ftal", "--out-model", str(tmp_path / "no" / "c.safetensors"), *SMOKE]) == 4
