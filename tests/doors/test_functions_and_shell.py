"""Functions of the user's own, and every door as the shell has it: exit codes, one sentence, nothing secret told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelward.audit import judge
from modelward.audit.functions import ask_function
from modelward.cli.main import main
from modelward.cli.service_options import asking_of, parse_rate
from modelward.core.deciding import SAME
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.verdict import Decision
from modelward.io.endpoint_headers import read_headers
from modelward.models import save_model

CODE = """
import numpy as np
import torch
from modelward import load_model

calls = 0
NET = load_model("victim.safetensors").model

def probabilities(x):
    assert x.dtype == np.float32 and x.flags.writeable
    out = torch.softmax(NET(torch.from_numpy(x)), 1).detach().numpy()
    x[:] = 0  # whoever spoils his copy spoils nothing else
    return out

def tensor(x):
    return NET(torch.from_numpy(x))

def labels(x):
    return probabilities(x).argmax(1)

def rounded(x):
    return probabilities(x).round(2)

def moody(x):
    global calls
    calls += 1
    return np.roll(probabilities(x), calls, axis=1)

def broken(x):
    raise RuntimeError("no luck\\nat all")

def leave(x):
    raise SystemExit(0)

def nothing(x):
    return None

def ragged(x):
    return [[1], [1, 2]]

def nan(x):
    return np.full((len(x), 3), np.nan)

def few(x):
    return probabilities(x)[:-1]

def wide(x):
    return np.zeros((len(x), 7))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlp_victim: Any) -> Path:
    """Return a folder to work in, with a module of functions."""
    (tmp_path / "answering.py").write_text(CODE)
    save_model(tmp_path / "victim.safetensors", mlp_victim)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "answering", raising=False)
    yield tmp_path
    sys.modules.pop("answering", None)


def test_a_function_answers_like_its_net(here: Path, key: Any, truth: Any) -> None:
    pixels = key.tensors["probes"].numpy()
    answers, notes, extra = ask_function("answering:probabilities", pixels, ("a", "b", "c"))
    assert np.allclose(answers.probabilities, truth, atol=1e-6)
    assert (notes, extra, answers.notes) == ((), 4, ())
    assert ask_function("answering:labels", pixels, ("a", "b", "c"))[0].labels.tolist() == truth.argmax(1).tolist()
    assert str(here) not in sys.path


@pytest.mark.parametrize(
    ("function", "access", "word"),
    [
        ("probabilities", "probabilities", None), ("tensor", "probabilities", "softmax was applied"), ("labels", "label", "Only labels"),
        ("rounded", "probabilities", "rounded to 2 decimals"), ("moody", "probabilities", "4 of 4 images that were asked twice"),
    ],
)  # fmt: skip
def test_the_verdict_tells_how_the_answers_were(here: Path, key: Any, function: str, access: str, word: str | None) -> None:
    del here
    verdict = judge(f"answering:{function}", key)
    assert (verdict.access, verdict.queries) == (access, 64)
    assert verdict.fits
    same = function != "moody"  # who answers as the very model of the key shows nothing of whose it is
    assert verdict.decision is (Decision.UNDECIDED if same else Decision.RELATED)
    assert (verdict.caveats[0] == SAME) is same
    told = " ".join(verdict.caveats)
    assert (word in told) if word else ("softmax" not in told and "rounded" not in told and "twice" not in told)


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("answering:broken", InputError, "raised RuntimeError: no luck$"), ("answering:leave", InputError, "raised SystemExit"),
        ("answering:nothing", FormatError, "no list of answers"), ("answering:ragged", FormatError, "no list of answers"),
        ("answering:nan", FormatError, "NaN"), ("answering:few", FormatError, "59 answers for 60 images"),
        ("answering:wide", FormatError, "7 numbers for an image.*3 classes"), ("answering:labls", InputError, "did you mean 'labels'"),
        ("absent_module:f", InputError, "ModuleNotFoundError"), ("answering", UsageError, "package.module:function"),
    ],
)  # fmt: skip
def test_functions_that_do_not_answer(here: Path, key: Any, name: str, kind: type[Exception], word: str) -> None:
    del here
    with pytest.raises(kind, match=word) as caught:
        ask_function(name, key.tensors["probes"].numpy(), ("a", "b", "c"))
    assert "\n" not in str(caught.value)


