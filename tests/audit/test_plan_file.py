"""Plan files: what they choose, what they refuse with line and nearest name, and that the published schema is the one in force."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from modelward.audit import Question
from modelward.audit.plan_file import plan_schema, with_plan
from modelward.core.errors import FormatError, ModelwardError, UnsafeFileError, UsageError

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
WHOLE = """\
version: 1
data: fashion-mini
profile: smoke
seed: 3
size: [28, 28]
images: 32
evasion:
  - {method: pgd, norm: l2, eps: [1/2, 0.25], settings: {steps: 5}}
corruptions: [jpeg]
theft:
  - {method: extract-l, copies: 2}
ownership: []
fail_if: ["robust_acc[l2 0.5] < .4"]
"""


def read(tmp_path, text, question=None):
    (tmp_path / "plan.yaml").write_text(text)
    return with_plan(question or Question(), tmp_path / "plan.yaml")


def test_every_part_is_taken(tmp_path):
    found = read(tmp_path, WHOLE, Question(fail_if=("ece > .5",)))
    assert (found.profile, found.seed, found.size) == ("smoke", 3, (28, 28))
    assert found.fail_if == ("ece > .5", "robust_acc[l2 0.5] < .4")
    (attack,) = found.choice.attacks
    assert (attack.method, attack.norm, attack.eps, attack.settings) == ("pgd", "l2", (0.25, 0.5), {"steps": 5})
    assert [(spec.method, spec.labels, spec.index) for spec in found.choice.theft] == [
        ("extract-l", "stolen", 0),
        ("extract-l", "stolen", 1),
    ]
    assert found.choice.fingerprints == ()
    assert found.choice.corruptions == ("jpeg",)


def test_an_empty_plan_leaves_everything_to_the_profile(tmp_path):
    assert read(tmp_path, "version: 1\n") == Question()


def test_the_same_cells_as_without_a_plan(tmp_path, home):
    from modelward.audit.plan import make_plan
    from modelward.audit.question import prepare
    from modelward.evaluation.store import Store

    del home
    plain, planned = (make_plan(prepare(q, Store())) for q in (Question(profile="smoke"), read(tmp_path, "profile: smoke\n")))
    assert [cell.key for cell in plain.cells()] == [cell.key for cell in planned.cells()]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("evasoin: []\n", "plan.yaml, line 1: there is no key 'evasoin'; did you mean 'evasion'?"),
        (
            "data: fashion-mini\nevasion:\n  - method: pgd\n    epss: [1]\n    eps: [1]\n",
            "line 4: there is no key 'epss' in evasion; did you mean 'eps'?",
        ),
        ("seed: minus one\n", "line 1: seed: "),
        ("images: 0\n", "line 1: images: "),
        ("evasion: [{method: pdg, eps: [0.1]}]\n", "there is no method 'pdg'; did you mean 'pgd'?"),
        ("evasion: [{method: ftal, eps: [0.1]}]\n", "ftal is of the family theft, not evasion"),
        ("evasion: [{method: pgd, eps: [0.1], settings: {stepps: 3}}]\n", "did you mean 'step"),
        ("evasion: [{method: pgd, eps: [1/0]}]\n", "eps"),
        ("evasion: [{method: pgd, norm: l7, eps: [0.1]}]\n", "l7"),
        ("corruptions: [jpg]\n", "did you mean 'jpeg'?"),
        ("theft: [{method: prune, labels: maybe}]\n", "labels"),
        ("theft: [{method: extract-l, labels: 'true'}]\n", "labels of extract-l is stolen"),
        ("ownership: [{method: pgd}]\n", "not ownership"),
        ("fail_if: [robust_ac < .3]\n", "did you mean 'robust_acc'?"),
        ("version: 2\n", "version"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(tmp_path, text, wanted):
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["[1, 2]\n", "[" * 5000, "1: 2\n", "just words\n", "", "a: &x [1]\nb: *x\n", "seed: 1\nseed: 2\n",
     "a: !!python/object/apply:os.system ['true']\n", "a: [1\n", "\x00"],
)  # fmt: skip
def test_what_is_no_plan_is_refused(tmp_path, text):
    with pytest.raises(FormatError) as caught:
        read(tmp_path, text)
    assert "plan.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_huge_file_and_another_encoding_are_refused(tmp_path):
    (tmp_path / "plan.yaml").write_bytes(b"#" * 300_000)
    with pytest.raises(UnsafeFileError):
        with_plan(Question(), tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_bytes(b"data: \xff\n")
    with pytest.raises(ModelwardError):
        with_plan(Question(), tmp_path / "plan.yaml")


def test_saying_it_twice_is_refused_unless_it_is_the_same(tmp_path):
    with pytest.raises(UsageError, match="keep one of the two"):
        read(tmp_path, "seed: 3\n", Question(seed=4))
    assert read(tmp_path, "seed: 3\n", Question(seed=3)).seed == 3


@pytest.mark.parametrize("said", ["plan", "shell"])
def test_a_battery_takes_the_place_of_the_profiles_thefts(said, tmp_path, home):
    from modelward.audit.plan import make_plan
    from modelward.audit.question import prepare
    from modelward.evaluation.farm import battery
    from modelward.evaluation.store import Store

    del home
    plain = Question(profile="smoke")
    question = read(tmp_path, "battery: smoke\nprofile: smoke\n") if said == "plan" else Question(profile="smoke", battery="smoke")
    plan, usual = (make_plan(prepare(asked, Store(tmp_path / "store"))) for asked in (question, plain))
    assert [spec for spec, _ in plan.thieves] == battery("lenet5", profile="smoke")
    assert len({cell.key for _, cell in plan.thieves}) == len(plan.thieves) >= 39
    assert len(usual.thieves) == 12
    assert [cell.key for cell in plan.curves.values()] == [cell.key for cell in usual.curves.values()]
    assert sum(name.startswith("thief/") for name in plan.fingerprints[0].inputs) == len(plan.thieves)


def test_a_battery_beside_a_list_of_thefts_is_refused(tmp_path):
    with pytest.raises(UsageError, match="keep one of the two"):
        read(tmp_path, "battery: smoke\ntheft: [{method: ftal}]\n")
    with pytest.raises(UsageError, match="keep one of the two"):
        read(tmp_path, "battery: smoke\n", Question(battery="full"))
    with pytest.raises(UsageError, match=r"battery is smoke, standard, full, not 'ful'.*full"):
        Question(battery="ful")


def test_the_published_schema_is_the_one_in_force():
    published = json.loads((SCHEMAS / "plan-1.schema.json").read_text())
    assert published == plan_schema()
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(yaml.safe_load(WHOLE), published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"evasoin": []}, published)
