"""Rules of the house that hold for every file, checked on the syntax trees of the source."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelward

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "modelward"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

LOADERS = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "numpy.load", "torch.load", "torch.jit.load")
GENERATORS = {"Generator", "default_rng", "SeedSequence", "BitGenerator", "PCG64"}  # of numpy.random: made, not global
TORCH_DRAWS = {
    "rand",
    "randn",
    "randint",
    "randperm",
    "normal",
    "bernoulli",
    "multinomial",
    "rand_like",
    "randn_like",
    "randint_like",
    "poisson",
}
TORCH_FILLS = {"uniform_", "normal_", "bernoulli_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_"}


def names(tree: ast.AST) -> dict[str, str]:
    """What each imported name of a file stands for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0] for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def dotted(node: ast.AST, known: dict[str, str]) -> str:
    """The full name of ``a.b.c`` with its import resolved, or an empty text."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value, known)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def uses(tree: ast.AST) -> Iterator[tuple[int, str, ast.AST]]:
    """Every import, name and attribute of a file with its line and full name."""
    known = names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}", node) for alias in node.names)
        elif isinstance(node, ast.Name | ast.Attribute):
            yield node.lineno, dotted(node, known), node


def calls(tree: ast.AST) -> Iterator[tuple[int, str, ast.Call]]:
    """Every call of a file with its line and the full name of what is called; of a method on a value, its bare name after a dot."""
    known = names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            method = f".{node.func.attr}" if isinstance(node.func, ast.Attribute) else ""
            yield node.lineno, dotted(node.func, known) or method, node


def loaders(tree: ast.AST) -> list[int]:
    hit = [line for line, name, _ in uses(tree) if any(name == bad or name.startswith(f"{bad}.") for bad in LOADERS)]
    return hit + [line for line, name, node in calls(tree) if any(word.arg == "allow_pickle" for word in node.keywords)]


def numpy_draws(tree: ast.AST) -> list[int]:
    return [line for line, name, _ in uses(tree) if name.startswith("numpy.random.") and name.split(".")[2] not in GENERATORS]


def standard_draws(tree: ast.AST) -> list[int]:
    return [line for line, name, _ in uses(tree) if name.split(".")[0] in {"random", "secrets", "uuid"}]


def unseeded(tree: ast.AST) -> list[int]:
    return [line for line, name, node in calls(tree) if name.endswith(".default_rng") and not (node.args or node.keywords)]


def torch_seeds(tree: ast.AST) -> list[int]:
    """Uses of torch's global generator state; `manual_seed` of a generator object is none."""
    bad = ("torch.manual_seed", "torch.seed", "torch.random.", "torch.set_rng_state", "torch.default_generator", "torch.cuda.manual_seed")
    return [line for line, name, _ in uses(tree) if name.startswith(bad) and name != "torch.random.fork_rng"]


def torch_draws(tree: ast.AST) -> list[int]:
    """Draws that name no generator."""

    def draws(name: str) -> bool:
        return (name.startswith("torch.") and name.split(".")[-1] in TORCH_DRAWS) or name.split(".")[-1] in TORCH_FILLS

    return [line for line, name, node in calls(tree) if draws(name) and not any(word.arg == "generator" for word in node.keywords)]


def prints(tree: ast.AST) -> list[int]:
    return [line for line, name, _ in calls(tree) if name == "print"]


def bare(tree: ast.AST) -> list[int]:
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None]


def paths(tree: ast.AST) -> list[int]:
    return [line for line, name, _ in uses(tree) if name == "sys.path" or name.startswith(("sys.path.", "site.addsitedir"))]


def evaluations(tree: ast.AST) -> list[int]:
    return [line for line, name, _ in calls(tree) if name in {"eval", "exec", "compile", "os.system"}] + [
        line for line, _, node in calls(tree) for word in node.keywords if word.arg == "shell"
    ]