def run(capsys: Any, *words: Any) -> tuple[int, str, str]:
    """Run a command line."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return code, captured.out, captured.err


def test_the_shell_names_a_function(here: Path, key_file: Path, capsys: Any) -> None:
    code, out, _ = run(capsys, "verify", "--suspect", "answering:labels", "--key", key_file, "--json")
    document = json.loads(out)
    assert (code, document["suspect"], document["queries"], document["access"]) == (3, "answering:labels", 64, "label")
    assert document["caveats"][0] == SAME
    assert run(capsys, "verify", "--suspect", "answering:broken", "--key", key_file)[0] == 2
    assert run(capsys, "verify", "--key", key_file)[0] == 4
    assert run(capsys, "verify", "victim.safetensors", "--suspect", "answering:labels", "--key", key_file)[0] == 4
    code, _, err = run(capsys, "verify", "answering:labels", "--key", key_file)
    assert (code, "--suspect" in err) == (4, True)
    assert "answering" in sys.modules
    del sys.modules["answering"]
    code, out, _ = run(capsys, "verify", here / "victim.safetensors", "--key", key_file)
    assert (code, "the very model that the key names" in " ".join(out.split())) == (3, True)
    assert "answering" not in sys.modules  # code runs only when it is named


def test_the_shell_asks_a_service(service: Any, key_file: Path, truth: Any, capsys: Any, tmp_path: Path) -> None:
    canary = "canary-7f3a"
    (tmp_path / "token").write_text(f"# mine\nAuthorization: Bearer {canary}\n")
    at = {"start": 0}

    def answer(_: int, images: Any) -> Any:
        first, at["start"] = at["start"] % 60, at["start"] + len(images)
        return 200, {}, json.dumps({"predictions": truth[first : first + len(images)].tolist()}).encode()

    service.answer = answer
    given = ("--header-file", tmp_path / "token", "--resume", tmp_path / "asked", "--batch", 20, "--rate", "1000/s", "--budget", 62)
    code, out, err = run(capsys, "verify", f"{service.url}?version=3", "--key", key_file, *given)
    assert (code, service.headers[0]["Authorization"]) == (3, f"Bearer {canary}")  # it answers as the model of the key
    words = " ".join(out.split())
    assert "62 images, access: probabilities" in words
    assert "images that were asked twice" in words  # this server answers by order, not by image
    assert "version=3" not in out
    assert canary not in out + err + (tmp_path / "asked").read_bytes().decode(errors="replace")
    before = len(service.requests)
    assert run(capsys, "verify", f"{service.url}?version=3", "--key", key_file, *given)[0] == 3
    assert len(service.requests) == before
    assert run(capsys, "verify", service.url, "--key", key_file, "--budget", 59)[0] == 4
    service.answer = lambda *_: (302, {"Location": "http://elsewhere.example/"}, b"")
    assert run(capsys, "verify", service.url, "--key", key_file)[0] == 5
    service.answer = lambda *_: (401, {}, canary.encode())
    code, out, err = run(capsys, "verify", service.url, "--key", key_file, "--header-file", tmp_path / "token", "--json")
    assert (code, canary in out + err) == (2, False)
    assert run(capsys, "verify", "ftp://host/x", "--key", key_file)[0] == 4


def test_options_of_services_go_with_services(key_file: Path, capsys: Any, onnx_file: Any) -> None:
    code, _, err = run(capsys, "verify", onnx_file(), "--key", key_file, "--budget", "9")
    assert (code, "address of a service" in " ".join(err.split())) == (4, True)
    assert asking_of(Path("x"), None, None, send=None) is None
    for text in ("0", "-1/s", "1/h", "fast", "inf"):
        with pytest.raises(UsageError, match="--rate"):
            parse_rate(text)


@pytest.mark.parametrize(
    "text", ["Authorization", "A B: c", "Host: x", "X: ", "X: a\nX: b", ": v", "X: a\x07b", "", "# only a remark", "Content-Length: 5"]
)
def test_headers_that_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "h").write_text(text)
    with pytest.raises(UsageError, match=r"no header|twice") as caught:
        read_headers(tmp_path / "h")
    assert "a\x07b" not in str(caught.value)


def test_headers_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_headers() == {}
    monkeypatch.setenv("MODELWARD_HEADERS", "X-Api-Key: k1\nX-Other: v")
    assert {name: secret.reveal() for name, secret in read_headers().items()} == {"X-Api-Key": "k1", "X-Other": "v"}
    (tmp_path / "h").write_bytes(b"X: \xff")
    with pytest.raises(UsageError, match="no text"):
        read_headers(tmp_path / "h")
