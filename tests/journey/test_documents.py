"""What the documents promise is executed: the README's Python, and the method that CONTRIBUTING adds in two files."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python_blocks(text):
    """Return the Python code blocks of a Markdown text."""
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_siblings")
def test_the_readme_runs_as_one_script(tmp_path, capsys):
    script = tmp_path / "five_lines.py"
    script.write_text("\n".join(python_blocks((ROOT / "README.md").read_text())))
    runpy.run_path(str(script), run_name="__main__")
    thief, stranger = capsys.readouterr().out.splitlines()
    assert thief.startswith("related, weak evidence: deviation of the answers not shared (temp) ")
    assert thief.endswith(", p = 0.05 over 19 siblings of the owner's model")
    assert stranger.startswith("undecided: ")  # not accused; without thefts that were tried nobody is cleared either
    assert float(re.search(r"p = (0?\.\d+|1) over 19 siblings of the owner's model$", stranger).group(1)) > 0.05


def test_every_command_of_the_readme_exists(modelward):
    text = (ROOT / "README.md").read_text()
    named = {
        tuple(match.split())
        for match in re.findall(
            r"modelward ((?:audit|attack|steal|protect|verify|probes|methods|data list|models (?:list|get)|reproduce|convert|key show|doctor|store list))",
            text,
        )
    }
    for words in sorted(named):
        done = modelward(*words, "--help")
        assert done.code == 0, (words, done.err)
        assert words[-1] in done.out.partition("\n\n")[0]
    assert len(named) == 14


def test_links_in_the_documents_lead_somewhere():
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            assert target.startswith("https://") or (document.parent / target).exists(), (document.name, target)


def test_a_method_is_added_in_two_files(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    [file_one], file_two = python_blocks(text), re.search(r"^    (Row\(.*,)$", text, flags=re.MULTILINE).group(1)
    shutil.copytree(ROOT / "src" / "modelward", tmp_path / "src" / "modelward", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src/modelward/attacks/evasion/rfgsm.py").write_text(file_one)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")
    battery = (ROOT / "tests/conformance/test_evasion.py").read_text()
    (tmp_path / "test_evasion.py").write_text(battery.replace("ROWS = (\n", f"ROWS = (\n    {file_two}\n", 1))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
        str(tmp_path / "test_evasion.py"),
        "-k",
        "rfgsm or row",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "src")}, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 10
    shown = subprocess.run(
        [sys.executable, "-m", "modelward", "methods", "rfgsm"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        check=False,
    )
    assert "1705.07204" in shown.stdout
