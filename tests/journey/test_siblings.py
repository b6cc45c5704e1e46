"""An owner with a net and a training script of his own: siblings, a key, a thief and a stranger, and evidence that somebody else checks."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelward.cli.main import main
from modelward.core import consent
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.io.safetensors import save_tensors
from modelward.keys import read_key
from modelward.models import load_model
from modelward.training import Recipe, fit

CODE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, 3))

def train(images, labels, seed, epochs=10):
    model = net()
    steps = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(epochs):
        steps.param_groups[0]["lr"] = 0.05 * (1 - epoch / epochs)
        for batch in torch.randperm(len(images)).split(32):
            steps.zero_grad()
            nn.functional.cross_entropy(model(images[batch].float() / 255), labels[batch]).backward()
            steps.step()
    return model
"""
TODAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(2)  # of the commitment: the suspect was seen a day later, and not in days to come
LATER, EARLIER = (TODAY + dt.timedelta(1)).isoformat(), (TODAY - dt.timedelta(400)).isoformat()


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str


def write(path: Path, images: ImageSet, test: ImageSet | None = None) -> None:
    """Write images as a file that the shell reads."""
    parts = {"x_train": images, "x_test": test} if test else {"x": images}
    arrays = {name: part.pixels.permute(0, 2, 3, 1).numpy() for name, part in parts.items()}
    np.savez(path, **arrays, **{name.replace("x", "y"): part.labels.numpy() for name, part in parts.items()})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, hard: Study, make_blobs: Callable[..., ImageSet]) -> Iterator[Path]:
    """Return a folder with the owner's script, images and model, a thief's and a stranger's model, as the current one."""
    made = tmp_path_factory.mktemp("owner")
    with pytest.MonkeyPatch.context() as then:
        then.chdir(made)
        then.setattr(consent, "_given", {"ownnet:net"})
        (made / "ownnet.py").write_text(CODE)
        then.syspath_prepend(str(made))
        import ownnet  # type: ignore[import-not-found]

        write(made / "trained.npz", hard.owner)
        write(made / "heldout.npz", hard.attacker, make_blobs(600, 14, noise=90))
        from modelward.data import load_data

        torch.manual_seed(11)
        exact = load_data("trained.npz")
        pixels, labels = (torch.cat([getattr(part, name) for part in (exact.train, exact.test)]) for name in ("pixels", "labels"))
        model = ownnet.train(pixels, labels, 11)
        save_tensors(made / "model.safetensors", model.state_dict())
        thief = load_model(made / "model.safetensors", "ownnet:net", like=(3, 8, 8)).model
        fit(thief, hard.attacker.pixels, hard.attacker.labels, Recipe(epochs=2, batch=32, lr=0.01, precision="fp32"), rng=generator(3))
        save_tensors(made / "thief.safetensors", thief.body.state_dict())
        torch.manual_seed(12)
        save_tensors(made / "stranger.safetensors", ownnet.train(hard.attacker.pixels, hard.attacker.labels, 12).state_dict())
        sys.modules.pop("ownnet")
        then.setattr(sys, "path", [entry for entry in sys.path if entry != str(made)])
        yield made
    sys.modules.pop("ownnet", None)


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Return a function that runs a command line in the owner's folder."""
    del folder

    def ran(*words: Any) -> Answer:
        code = main([str(word) for word in words])
        found = capsys.readouterr()
        assert "Traceback" not in found.out + found.err
        return Answer(code, found.out, " ".join(found.err.split()))

    return ran


GIVEN = (
    "--model",
    "model.safetensors",
    "--arch",
    "ownnet:net",
    "--size",
    "8,8",
    "--data",
    "heldout.npz",
    "--set",
    "count=100",
    "--jobs",
    "1",
)
TRAIN = ("--train", "ownnet:train", "--siblings", "19", "--trained-on", "trained.npz")


