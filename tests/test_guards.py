"""Rules of the house that hold for every file, checked on the syntax trees of the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    return [line for line, name, _ in uses(tree) if name.split(".")[0] in {"random", "uuid"}]


def secret_draws(tree: ast.AST) -> list[int]:
    return [line for line, name, _ in uses(tree) if name.split(".")[0] == "secrets" or name == "os.urandom"]


def unseeded(tree: ast.AST) -> list[int]:
    return [line for line, name, node in calls(tree) if name.endswith(".default_rng") and not (node.args or node.keywords)]


def torch_seeds(tree: ast.AST) -> list[int]:
    """Uses of torch's global generator state; `manual_seed` of a generator object is none."""
    bad = ("torch.manual_seed", "torch.seed", "torch.random.", "torch.set_rng_state", "torch.default_generator", "torch.cuda.manual_seed")
    return [line for line, name, _ in uses(tree) if name.startswith(bad) and name != "torch.random.fork_rng"]


def torch_draws(tree: ast.AST) -> list[int]:
    """Draws that name no generator."""

    def draws(name: str) -> bool:
        last = name.rpartition(".")[2]
        return (name.startswith("torch.") and last in TORCH_DRAWS) or last in TORCH_FILLS

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
    "no standard random": (standard_draws, None, "from random import shuffle"),
    "no draw that cannot be repeated outside io and keys": (secret_draws, ("io/", "keys/"), "import secrets\nsecrets.token_hex(4)"),
    "no unseeded numpy generator": (unseeded, None, "from numpy import random\nrandom.default_rng()"),
    "no global torch seed": (torch_seeds, ("core/rng.py",), "import torch\ntorch.manual_seed(0)"),
    "no torch draw without a generator": (torch_draws, None, "import torch\ntorch.rand(3)"),
    "no print outside cli": (prints, ("cli/",), "print(1)"),
    "no bare except": (bare, None, "try:\n    pass\nexcept:\n    pass"),
    "no edits of sys.path": (paths, ("models/custom.py", "evaluation/ray_cluster.py"), "import sys\nsys.path.insert(0, '.')"),
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


def test_readers_that_could_run_code_are_told_not_to() -> None:
    found = {
        (name, called): {word.arg: ast.unparse(word.value) for word in node.keywords}
        for name, tree in TREES.items()
        for _, called, node in calls(tree)
        if called in {"torch.load", "numpy.load"}
    }
    assert set(found) == {("io/legacy_child.py", "torch.load"), ("io/arrays.py", "numpy.load")}
    assert found["io/legacy_child.py", "torch.load"]["weights_only"] == "True"
    assert found["io/arrays.py", "numpy.load"]["allow_pickle"] == "False"


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


def test_imports_run_downwards_only() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.exists():
        pytest.skip("import-linter is not installed; it comes with the extra 'dev'")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout
