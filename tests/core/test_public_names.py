"""The names that ``import modelward`` offers: sorted, real, and loaded only when they are asked for."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import modelward

PACKAGES = ["modelward", *sorted(info.name for info in pkgutil.walk_packages(modelward.__path__, "modelward.") if info.ispkg)]


def test_the_public_names_are_sorted_and_real() -> None:
    exported = modelward.__all__
    assert len(set(exported)) == len(exported)
    kinds = [(not name.isupper(), not name[0].isupper()) for name in exported]
    assert kinds == sorted(kinds), "acronyms, classes, the rest"
    for kind in set(kinds):
        of_kind = [name for name, own in zip(exported, kinds, strict=True) if own == kind]
        assert of_kind == sorted(of_kind)
    assert dir(modelward) == sorted(exported)
    for name in exported:
        assert getattr(modelward, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = modelward.nothing


def test_the_export_list_and_its_homes_agree() -> None:
    tree = ast.parse(Path(modelward.__file__).read_text(encoding="utf-8"))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    checked = {alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert checked == modelward._WHERE
    assert {*checked, "__version__"} == set(modelward.__all__)
    for name, home in checked.items():
        assert callable(getattr(importlib.import_module(home), name))


@pytest.mark.parametrize("before", ["", "import modelward.audit"])
def test_public_names_work_however_often_and_in_whatever_order(before: str) -> None:
    code = f"""
import modelward
{before}
for _ in range(2):
    for name in modelward.__all__[::-1]:
        assert name == "__version__" or callable(getattr(modelward, name)), name
try:
    modelward.audit("no question", "no store")
except AttributeError as error:
    assert "'str' object" in str(error), error
else:
    raise SystemExit("nothing was audited")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("home", PACKAGES)
def test_packages_export_what_they_say(home: str) -> None:
    package = importlib.import_module(home)
    exported = getattr(package, "__all__", [])
    assert len(set(exported)) == len(exported)
    assert [name for name in exported if not hasattr(package, name)] == []


@pytest.mark.parametrize(
    "statement", ["import modelward", "import modelward; dir(modelward); modelward.__version__", "import modelward.cli.main"]
)
def test_importing_is_quick(statement: str) -> None:
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"torch", "scipy", "matplotlib", "sqlalchemy"} & set(json.loads(done.stdout)) == set()


def test_a_public_name_comes_when_it_is_asked_for() -> None:
    code = "import sys, modelward; lazy = 'torch' not in sys.modules; modelward.Recipe(); sys.exit(not (lazy and 'torch' in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