@pytest.fixture
def key(folder: Path, run: Callable[..., Answer]) -> Path:
    """Return the owner's key, with its siblings trained by his own script; made once."""
    path = folder / "owner.mw"
    if not path.exists():
        found = run("protect", "sac-jc", *GIVEN, *TRAIN, "--base", "none", "--no-thieves", "--out-key", path, "--json")
        assert found.code == 0, found.err
    return path


def test_the_key_says_what_its_draws_are(key: Path) -> None:
    draws = read_key(key).facts["draws"]
    assert (draws["of"], draws["origin"], draws["start"], draws["root"], draws["failed"]) == ("siblings", "code", "none", None, [])
    members = draws["members"]
    assert len(members) == 20
    assert len({member["digest"] for member in members}) == 20
    assert [member["digest"] for member in members] == sorted(member["digest"] for member in members)
    assert members[draws["own"]]["seed"] is None
    assert len({member["seed"] for member in members}) == 20
    assert draws["thieves"] == {}
    assert draws["images"] != read_key(key).facts["parts"]["owner"]


def test_a_thief_is_related_and_with_an_older_commitment_stolen(key: Path, run: Callable[..., Answer]) -> None:
    ask = ("verify", "thief.safetensors", "--arch", "ownnet:net", "--key", key)
    found = run(*ask)
    assert found.code == 1, found.out
    words = " ".join(found.out.split())
    assert words.startswith(
        "RELATED (weak evidence): thief.safetensors and the model behind owner.mw: one was made from the other, or both from a third."
    )
    assert "By the owner's word training began at weights drawn anew" in words
    assert "none of 19 siblings of the owner's model is as close" in words
    assert "a commitment shows whose date is older" in words
    assert run("commit", key, "--out", "c.json").code == 0
    undated = json.loads(run(*ask, "--commitment", "c.json", "--released", LATER, "--json").out)
    assert undated["decision"] == "related"
    dated = run("commit", key, "--out", "c.json", "--publication", "Gazette 12", "--published", TODAY.isoformat())
    assert dated.code == 0, dated.err
    assert json.loads(run(*ask, "--commitment", "c.json", "--json").out)["decision"] == "related"  # nobody said when the suspect was seen
    for released, decision in ((LATER, "stolen"), (EARLIER, "related")):
        found = run(*ask, "--commitment", "c.json", "--released", released, "--json")
        told = json.loads(found.out)
        assert (found.code, told["decision"], told["strength"], told["draws"]) == (1, decision, "weak", 19)
        assert told["p_value"] == 0.05
        assert told["version"] == 2


def test_a_stranger_is_not_accused_and_without_tried_thefts_not_cleared(key: Path, run: Callable[..., Answer]) -> None:
    found = run("verify", "stranger.safetensors", "--arch", "ownnet:net", "--key", key, "--json")
    told = json.loads(found.out)
    assert (found.code, told["decision"]) == (3, "undecided")
    assert told["p_value"] > 0.05
    assert "0 thieves of this access level were tried at enrolment, 14 are needed" in told["caveats"][0]


def test_the_model_itself_says_nothing_of_whose_it_is(key: Path, run: Callable[..., Answer]) -> None:
    found = run("verify", "model.safetensors", "--arch", "ownnet:net", "--key", key, "--json")
    assert found.code == 3
    assert json.loads(found.out)["caveats"][0].startswith("The suspect is the very model that the key names")


@pytest.fixture
def bundle(folder: Path, key: Path, run: Callable[..., Answer]) -> str:
    """Return the evidence against the thief, made once."""
    if not (folder / "thief.bundle").exists():
        assert run("evidence", "keygen", "--out", "again.pem").code == 0
        found = run(
            "verify", "thief.safetensors", "--arch", "ownnet:net", "--key", key, "--evidence", "thief.bundle", "--signing-key", "again.pem"
        )
        assert found.code == 1, found.err
    return "thief.bundle"


AGAIN = (
    "--retrain",
    "2",
    "--model",
    "model.safetensors",
    "--arch",
    "ownnet:net",
    "--trained-on",
    "trained.npz",
    "--base",
    "none",
    "--jobs",
    "1",
)


def test_whoever_checks_trains_siblings_anew(bundle: str, run: Callable[..., Answer]) -> None:
    found = run("evidence", "check", bundle, "--trusted-key", "again.pub.pem", *AGAIN, "--train", "ownnet:train", "--json")
    told = json.loads(found.out)["verdict"]
    assert (found.code, told["decision"]) == (1, "related")
    first = told["headlines"][0]
    assert first.startswith("2 siblings were trained anew by the code that the key names: 2 have the weights that the key names.")
    assert "What the other 17 siblings are is the owner's figure" in first
    assert "--seed 0, which the claimant could foresee" in first
    mine = run("evidence", "check", bundle, "--trusted-key", "again.pub.pem", *AGAIN, "--train", "ownnet:train", "--seed", "5", "--json")
    assert "foresee" not in json.loads(mine.out)["verdict"]["headlines"][0]


@pytest.mark.filterwarnings("ignore:--trained-on heldout.npz")
def test_other_code_model_images_or_start_are_not_those_of_the_key(bundle: str, folder: Path, run: Callable[..., Answer]) -> None:
    (folder / "othernet.py").write_text(CODE.replace("0.05", "0.04") + "\n# another script\n")
    check = ("evidence", "check", bundle, "--trusted-key", "again.pub.pem")
    for words, said in (
        ((*AGAIN, "--train", "othernet:train"), "the training code is not the one that the key names"),
        (
            (*AGAIN[:-6], "--trained-on", "heldout.npz", "--base", "none", "--train", "ownnet:train"),
            "the set of images is not the one that the key names",
        ),
        ((*AGAIN[:-4], "--start", "stranger.safetensors", "--train", "ownnet:train"), "the start is not the one that the key names"),
        (AGAIN, "the model's file does not say how it was trained"),
        (("--retrain", "2"), "--retrain needs the claimant's model"),
        (("--train", "ownnet:train"), "pass them with --retrain N"),
        ((*AGAIN, "--train", "ownnet:train", "--retrain", "0"), "at least 1"),
    ):
        found = run(*check, *words)
        assert found.code in {2, 3, 4}, (words, found)
        assert said in found.err, (words, found.err)


