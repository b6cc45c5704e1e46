"""``modelward attack``: what lands in the folder, that it is what the figures say, and what is refused before any work."""

import csv
import json

import pytest
import torch

from modelward import PGD, RandomNoise, embedded_model, load_data
from modelward.audit.attacking import attack_images
from modelward.cli.main import main
from modelward.core.guard import predict
from modelward.io.images import read_image

RUN = ["attack", "pgd", "--set", "eps=8/255", "--set", "steps=5", "--count", "48", "--quiet"]


def read_csv(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_the_folder_holds_what_the_figures_say(tmp_path, capsys):
    assert main([*RUN, "--out", str(tmp_path)]) == 0
    assert "random noise of equal size" in capsys.readouterr().out
    pixels = torch.stack([torch.tensor(read_image(path)) for path in sorted((tmp_path / "images").glob("*.png"))])
    clean = load_data("fashion-mini").test.few(48)
    answers = [int(line["label"]) for line in read_csv(tmp_path / "answers.csv")]
    assert predict(embedded_model().model, pixels).argmax(1).tolist() == answers
    assert 0 < int((pixels.int() - clean.pixels.int()).abs().max()) <= 8
    facts = json.loads((tmp_path / "attack.json").read_text())
    rows = {row["attack"]: row for row in facts["rows"] if row["metric"] == "accuracy"}
    right = sum(a == b for a, b in zip(answers, clean.labels.tolist(), strict=True))
    assert rows["pgd"]["value"] == right / 48
    assert rows["pgd"]["value"] < rows["noise"]["value"] - 0.2
    samples = read_csv(tmp_path / "samples.csv")
    assert [int(line["truth"]) for line in samples] == clean.labels.tolist()
    assert max(float(line["linf"]) for line in samples) <= 8 / 255 + 1e-6


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        assert main([*RUN, "--out", str(tmp_path / name), "--seed", "3"]) == 0
    for path in sorted((tmp_path / "a").rglob("*.*")):
        if path.suffix in {".png", ".csv"}:
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_targeted_attack_reports_the_target(tmp_path, capsys):
    assert main([*RUN, "--set", "targeted=true", "--out", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["n"] for row in rows if row["metric"] == "target_reached"] == [48]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_noise_beside_it_has_the_size_of_the_change(norm):
    images = load_data("fashion-mini").test.few(32)
    found = attack_images(RandomNoise(norm=norm, eps=0.5), embedded_model().model, images, seed=1)
    assert abs(int((found.after == images.labels).sum()) - int((found.after_noise == images.labels).sum())) <= 6
    strong = attack_images(PGD(norm=norm, eps=0.5 if norm == "linf" else 4.0, step=0.1), embedded_model().model, images, seed=1)
    assert int((strong.after == images.labels).sum()) == 0 < int((strong.after_noise == images.labels).sum())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["attack", "pgd"], 4, "--out DIR"),
        (["attack", "pdg", "--out", "OUT"], 4, "did you mean 'pgd'"),
        (["attack", "ftal", "--out", "OUT"], 4, "not evasion"),
        (["attack", "pgd", "--set", "steps=many", "--out", "OUT"], 4, "steps is int"),
        (["attack", "pgd", "--set", "norm=l9", "--out", "OUT"], 4, "l9"),
        (["attack", "pgd", "--data", "nowhere", "--out", "OUT"], 4, "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, code, words):
    assert main([str(tmp_path / "x") if a == "OUT" else a for a in arguments]) == code
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told


def test_a_folder_with_images_is_refused_before_the_attack(tmp_path, capsys, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"")
    monkeypatch.setattr(PGD, "run", lambda *_a, **_k: pytest.fail("it attacked"))
    assert main([*RUN, "--out", str(tmp_path)]) == 2
    assert "holds images already" in capsys.readouterr().err
