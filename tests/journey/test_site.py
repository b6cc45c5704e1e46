"""The documentation: tutorials run, pages are those of the code, the site builds without a warning, documents fit their schemas."""

import importlib.util
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def run(command, home, folder):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"MODELWARD_HOME": str(home), "PATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, check=False)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_siblings")
@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("was_it_stolen", ["thief:    related, weak evidence: ", "by label: related, weak evidence: ", "stranger: "]),
        ("how_robust", ["noise ", "fgsm ", "pgd ", "pgd margin "]),
        ("remote_suspect", ["exit codes: 1 1"]),
    ],
)
def test_tutorials_run(tmp_path, monkeypatch, capsys, script, lines):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(DOCS / "tutorials" / f"{script}.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    for line in lines:
        assert any(found.startswith(line) for found in printed), (line, printed)


@pytest.mark.slow
def test_the_tutorial_for_continuous_integration_runs(home, tmp_path):
    for name in ("plan.yaml", "continuous_integration.sh"):
        shutil.copy(DOCS / "tutorials" / name, tmp_path)
    done = run(["sh", "continuous_integration.sh"], home, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<testsuites" in (tmp_path / "report" / "junit.xml").read_text()
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    jsonschema.validate(document, json.loads((DOCS / "schemas" / "report-1.schema.json").read_text()))
    plan = tmp_path / "plan.yaml"
    plan.write_text(plan.read_text().replace("clean_acc < .7", "clean_acc < .99"))
    assert run(["modelward", "audit", "--plan", "plan.yaml", "--out", "report", "-q"], home, tmp_path).returncode == 1


def commands(script):
    """Yield the words of every command of a shell script and the exit code that it is to have."""
    lines = script.read_text().replace("\\\n", " ").splitlines()
    assert lines[0] == "set -e"
    for line in lines[1:]:
        command, _, expected = line.partition(" || test $? -eq ")
        if not line.startswith("#"):
            yield shlex.split(command), int(expected or 0)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_siblings")
def test_the_tutorial_for_marks_runs(modelward, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    for (program, *words), expected in commands(DOCS / "tutorials" / "mark_and_prove.sh"):
        assert program == "modelward"
        done = modelward(*words)
        assert done.code == expected, (words, done.out, done.err)
        lines += done.out.splitlines()
    words = ("UNDECIDED: ", "STOLEN (moderate evidence): ", "Consistent, signer trusted.")
    assert [next(i for i, line in enumerate(lines) if line.startswith(word)) for word in words] == sorted(
        next(i for i, line in enumerate(lines) if line.startswith(word)) for word in words
    )


@pytest.mark.slow
def test_the_tutorial_for_locks_runs(modelward, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = ""
    for (program, *words), expected in commands(DOCS / "tutorials" / "lock_and_issue.sh"):
        if program == "printf":
            (tmp_path / words[2]).write_text(words[0].encode().decode("unicode_escape"))
        elif program == "test":
            assert not (tmp_path / words[2]).exists()
        else:
            done = modelward(*words)
            assert done.code == expected, (words, done.out, done.err)
            printed += done.out
    assert "opened, byte for byte: opened.safetensors" in printed
    assert "bob.advparams.mw was issued to bob." in printed
    assert (tmp_path / "opened.safetensors").is_file()


def test_tutorial_pages_show_the_scripts_that_run():
    for page in (DOCS / "tutorials").glob("*.md"):
        names = [line.split('"')[1] for line in page.read_text().splitlines() if line.startswith("--8<--")]
        assert names, page
        assert all((DOCS / name).is_file() for name in names)


def test_keys_and_verdicts_fit_their_schemas(modelward, tmp_path):
    import torch

    from modelward import SACJC, embedded_model, generator, load_data, save_model
    from modelward.io.container import read_mw
    from modelward.keys import write_key

    model = embedded_model().model
    _, key = SACJC(count=50).protect(model, load_data("fashion-mini").test.take(slice(0, 100)), rng=generator(0))
    write_key(tmp_path / "k.mw", key)
    arrays, raw = read_mw(tmp_path / "k.mw")[1], (tmp_path / "k.mw").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["modelward"])
    jsonschema.validate(header, json.loads((DOCS / "schemas" / "key-1.schema.json").read_text()))
    assert set(header["parts"]) == set(arrays)
    save_model(tmp_path / "m.safetensors", model)
    found = modelward("verify", tmp_path / "m.safetensors", "--key", tmp_path / "k.mw", "--json")
    assert found.code == 3, found.err
    jsonschema.validate(json.loads(found.out), json.loads((DOCS / "schemas" / "verdict-2.schema.json").read_text()))
    assert torch.get_num_threads() == 1


def test_every_method_has_its_page_and_the_pages_are_those_of_the_code():
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "tools" / "build_docs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    wanted = tool.pages()
    assert {path.name for path in (DOCS / "methods").glob("*.md")} == set(wanted), "run: python tools/build_docs.py"
    for name, text in wanted.items():
        assert (DOCS / "methods" / name).read_text() == text, f"{name} is not that of the code; run: python tools/build_docs.py"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install .[docs]")
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "<math" in (tmp_path / "site" / "index.html").read_text()
    assert (tmp_path / "site" / "methods" / "sac-jc.html").exists()