def test_whoever_checks_the_evidence_brings_the_day_and_is_shown_the_model(folder: Path, key: Path, run: Callable[..., Answer]) -> None:
    assert run("evidence", "keygen", "--out", "sign.pem").code == 0
    assert run("commit", key, "--out", "d.json", "--publication", "Gazette 12", "--published", TODAY.isoformat()).code == 0
    made = run(
        "verify", "thief.safetensors", "--arch", "ownnet:net", "--key", key, "--commitment", "d.json", "--released", LATER, "--evidence", "case.bundle",
        "--signing-key", "sign.pem", "--json",
    )  # fmt: skip
    assert (made.code, json.loads(made.out)["decision"]) == (1, "stolen")
    check = ("evidence", "check", "case.bundle", "--trusted-key", "sign.pub.pem", "--json")
    shown = ("--model", "model.safetensors", "--arch", "ownnet:net")
    for more, code, decision in (
        ((), 3, "undecided"), (shown, 1, "related"), (("--released", LATER), 1, "stolen"), ((*shown, "--released", LATER), 1, "stolen"),
        (("--released", EARLIER), 3, "undecided"), ((*shown, "--released", EARLIER), 1, "related"),
    ):  # fmt: skip
        found = run(*check, *more)
        assert found.code in {1, 3}, found.err + found.out
        assert (found.code, json.loads(found.out)["verdict"]["decision"]) == (code, decision), more
    other = run(*check, "--model", "stranger.safetensors", "--arch", "ownnet:net")
    assert other.code == 2
    assert (
        "the model that was shown is not the one that the key in case.bundle names"
        in json.loads(other.out or "{}").get("error", "") + other.err
    )
    unknown = run("evidence", "check", "case.bundle", "--released", LATER)
    assert (unknown.code, "signer unknown" in unknown.out) == (3, True)
    assert (folder / "case.bundle").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--train", "ownnet:train", "--siblings", "19", "--base", "none"), "say which images the model was trained on: --trained-on DIR"),
        (TRAIN, "say where training began: --base FILE"),
        (("--calibrate", "quick", "--base", "none"), "the model's file does not say how it was trained: pass --train package.module:function"),
        ((*TRAIN, "--base", "absent.safetensors"), "absent.safetensors"),
        ((*TRAIN[:4], "--trained-on", "absent", "--base", "none"), "absent"),
        (("--sibling-models", "empty", "--trained-on", "trained.npz", "--base", "none"), "no safetensors files there"),
        (("--train", "ownnet", *TRAIN[2:], "--base", "none"), "--train names a function as package.module:function, not 'ownnet'"),
        (("--train", "ownnet:trane", *TRAIN[2:], "--base", "none"), "did you mean 'train'"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_with_the_option_that_brings_it(
    words: tuple[str, ...], told: str, folder: Path, run: Callable[..., Answer]
) -> None:
    found = run("protect", "sac-jc", *GIVEN, *words, "--out-key", folder / "never.mw")
    assert found.code in {2, 4}
    assert told in found.err
    assert not (folder / "never.mw").exists()


def test_a_base_of_another_architecture_is_refused(folder: Path, run: Callable[..., Answer]) -> None:
    save_tensors(folder / "other.safetensors", {name: torch.zeros(3) for name in ("1.weight", "1.bias", "3.weight", "3.bias")})
    found = run("protect", "sac-jc", *GIVEN, *TRAIN, "--base", "other.safetensors", "--out-key", folder / "never.mw")
    assert found.code in {2, 4}
    assert "other.safetensors" in found.err


def test_a_dry_run_trains_nothing(folder: Path, run: Callable[..., Answer]) -> None:
    found = run(
        "protect",
        "sac-jc",
        *GIVEN,
        *TRAIN[:2],
        "--siblings",
        "39",
        *TRAIN[4:],
        "--base",
        "none",
        "--out-key",
        folder / "never.mw",
        "--dry-run",
        "--json",
    )
    assert found.code == 0
    told = json.loads(found.out)
    assert told["cells"] == 39 + 5 + 20
    assert not (folder / "never.mw").exists()


def test_a_mark_needs_no_siblings(folder: Path, run: Callable[..., Answer]) -> None:
    for more in (
        (*TRAIN, "--base", "none"),
        ("--base", "none"),
        ("--sibling-models", "d", "--trained-on", "trained.npz", "--base", "none"),
    ):
        found = run("protect", "zhang", *GIVEN, *more, "--out-key", folder / "never.mw", "--out-model", folder / "never.safetensors")
        assert found.code == 4, more
        assert "zhang is a mark: its p-value is drawn over other secrets" in found.err


@pytest.mark.slow
def test_thefts_of_tuning_siblings_tell_how_many_would_be_missed(folder: Path, key: Path, run: Callable[..., Answer]) -> None:
    assert key.exists()
    found = run("protect", "sac-jc", *GIVEN, *TRAIN, "--base", "none", "--out-key", folder / "tried.mw", "--json")
    assert found.code == 0, found.err
    draws = read_key(folder / "tried.mw").facts["draws"]
    assert set(draws["thieves"]) == {"weights", "probabilities", "label"}
    assert {row["tried"] for row in draws["thieves"].values()} == {20}
    for row in draws["thieves"].values():
        assert row["missed"] == sum(missed for missed, _ in row["kinds"].values())
        assert sum(tried for _, tried in row["kinds"].values()) == 20
    told = json.loads(run("verify", "thief.safetensors", "--arch", "ownnet:net", "--key", folder / "tried.mw", "--json").out)
    assert told["misses"] == {"missed": draws["thieves"]["weights"]["missed"], "tried": 20}
    stranger = run("verify", "stranger.safetensors", "--arch", "ownnet:net", "--key", folder / "tried.mw", "--json")
    assert stranger.code in {0, 3}
    assert (stranger.code == 0) == (json.loads(stranger.out)["decision"] == "not stolen")