RULES = {  # rule: (who breaks it, files that may, a line that breaks it)
    "no pickle or torch.load outside io": (loaders, "io/", "import torch as t\nt.load('x')"),
    "no global numpy generator": (numpy_draws, None, "import numpy as np\nnp.random.rand(3)"),
    "no standard random": (standard_draws, ("keys/",), "from random import shuffle"),
    "no unseeded numpy generator": (unseeded, None, "from numpy import random\nrandom.default_rng()"),
    "no global torch seed": (torch_seeds, ("core/rng.py",), "import torch\ntorch.manual_seed(0)"),
    "no torch draw without a generator": (torch_draws, None, "import torch\ntorch.rand(3)"),
    "no print outside cli": (prints, ("cli/",), "print(1)"),
    "no bare except": (bare, None, "try:\n    pass\nexcept:\n    pass"),
    "no edits of sys.path": (paths, None, "import sys\nsys.path.insert(0, '.')"),
    "no evaluated text": (evaluations, None, "eval('1')"),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    check, allowed, breach = RULES[rule]
    assert check(ast.parse(breach)), "the guard is blind to its own example"
    found = [f"{name}:{line}" for name, tree in TREES.items() if not (allowed and name.startswith(allowed)) for line in check(tree)]
    assert found == []


def test_the_global_seed_is_set_inside_a_fork_only() -> None:
    tree = TREES["core/rng.py"]
    seeded = {line for line, name, _ in calls(tree) if name == "torch.manual_seed"}
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0].context_expr)]
    assert len(seeded) == 1
    assert seeded <= {node.lineno for block in blocks for node in ast.walk(block) if isinstance(node, ast.Call)}


def test_only_the_child_opens_a_legacy_file() -> None:
    found = [
        (name, {word.arg: ast.unparse(word.value) for word in node.keywords})
        for name, tree in TREES.items()
        for _, called, node in calls(tree)
        if called in {"torch.load", "numpy.load"}
    ]
    for name, arguments in found:
        assert name == "io/legacy_child.py"
        assert arguments["weights_only"] == "True"
    assert len(found) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """The public functions and classes of a block, with the public methods of the classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{node.name}.")


@pytest.mark.parametrize("name", TREES)
def test_everything_public_is_explained(name: str) -> None:
    tree = TREES[name]
    assert ast.get_docstring(tree) or not tree.body, "the file says nothing of itself"
    overloads = ("overload", "setter")
    silent = [
        place
        for place, node in public(tree.body)
        if not ast.get_docstring(node) and not any(ast.unparse(mark).endswith(overloads) for mark in node.decorator_list)
    ]
    assert silent == []


def test_the_public_names_are_sorted_and_real() -> None:
    exported = modelward.__all__
    assert len(set(exported)) == len(exported)
    kinds = [(not name.isupper(), not name[0].isupper()) for name in exported]
    assert kinds == sorted(kinds), "constants, classes, the rest"
    for kind in set(kinds):
        of_kind = [name for name, own in zip(exported, kinds, strict=True) if own == kind]
        assert of_kind == sorted(of_kind)
    assert dir(modelward) == sorted(exported)
    for name in exported:
        assert getattr(modelward, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = modelward.nothing


def test_the_export_list_and_its_homes_agree() -> None:
    tree = TREES["__init__.py"]
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    checked = {alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert checked == modelward._WHERE
    assert {*checked, "__version__"} == set(modelward.__all__)
    for name, home in checked.items():
        assert getattr(importlib.import_module(home), name) is getattr(modelward, name)


@pytest.mark.parametrize(
    "home", sorted(name for name, tree in TREES.items() if name.endswith("__init__.py") and "__all__" in ast.unparse(tree))
)
def test_packages_export_what_they_say(home: str) -> None:
    package = importlib.import_module(".".join(["modelward", *Path(home).parts[:-1]]))
    assert len(set(package.__all__)) == len(package.__all__)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


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


def test_imports_run_downwards_only() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.exists():
        pytest.skip("import-linter is not installed; it comes with the extra 'dev'")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout
