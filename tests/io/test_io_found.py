"""What mutation campaigns have found, each told by the smallest file that shows it."""

import contextlib
import json
import resource
import sqlite3
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from modelward.audit import Question
from modelward.audit.plan_file import with_plan
from modelward.audit.question import _split_seed
from modelward.cli.key_facts import flat
from modelward.core.errors import FormatError, InputError, ModelwardError, StoreError, UnsafeFileError
from modelward.core.rng import generator
from modelward.evaluation.cell import Cell, Outcome
from modelward.evaluation.store import Store
from modelward.io import age, answers, archives, container, endpoint_state
from modelward.io import safetensors as st
from modelward.io.yaml_files import read_yaml
from modelward.keys.files import read_key
from modelward.models.files import load_model
from modelward.models.nets import build


def plan(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    return tmp_path / "plan.yaml"


@pytest.fixture
def tokens(monkeypatch):
    """Return the tokens that YAML's scanner took out of a text, as they are taken."""
    taken, fetch = [], yaml.SafeLoader.fetch_more_tokens
    monkeypatch.setattr(yaml.SafeLoader, "fetch_more_tokens", lambda self: taken.append(self.line) or fetch(self))
    return taken


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("data: " + "{" * 20_000, "deeper than 32"),
        ("data: " + "[" * 60_000, "deeper than 32"),
        ("- " * 20_000, "deeper than 32"),
        ("? [a, b]\n: 1\n", "line 1: a key is a name"),
        ("? {a: b}\n: 1\n", "line 1: a key is a name"),
        ("data: " + "x" * 501, "501 characters"),
        ("a" * 40_000 + ": 1", "characters"),
        ("x: 1\n" * 20_000, "65,536"),
    ],
)
def test_plans_that_cost_much_are_refused_at_once(tmp_path, text, wanted, tokens):
    with pytest.raises(FormatError, match=wanted) as caught:
        read_yaml(plan(tmp_path, text))
    assert len(tokens) < 1_200  # the scanner looks 1,024 characters ahead, however long the file is
    assert len(str(caught.value)) < 300


def test_the_work_of_a_large_plan_within_the_bounds_grows_with_its_lines_alone(tmp_path, tokens):
    counts = []
    for lines in (750, 1_500):
        tokens.clear()
        found = read_yaml(plan(tmp_path, "".join(f"key-{i}: [1, 2.5, {{a: b}}]\n" for i in range(lines))))
        assert found.values["key-7"] == [1, 2.5, {"a": "b"}]
        assert found.line(["key-7"]) == 8
        counts.append(len(tokens))
    assert counts[1] <= 2 * counts[0]


def test_a_plan_with_a_nested_setting_is_still_read(tmp_path):
    assert with_plan(Question(), plan(tmp_path, "evasion: [{method: pgd, eps: [0.1], settings: {steps: 5}}]\n")).choice.attacks[0].settings


def test_a_key_whose_facts_are_no_table_is_refused(tmp_path):
    header = {"method": "sac", "variant": "hardened", "model_digest": "0" * 64}
    for facts in (5, None, ["a"], "text"):
        (tmp_path / "k.mw").write_bytes(container.pack({**header, "facts": facts}, {"a": np.zeros(2)}))
        with pytest.raises(FormatError, match="facts are not a table"):
            read_key(tmp_path / "k.mw")


def test_a_key_whose_passphrase_needs_more_memory_than_there_is_does_not_end_the_process():
    """The library that derives the key aborts when it gets no memory; the file says how much that is."""
    data = b"age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 22\n" + b"x" * 43 + b"\n--- " + b"y" * 43 + b"\n" + bytes(64)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
    try:
        with pytest.raises(UnsafeFileError, match="4,096 MiB of memory, more than can be had"):
            age.decrypt(data, passphrase=age.Secret("x"), name="k.mw")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def respelt(data):
    """Return safetensors bytes that mean the same in another spelling."""
    (size,) = struct.unpack("<Q", data[:8])
    text = json.dumps(json.loads(data[8 : 8 + size]), separators=(", ", ": ")).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def test_the_state_of_a_service_is_refused_in_any_other_spelling(tmp_path):
    pixels, path = np.zeros((3, 1, 2, 2), np.uint8), tmp_path / "state"
    state = endpoint_state.State.load(path, pixels, "x")
    state.put(np.arange(2), answers.Answers(labels=np.array([1, 0])))
    whole = path.read_bytes()
    assert endpoint_state.State.load(path, pixels, "x").done.tolist() == [True, True, False]
    again = respelt(whole)
    assert st.parse_arrays(again)[1] == st.parse_arrays(whole)[1]
    for bad in (again, whole[:8] + whole[8:].replace(b"}}", b"} }", 1)[: len(whole) - 8]):
        path.write_bytes(bad)
        with pytest.raises(ModelwardError):
            endpoint_state.State.load(path, pixels, "x")


@pytest.mark.parametrize("drop", ["done", "second"])
def test_a_state_without_its_parts_is_refused(tmp_path, drop):
    """Whoever knows how the digest is made can seal anything."""
    pixels, path = np.zeros((3, 1, 2, 2), np.uint8), tmp_path / "state"
    state = endpoint_state.State.load(path, pixels, "x")
    state.put(np.arange(3), answers.Answers(labels=np.array([1, 0, 1])))
    state.put_again(np.arange(1), answers.Answers(labels=np.array([1])))
    arrays, facts = st.load_arrays(path)
    del arrays[drop], facts["digest"]
    for sent in (facts["sent"], "\u00b2", "7" * 5000):
        changed = {**facts, "sent": sent}
        path.write_bytes(st.dump_arrays(arrays, {**changed, "digest": endpoint_state._digest(arrays, changed)}))
        with pytest.raises(FormatError, match=r"incomplete|no answers of a service"):
            endpoint_state.State.load(path, pixels, "x")


@pytest.mark.parametrize("text", ["7" * 5000, "\u00b2", "-1", "1e3", ""])
def test_numbers_in_a_models_file_are_read_with_care(tmp_path, text):
    net = build("mlp:width=4", classes=2, size=(8, 8), rng=generator(0))
    path = tmp_path / "m.safetensors"
    st.save_tensors(path, net.state_dict(), {"arch": net.arch, "size": f"{text},8", "split_seed": text})
    found = load_model(path)
    assert found.model.size == (8, 8), "a size that is none is inferred from the weights"
    with pytest.raises(InputError, match="seed of its split"):
        _split_seed(found)


def test_numbers_beyond_floats_are_refused():
    for row in (10**400, -(10**400), 10**31):
        with pytest.raises(FormatError, match="class"):
            answers.of_rows([row, 0], 2, ("a", "b"), "the service")
        with pytest.raises(FormatError, match="huge"):
            answers.of_rows([[row, 0], [0, 1]], 2, ("a", "b"), "the service")


def test_words_of_a_file_cannot_steer_the_terminal(tmp_path):
    header = json.dumps({"a\x1b[2J": {"dtype": "\x1b[2J" + "7" * 5000, "shape": [1], "data_offsets": [0, 4]}}, ensure_ascii=False).encode()
    with pytest.raises(FormatError) as caught:
        st.parse_tensors(struct.pack("<Q", len(header)) + header + bytes(4))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../" + "x" * 5000, b"")
    with pytest.raises(UnsafeFileError) as long:
        archives.ZipFolder(tmp_path / "x.zip")
    assert len(str(long.value)) < 300


def test_rows_of_a_store_lead_nowhere(tmp_path):
    """A row that names no digest counts as not done, whatever path it would make."""
    store = Store(tmp_path / "store")
    cell = Cell("modelward.evaluation.cell:nothing", {})
    (tmp_path / "outside.safetensors").write_bytes(b"x")
    for name in ("../../../outside", "7" * 5000, "", str(tmp_path / "outside")):
        with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cells.sqlite")) as connection, connection:
            store.finish(cell, Outcome(), None, 1.0)
            connection.execute("UPDATE cells SET artifact = ?", (name,))
        assert store.find(cell.key) is None
        assert [row["bytes"] for row in store.listing()] == [0]


def test_a_store_whose_schema_is_no_text_says_so(tmp_path):
    Store(tmp_path / "store")
    place = tmp_path / "store" / "cells.sqlite"
    place.write_bytes(place.read_bytes().replace(b"CREATE TABLE", b"CREATE T\xe3BLE", 1))
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        Store(tmp_path / "store")
    assert str(caught.value).isprintable()


def test_numbers_beyond_floats_are_shown_in_a_key():
    assert flat("x", [10**400] * 4) == [("x", ", ".join([str(10**400)] * 4))]


def test_huge_values_in_a_message_are_cut(tmp_path):
    with pytest.raises(ModelwardError) as caught:
        with_plan(Question(), plan(tmp_path, f"evasion: [{{method: pgd, eps: [0.1], settings: {{steps: {list(range(900))}}}}}]\n"))
    assert len(str(caught.value)) < 600
