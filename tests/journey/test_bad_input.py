"""Bad input: one clear sentence, the right exit code, no traceback, nothing half-written."""

import contextlib
import json
import os
import pickle
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from modelward import build, embedded_model, generator, load_data, save_model
from modelward.core.key import Key
from modelward.evaluation.work_clean import intake_checks
from modelward.io import container, safetensors
from modelward.keys import write_key
from modelward.models import load_model

QUICK = ("--profile", "smoke", "--dry-run")


@pytest.fixture
def model_file(tmp_path):
    """Return the embedded model as a file of its own."""
    path = tmp_path / "model.safetensors"
    save_model(path, embedded_model().model)
    return path


def npz(path, *, shape=(80, 28, 28), labels=None, dtype=np.uint8):
    """Write a small labelled set."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, shape).astype(dtype)
    given = np.arange(len(pixels)) % 10 if labels is None else np.asarray(labels)
    np.savez(path, x_train=pixels, y_train=given, x_test=pixels, y_test=given)
    return path


def refused(answer, code, *words):
    """Check that the answer is one sentence with ``words`` and the exit code."""
    assert answer.code == code, (answer.code, answer.out, answer.err)
    assert "Traceback" not in answer.err + answer.out
    text = " ".join((answer.err or answer.out).split())
    for word in words:
        assert word.lower() in text.lower(), text
    assert len(text) < 500


def test_an_unknown_architecture_names_the_nearest(modelward, model_file):
    refused(modelward("audit", "--model", model_file, "--arch", "lenet", *QUICK), 4, "lenet5")


def test_weights_of_another_architecture(modelward, model_file):
    refused(modelward("audit", "--model", model_file, "--arch", "resnet8", *QUICK), 2, "resnet8")


@pytest.mark.parametrize(("shape", "word"), [((80, 28, 28, 3), "channel"), ((80, 20, 20), "28")])
def test_images_of_another_shape_than_the_model_takes(modelward, model_file, tmp_path, shape, word):
    data = npz(tmp_path / "d.npz", shape=shape)
    refused(modelward("audit", "--model", model_file, "--data", data, *QUICK), 2, word)


def test_labels_out_of_range(modelward, model_file, tmp_path):
    data = npz(tmp_path / "d.npz", labels=np.where(np.arange(80) == 3, -1, np.arange(80) % 10))
    refused(modelward("audit", "--model", model_file, "--data", data, *QUICK), 2, "label")


def test_pixels_out_of_range(modelward, model_file, tmp_path):
    rng = np.random.default_rng(0)
    pixels = (rng.random((80, 28, 28)) * 300 - 20).astype(np.float32)
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=np.arange(80) % 10, x_test=pixels, y_test=np.arange(80) % 10)
    refused(modelward("audit", "--model", model_file, "--data", tmp_path / "d.npz", *QUICK), 2, "uint8")


def test_an_empty_folder_and_a_single_class(modelward, model_file, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(modelward("audit", "--model", model_file, "--data", tmp_path / "empty", *QUICK), 2, "empty")
    (tmp_path / "one" / "cat").mkdir(parents=True)
    for i in range(8):
        Image.fromarray(np.full((28, 28), i, np.uint8)).save(tmp_path / "one" / "cat" / f"{i}.png")
    refused(modelward("audit", "--model", model_file, "--data", tmp_path / "one", *QUICK), 2, "class")


def test_nan_weights(modelward, tmp_path):
    model = build("lenet5", classes=10, rng=generator(0))
    with torch.no_grad():
        model.body[0].weight[0, 0, 0, 0] = float("nan")
    save_model(tmp_path / "nan.safetensors", model)
    refused(modelward("audit", "--model", tmp_path / "nan.safetensors", *QUICK), 2, "NaN", "body.0.weight")


def test_a_model_that_ignores_its_input_fails_the_intake():
    model = build("lenet5", classes=10, rng=generator(0))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.zero_()
    checks = {check["name"]: check for check in intake_checks(model, load_data("fashion-mini").test.take(slice(0, 128)))}
    assert checks["input is used"]["status"] == "failed"
    assert checks["input is used"]["fix"]


def test_a_model_left_in_train_mode_is_measured_in_eval_mode_and_given_back_as_it_was():
    model = build("cnn", classes=10, rng=generator(0)).train()
    from modelward.core.guard import predict

    x = torch.rand(8, 1, 28, 28)
    assert torch.equal(predict(model, x), predict(model.eval(), x))
    model.train()
    before = model.body[1].running_mean.clone()
    predict(model, x)
    assert model.training
    assert torch.equal(model.body[1].running_mean, before)


def test_damaged_safetensors(modelward, model_file, tmp_path):
    whole = model_file.read_bytes()
    for name, data in (
        ("cut", whole[: len(whole) // 2]),
        ("header", whole[:9] + b"\xff" + whole[10:]),
        ("empty", b""),
        ("long", struct.pack("<Q", 2**62) + whole),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        refused(modelward("audit", "--model", path, *QUICK), 2, name)


def test_a_header_of_300_000_tensors_is_refused_before_it_is_parsed(modelward, tmp_path, monkeypatch):
    header = json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(300_000)}).encode()
    path = tmp_path / "many.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    monkeypatch.setattr(safetensors, "json", SimpleNamespace(loads=lambda _: pytest.fail("the header was parsed")))
    refused(modelward("audit", "--model", path, *QUICK), 5, "many")


def test_pickles_are_refused_for_safety(modelward, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    plain, deflated = tmp_path / "a.pt", tmp_path / "b.pt"
    plain.write_bytes(pickle.dumps(Evil()))
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as folder:
        folder.writestr("archive/data.pkl", pickle.dumps(Evil()))
    for path in (plain, deflated):
        refused(modelward("audit", "--model", path, *QUICK), 5)
        assert modelward("convert", path, tmp_path / "out.safetensors").code in {2, 5}
        assert not (tmp_path / "out.safetensors").exists()
    assert not (tmp_path / "ran").exists()


def test_convert_then_audit(modelward, tmp_path):
    torch.save(embedded_model().model.state_dict(), tmp_path / "model.pt")
    done = modelward("convert", tmp_path / "model.pt", tmp_path / "model.safetensors")
    assert done.code == 0, done.err
    assert load_model(tmp_path / "model.safetensors", "lenet5").arch == "lenet5"


def test_a_small_file_that_unpacks_to_a_huge_image(modelward, model_file, tmp_path):
    for part in ("cat", "dog"):
        (tmp_path / "data" / part).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((28, 28), i, np.uint8)).save(tmp_path / "data" / part / f"{i}.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "data" / "cat" / "bomb.png", optimize=True)
    assert (tmp_path / "data" / "cat" / "bomb.png").stat().st_size < 20_000
    refused(modelward("audit", "--model", model_file, "--data", tmp_path / "data", *QUICK), 5, "bomb.png")


@pytest.fixture(scope="module")
def bare_key(tmp_path_factory):
    """Return an uncalibrated key, made in a second."""
    from modelward.cli.main import main

    path = tmp_path_factory.mktemp("bare") / "owner.mw"
    assert main(["protect", "sac-jc", "--set", "count=20", "--out-key", str(path), "--quiet"]) == 0
    return path


def test_answers_with_missing_extra_or_impossible_rows(modelward, bare_key, tmp_path):
    good = ["file,label", *(f"{i:05d}.png,{i % 10}" for i in range(20))]
    cases = {
        "missing": (good[:-1], "00019.png"), "extra": ([*good, "00020.png,1"], "00020.png"), "twice": ([*good, "00003.png,1"], "00003.png"),
        "label": ([*good[:-1], "00019.png,-4"], "00019"), "words": ([*good[:-1], "00019.png,cat"], "cat"), "header": (good[1:], "header"), "empty": ([], ""),
    }  # fmt: skip
    for name, (lines, word) in cases.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
        refused(modelward("verify", tmp_path / f"{name}.csv", "--key", bare_key), 2, word)


def test_an_uncalibrated_key_is_undecided(modelward, bare_key, model_file):
    answer = modelward("verify", model_file, "--key", bare_key)
    assert answer.code == 3
    assert "UNDECIDED" in answer.out


def test_a_key_of_a_newer_version_and_an_altered_key(modelward, bare_key, model_file, tmp_path, monkeypatch):
    newer = tmp_path / "newer.mw"
    with monkeypatch.context() as later:
        later.setattr(container, "VERSION", 9)
        write_key(newer, Key("sac-jc", "hardened", "ab" * 32))
    refused(modelward("verify", model_file, "--key", newer), 2, "newer")
    data = bare_key.read_bytes()
    altered = tmp_path / "altered.mw"
    altered.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    refused(modelward("verify", model_file, "--key", altered), 5, "altered")


def test_an_existing_key_is_never_overwritten(modelward, bare_key):
    before = bare_key.read_bytes()
    refused(modelward("protect", "sac-jc", "--set", "count=20", "--out-key", bare_key), 4, "exists")
    assert bare_key.read_bytes() == before


def test_settings_that_do_not_exist(modelward, tmp_path):
    refused(modelward("protect", "sac-jc", "--set", "cuont=20", "--out-key", tmp_path / "k.mw"), 4, "count")
    refused(modelward("protect", "sac-js", "--out-key", tmp_path / "k.mw"), 4, "sac-jc")
    refused(modelward("audit", "--data", "fashion-mimi", *QUICK), 4, "fashion-mini")
    assert not (tmp_path / "k.mw").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_place_that_cannot_be_written(modelward, tmp_path):
    (tmp_path / "file").write_text("x")
    refused(modelward("protect", "sac-jc", "--set", "count=20", "--out-key", tmp_path / "file" / "k.mw"), 4, "--out-key")
    refused(modelward("audit", "--profile", "smoke", "--out", tmp_path / "file" / "out"), 2)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs file size limits")
def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    command = [sys.executable, "-m", "modelward", "protect", "sac-jc", "--set", "count=200", "--out-key", str(tmp_path / "k.mw"), "--quiet"]
    done = subprocess.run(
        command, preexec_fn=limit, capture_output=True, text=True, check=False, env=os.environ | {"MODELWARD_HOME": str(tmp_path / "home")}
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.mw*"))


def finished(store):
    """Return how many cells a store holds."""
    if not (store / "cells.sqlite").is_file():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(store / "cells.sqlite", timeout=5)) as base:
            return base.execute("SELECT count(*) FROM cells").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


LITTLE = """
profile: smoke
images: 64
evasion: [{method: pgd, eps: [2/255, 8/255]}, {method: noise, eps: [2/255, 8/255]}]
corruptions: [jpeg, blur, noise]
theft: [{method: ftal, settings: {epochs: 2}, copies: 6}]
ownership: []
"""


@pytest.mark.slow
def test_ctrl_c_in_an_audit_then_the_same_command_goes_on(tmp_path):
    (tmp_path / "plan.yaml").write_text(LITTLE)
    words = ["audit", "--plan", str(tmp_path / "plan.yaml"), "--seed", "5", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "modelward", *words]
    env = os.environ | {"MODELWARD_HOME": str(tmp_path / "store")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 150
    while time.time() < deadline and process.poll() is None and finished(tmp_path / "store") < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    kept = finished(tmp_path / "store")
    assert kept >= 3
    assert not list((tmp_path / "out").glob("report.*"))
    again = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, check=False, timeout=200)
    assert again.returncode in {0, 1}, again.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["cost"]["cached"] >= kept
