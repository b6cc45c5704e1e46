"""Answers that are rounded, cut to the best few, or no probabilities at all."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.errors import FormatError, InputError
from modelward.core.suspect import Suspect
from modelward.io.answers import Answers, decimals_of, described, of_rows, settle
from modelward.io.tables import read_answers_csv

FILES = ["00000.png", "00001.png"]


def read(tmp_path, *lines, classes=4):
    (tmp_path / "answers.csv").write_text("\n".join(lines))
    return read_answers_csv(tmp_path / "answers.csv", FILES, classes)


def test_the_best_classes_are_filled_up_evenly(tmp_path):
    found = read(tmp_path, "file,label1,p1,label2,p2", "00000.png,2,0.7,0,0.1", "00001.png,3,1,,")
    assert found.probabilities.tolist() == pytest.approx(np.array([[0.1, 0.1, 0.7, 0.1], [0, 0, 0, 1]]))
    assert (found.top, found.decimals) == (2, 1)
    assert any("At most 2 classes" in note for note in found.notes)
    assert any("1 decimal:" in note for note in found.notes)


def test_a_row_with_zeros_that_sums_to_less_than_one_is_a_row_of_the_best(tmp_path):
    found = read(tmp_path, "file,p0,p1,p2,p3", "00000.png,0.712345,0,0.187655,0", "00001.png,0.25,0.25,0.25,0.25")
    assert found.probabilities[0].tolist() == pytest.approx([0.712345, 0.05, 0.187655, 0.05])
    assert found.probabilities[1].tolist() == [0.25] * 4
    assert found.top == 2


def test_complete_answers_have_nothing_to_tell(tmp_path):
    found = read(tmp_path, "file,p0,p1,p2,p3", "00000.png,0.7123451,0,0.2876549,0", "00001.png,0.25,0.25,0.25,0.25")
    assert found.notes == ()
    assert found.probabilities[0, 1] == 0


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("00000.png,4,0.7,0,0.1", "classes 0 to 3"),
        ("00000.png,2,0.7,2,0.1", "twice"),
        ("00000.png,,,,", "empty"),
        ("00000.png,2,0.7,0,0.5", "no probability distribution"),
        ("00000.png,2,nan,0,0.5", "no probability distribution"),
        ("00000.png,2,,0,0.5", "no number|distribution"),
        ("00000.png,cat,0.5,0,0.5", "class number"),
    ],
)
def test_bad_rows_of_the_best_are_named(tmp_path, row, word):
    if word == "no number|distribution":
        found = read(tmp_path, "file,label1,p1,label2,p2", row, "00001.png,3,1,,")
        assert found.probabilities[0].tolist() == pytest.approx([0.5, 0.25, 0, 0.25])  # an empty cell was answered with nothing: 0
        return
    with pytest.raises(FormatError, match=word):
        read(tmp_path, "file,label1,p1,label2,p2", row, "00001.png,3,1,,")


def test_an_unknown_header_names_the_known_ones(tmp_path):
    with pytest.raises(FormatError, match="label1,p1"):
        read(tmp_path, "file,label1,p2", "00000.png,1,1", "00001.png,1,1")


@given(st.integers(2, 40), st.integers(1, 3), st.integers(0, 10_000))
def test_rounding_never_makes_an_answer_unfit(classes, decimals, seed):
    rows = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), 5).round(decimals)
    table = rows[rows.sum(1) > 0]
    if not len(table):
        return
    found = settle(table, decimals_of(str(cell) for row in table for cell in row))
    x = torch.zeros(len(table), 1, 2, 2)
    out = Suspect.of_answers(torch.from_numpy(found.table), notes=found.notes).probabilities(x)
    assert torch.allclose(out.sum(1), torch.ones(len(table)), atol=0.05)
    assert np.array_equal(out.numpy().argmax(1), table.astype(np.float32).argmax(1))


def test_logits_become_probabilities_and_the_verdict_is_told():
    logits = torch.tensor([[4.0, -1.0, 0.5], [0.2, 0.1, 3.0]])
    suspect = Suspect.of_answers(logits)
    assert torch.equal(suspect.probabilities(torch.zeros(2, 1, 2, 2)), logits.softmax(1))
    assert "softmax was applied" in suspect.notes[0]
    suspect.probabilities(torch.zeros(2, 1, 2, 2))
    assert len(suspect.notes) == 1


@pytest.mark.parametrize("answers", [torch.full((2, 3), 0.9), torch.full((2, 3), 0.1), torch.rand(2, 1), torch.zeros(2, 3)])
def test_what_is_neither_is_refused(answers):
    with pytest.raises(InputError, match=r"neither probabilities nor logits|K of at least 2"):
        Suspect.of_answers(answers).probabilities(torch.zeros(2, 1, 2, 2))


@pytest.mark.parametrize(
    "answers", [torch.tensor([0.5, 1.0]), torch.tensor([-1, 0]), torch.tensor([True, False]), torch.zeros(2, 1), torch.zeros(2, 2, 2)]
)
def test_what_is_no_class_number_is_refused(answers):
    with pytest.raises(InputError, match="class numbers"):
        Suspect.of_callable(lambda _: answers, access="label").labels(torch.zeros(2, 1, 2, 2))


def test_whole_floats_are_class_numbers():
    assert Suspect.of_callable(lambda _: torch.tensor([2.0, 0.0]), access="label").labels(torch.zeros(2, 1, 2, 2)).tolist() == [2, 0]


def test_an_answer_that_never_changes_is_told():
    assert "same answer" in Answers(labels=np.array([1, 1])).notes[0]
    assert "same answer" in described(np.full((3, 2), 0.5, dtype=np.float32)).notes[0]
    assert Answers(labels=np.array([1, 0])).notes == ()


def test_probabilities_pass_untouched():
    answers = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    suspect = Suspect.of_answers(answers, extra=3)
    assert torch.equal(suspect.probabilities(torch.zeros(2, 1, 2, 2)), answers)
    assert (suspect.queries, suspect.notes) == (5, ())
    suspect.labels(torch.zeros(2, 1, 2, 2))
    assert suspect.queries == 7  # repeats are counted once


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([[0.5, 0.5]], "1 answers for 2 images"), ("html", "no list"), ([[0.5, 0.5], [0.1, 0.2, 0.7]], "2 or 3 numbers"),
        ([[0.5, 0.5], 1], "no list of numbers"), ([0, 2], "classes 0 to 1"), ([0, "bird"], "none of the 2"), ([True, False], "no list of"),
        ([[0.5, None], [0.5, 0.5]], "no numbers"), ([[1e300, 0], [0.5, 0.5]], "NaN, infinite or huge"),
        ([[float("nan"), 0], [0.5, 0.5]], "NaN, infinite or huge"), ([[0.5, 10**400], [0.5, 0.5]], "NaN, infinite or huge"), ([-1, 0], "classes 0 to 1"),
    ],
)  # fmt: skip
def test_rows_of_a_service_that_are_no_answers(rows, word):
    with pytest.raises(FormatError, match=word):
        of_rows(rows, 2, ("cat", "dog"), "the service")


def test_rows_of_a_service():
    assert of_rows(["dog", 0], 2, ("cat", "dog"), "it").labels.tolist() == [1, 0]
    assert of_rows([[3, -4.5], [0, 1]], 2, ("cat", "dog"), "it").probabilities.tolist() == [[3, -4.5], [0, 1]]
    with pytest.raises(FormatError):
        _ = Answers().table
