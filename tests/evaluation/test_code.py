"""The key of a cell: it changes with everything that its result depends on, and with nothing else."""

import dataclasses
import importlib
import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.core.errors import UsageError
from modelward.evaluation import code
from modelward.evaluation.cell import Cell
from modelward.evaluation.code import code_digest

FRESH = itertools.count()
SOURCES = {
    "__init__.py": '"""The toy package."""\n',
    "work.py": 'from {p}.middle import twice\n\n\ndef add(job):\n    """Add."""\n    return twice(job)  # here\n',
    "middle.py": "import numpy\n\nfrom {p}.deep import leaf\n\n\ndef twice(x):\n    from {p} import late\n\n    return late.f(leaf.g(x))\n",
    "late.py": "def f(x):\n    return x\n",
    "other.py": "def h(x):\n    return x\n",
    "near.py": "from . import late\nfrom .deep.leaf import g\n\n\ndef add(job):\n    return late.f(g(job))\n",
    "deep/__init__.py": "",
    "deep/leaf.py": "from ..late import f\n\n\ndef g(x):\n    return f(x)\n",
    "plain.py": "import {p}.deep.leaf as l\n\n\ndef add(job):\n    return l.g(job)\n",
    "ring_a.py": "from {p} import ring_b\n",
    "ring_b.py": "from {p} import ring_a\n",
}


class Package:
    """A package in a folder of its own, under a name that nobody has used."""

    def __init__(self, folder):
        self.name = f"toypkg{next(FRESH)}"
        self.root = folder / self.name
        for path, text in SOURCES.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text.replace("{p}", self.name))

    def change(self, path, old, new):
        text = (self.root / path).read_text()
        assert old in text
        (self.root / path).write_text(text.replace(old, new, 1))

    def key(self, module="work", **rest):
        """Return the key as a new process would see it."""
        for cached in (code.code_digest, code._read, code._source, code._is_module):
            cached.cache_clear()
        importlib.invalidate_caches()
        return Cell(f"{self.name}.{module}:add", {"a": 1}, **rest).key


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Package(tmp_path)
    yield made
    for name in [name for name in sys.modules if name.split(".")[0] == made.name]:
        del sys.modules[name]
    for cached in (code.code_digest, code._read, code._source, code._is_module):
        cached.cache_clear()


@pytest.mark.parametrize("path", ["work.py", "middle.py", "late.py", "deep/leaf.py", "deep/__init__.py", "__init__.py"])
@pytest.mark.parametrize("module", ["work", "near", "plain"])
def test_the_key_follows_the_code_of_what_is_imported(package, module, path):
    reached = {
        "work": {"work.py", "middle.py", "late.py", "deep/leaf.py", "deep/__init__.py", "__init__.py"},
        "near": {"late.py", "deep/leaf.py", "__init__.py"},
        "plain": {"late.py", "deep/leaf.py"},
    }
    before = package.key(module)
    (package.root / path).write_text((package.root / path).read_text() + "\nCHANGED = 1\n")
    assert (package.key(module) != before) == (path in reached[module])


def test_a_changed_constant_deep_down_changes_the_key_and_changing_it_back_restores_it(package):
    before = package.key()
    package.change("late.py", "return x", "return x + 1")
    assert package.key() != before
    package.change("late.py", "return x + 1", "return x")
    assert package.key() == before


def test_code_that_is_not_used_does_not_matter(package):
    before = package.key()
    package.change("other.py", "return x", "return -x")
    (package.root / "brand_new.py").write_text("X = 1\n")
    assert package.key() == before
    with_other = package.key(uses=(f"{package.name}.other",))
    assert with_other != before
    package.change("other.py", "return -x", "return x")
    assert package.key(uses=(f"{package.name}.other",)) != with_other


def test_comments_prose_and_layout_do_not_matter(package):
    before = package.key()
    package.change("work.py", '"""Add."""', '"""Add, and say it at length."""')
    package.change("work.py", "# here", "# and not there")
    package.change("late.py", "return x", "\n    return (\n        x\n    )")
    assert package.key() == before


def test_a_docstring_that_is_a_value_does_matter(package):
    before = package.key()
    package.change("work.py", '    """Add."""', '    job = """Add."""')
    assert package.key() != before


def test_rings_of_imports_end(package):
    assert package.key("ring_a") != package.key("ring_b")


def test_a_new_process_sees_the_same_key(package, tmp_path):
    source = f"from modelward.evaluation.cell import Cell; print(Cell('{package.name}.work:add', {{'a': 1}}).key)"
    command = [sys.executable, "-c", source]
    keys = {
        subprocess.run(command, cwd=tmp_path, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout.strip()
        for seed in ("1", "2")
    }
    assert keys == {package.key()}


def test_the_key_does_not_import_the_code(package):
    package.key()
    assert f"{package.name}.work" not in sys.modules
    assert f"{package.name}.deep.leaf" not in sys.modules


@pytest.mark.parametrize("name", ["nowhere_at_all", "nowhere.at_all", "modelward.nowhere"])
def test_a_module_that_is_not_there_is_one_sentence(name):
    with pytest.raises(UsageError, match="cannot be found"):
        code_digest(name)


BASE = Cell("toy_work:add", {"a": 1, "b": [1, 2]}, {"x": "0" * 64}, seed=3, uses=("modelward.core.errors",))
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), SCALARS | st.lists(SCALARS, max_size=3), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_settings_and_inputs_does_not_matter(chosen, random):
    items = list(chosen.items())
    random.shuffle(items)
    inputs = [(name, "0" * 64) for name in "abc"]
    random.shuffle(inputs)
    one = Cell("toy_work:add", chosen, dict.fromkeys("abc", "0" * 64))
    assert Cell("toy_work:add", dict(items), dict(inputs)).key == one.key


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"a": 1, "b": [2, 1]}},
        {"settings": {"a": 1}},
        {"settings": {"a": 1.5, "b": [1, 2]}},
        {"settings": {"a": "1", "b": [1, 2]}},
        {"inputs": {"x": "1" * 64}},
        {"inputs": {"y": "0" * 64}},
        {"inputs": {}},
        {"seed": 4},
        {"threads": 2},
        {"precision": "bf16"},
        {"work": "toy_work:figure"},
        {"uses": ()},
        {"uses": ("modelward.core.nearest",)},
    ],
)
def test_everything_that_the_result_depends_on_is_in_the_key(change):
    assert dataclasses.replace(BASE, **change).key != BASE.key


def test_label_and_estimate_are_not_in_the_key():
    assert dataclasses.replace(BASE, label="other", seconds=9.0).key == BASE.key
    assert len(BASE.key) == 64


def test_the_key_follows_the_cells_that_it_reads():
    needs = [Cell("toy_work:add", {"a": index}) for index in range(2)]
    keys = {Cell("toy_work:add", {}, {"x": need}).key for need in needs}
    assert len(keys) == 2
    deep = {Cell("toy_work:add", {}, {"x": Cell("toy_work:add", {}, {"y": need})}).key for need in needs}
    assert len(deep) == 2
    assert keys.isdisjoint(deep)
    assert list(Cell("toy_work:add", {}, {"x": needs[0], "y": "0" * 64}).needs) == needs[:1]


def test_the_code_of_a_real_cell_reaches_the_training_loop_but_no_attack():
    code.code_digest.cache_clear()
    seen, todo = set(), ["modelward.evaluation.work_training"]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo.extend(code._read(module)[1])
    assert {"modelward.training.loop", "modelward.models.nets", "modelward.core.rng"} <= seen
    assert not [module for module in seen if ".attacks" in module or ".ownership" in module or ".cli" in module]
