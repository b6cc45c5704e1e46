"""Evidence: the verdict follows from what is in the bundle, or the bundle is refused."""

import base64
import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch

from modelward.audit.committing import commit_to, date, opening_path, read_committed
from modelward.audit.evidence import Taken, check_bundle, make_bundle
from modelward.audit.judging import weigh
from modelward.core.canonical import canonical_json
from modelward.core.errors import FormatError, InputError, ModelwardError, UnsafeFileError, UsageError
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.core.suspect import Access
from modelward.core.verdict import Decision
from modelward.keys.evidence import SigningKey, open_envelope, seal
from modelward.ownership.calibration import Calibration
from modelward.ownership.zhang import Zhang
from modelward.report.evidence_page import evidence_html, summary

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
SIGNER = SigningKey.fresh()
OUT = (dt.datetime.now(dt.UTC).date() + dt.timedelta(1)).isoformat()
EARLIER = (dt.datetime.now(dt.UTC).date() - dt.timedelta(9)).isoformat()


def small_key(count: int = 20) -> Key:
    scores = vars(Calibration(tuple([0.9, 0.95] * 10), (0.92,), (), 0.05, 0.3))
    facts = {"settings": Zhang(count=count).settings(), "calibrated": True, "classes": ["a", "b", "c"], "scores": {"mark": scores}}
    tensors = {"probes": torch.zeros(count, 1, 4, 4, dtype=torch.uint8), "labels": torch.ones(count, dtype=torch.int64)}
    return Key("zhang", "hardened", "00" * 32, facts, tensors)


def answered(key: Key, hits: int) -> Observation:
    answers = torch.zeros_like(key.tensors["labels"])
    answers[:hits] = 1
    return Observation(Access.LABEL, {"answers": answers}, len(answers), ("It was slow.",))


KEY = small_key()
TAKEN = Taken("shop/v1", None, "asked over its public address")


@pytest.fixture
def committed(tmp_path):
    made = commit_to(KEY, tmp_path / "c.json")
    return replace(date(made, tmp_path / "c.json", publication="Gazette 12/2019, page 3", published=EARLIER), released=OUT)


@pytest.fixture
def bundle(committed):
    return make_bundle(KEY, answered(KEY, 20), TAKEN, SIGNER, committed=committed, seeds={"seed": 0})


def resealed(bundle: bytes, change) -> bytes:
    """Return the bundle as somebody who has the signing key would forge it."""
    statement = json.loads(open_envelope(bundle)[0])
    return seal(canonical_json(change(statement)), SIGNER)


def test_a_bundle_gives_the_verdict_again_and_says_who_signed(bundle, committed):
    verdict = weigh(answered(KEY, 20), KEY, committed)
    assert verdict.stolen
    checked = check_bundle(bundle, trusted=SIGNER.public)
    assert (checked.known, checked.verdict) == (True, verdict)
    assert not check_bundle(bundle).known
    with pytest.raises(UnsafeFileError, match="not by the trusted key"):
        check_bundle(bundle, trusted=SigningKey.fresh().public)


def test_the_bundle_fits_its_schema_and_holds_what_the_verdict_needs(bundle):
    envelope = json.loads(bundle)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    schema = json.loads((SCHEMAS / "evidence-1.schema.json").read_text())
    jsonschema.validate(statement, schema)
    jsonschema.validate(statement["commitment"]["record"], json.loads((SCHEMAS / "commitment-1.schema.json").read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**statement, "observation": None}, schema)
    assert statement["suspect"] == {"name": "shop/v1", "digest": None, "obtained": "asked over its public address"}
    assert statement["seeds"] == {"seed": 0}


def test_every_bit_of_a_small_bundle_counts():
    key = small_key(2)
    whole = make_bundle(key, answered(key, 2), TAKEN, SIGNER)
    assert 4096 <= len(whole) <= 3 * 4096
    check_bundle(whole)
    accepted = 0
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            check_bundle(bytes(changed))
        except ModelwardError:
            continue
        accepted += 1
    assert accepted == 0


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_half_a_bundle_is_refused(bundle, cut):
    with pytest.raises(FormatError):
        check_bundle(bundle[:cut])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {**s, "version": 2}, "newer modelward"),
        (lambda s: {**s, "schema": "modelward/key"}, "its schema is not"),
        (lambda s: {**s, "verdict": {**s["verdict"], "statistic": 0.1}}, "states statistic 0.1"),
        (lambda s: {**s, "verdict": {**s["verdict"], "p_value": 0.001}}, "states p_value"),
        (lambda s: {**s, "verdict": {**s["verdict"], "decision": "not stolen"}}, "states decision"),
        (lambda s: {**s, "key_digest": "00" * 32}, "contradicts itself"),
        (lambda s: {**s, "null_scores": {}}, "contradicts itself"),
        (lambda s: {**s, "commitment": None}, "states decision stolen, from its answers follows undecided"),
        (lambda s: {**s, "commitment": {**s["commitment"], "released": EARLIER}}, "states decision"),
        (lambda s: {**s, "commitment": {**s["commitment"], "released": 7}}, "cannot be evaluated"),
        (lambda s: {**s, "observation": {**s["observation"], "answers": "AAAA"}}, "safetensors"),
        (lambda s: {**s, "observation": {**s["observation"], "access": "telepathy"}}, "cannot be evaluated"),
        (lambda s: {k: v for k, v in s.items() if k != "observation"}, "cannot be evaluated"),
        (lambda s: {k: v for k, v in s.items() if k != "made_with"}, "cannot be evaluated"),
        (lambda s: {**s, "verdict": []}, "cannot be evaluated"),
        (lambda s: {**s, "key": "%"}, "cannot be evaluated"),
    ],
)
def test_what_the_signer_himself_forges_is_refused_in_one_sentence(bundle, change, words):
    with pytest.raises(ModelwardError, match=words) as found:
        check_bundle(resealed(bundle, change), trusted=SIGNER.public)
    assert "\n" not in str(found.value)


def test_rounding_of_another_machine_is_no_contradiction(bundle):
    near = resealed(bundle, lambda s: {**s, "verdict": {**s["verdict"], "threshold": s["verdict"]["threshold"] * (1 + 5e-5)}})
    far = resealed(bundle, lambda s: {**s, "verdict": {**s["verdict"], "threshold": s["verdict"]["threshold"] * (1 + 5e-4)}})
    assert check_bundle(near).verdict.stolen
    with pytest.raises(UnsafeFileError, match="threshold"):
        check_bundle(far)


def test_the_checker_may_know_better_when_the_suspect_was_out(bundle):
    assert check_bundle(bundle).verdict.decision is Decision.STOLEN
    found = check_bundle(bundle, released=EARLIER).verdict
    assert found.decision is Decision.UNDECIDED
    assert any("does not count" in text for text in found.caveats)


def test_without_a_commitment_the_key_fits_and_nothing_follows():
    made = make_bundle(KEY, answered(KEY, 20), TAKEN, SIGNER)
    checked = check_bundle(made, trusted=SIGNER.public)
    assert checked.verdict.matches
    assert checked.verdict.decision is Decision.UNDECIDED
    none = check_bundle(make_bundle(KEY, answered(KEY, 1), TAKEN, SIGNER))
    assert none.verdict.decision is Decision.NOT_STOLEN


def test_the_page_says_what_would_defeat_the_evidence(bundle):
    checked = check_bundle(bundle)
    verdict = json.loads(canonical_json(vars(checked.verdict)))
    hostile = {**checked.statement, "suspect": {"name": "<script>alert(1)</script>", "digest": None, "obtained": "&"}}
    page = summary(hostile, verdict, signer=checked.signer, known=False, notes=checked.notes)
    html = evidence_html(page)
    assert "<script>" not in html
    assert "What would defeat this evidence" in html
    assert page["defeats"][0].startswith("The signer is unknown")
    assert len(page["defeats"]) >= 6
    assert all(link not in html for link in ("http:", "https:", "src="))
    undated = summary(
        json.loads(open_envelope(make_bundle(KEY, answered(KEY, 20), TAKEN, SIGNER))[0]), verdict, signer="x", known=True, notes=()
    )
    assert undated["defeats"][0].startswith("Nothing dates the key")


def test_a_commitment_has_two_halves_that_are_never_overwritten(tmp_path):
    path = tmp_path / "c.json"
    made = commit_to(KEY, path)
    assert opening_path(path).stat().st_mode & 0o777 == 0o600
    assert made.opening.nonce not in path.read_text()
    assert read_committed(path, KEY).record == made.record
    with pytest.raises(UsageError, match="never overwritten"):
        commit_to(KEY, path)
    with pytest.raises(InputError, match="to another key"):
        read_committed(path, small_key(3))
    opening_path(path).unlink()
    with pytest.raises(InputError, match="nobody can tell which key"):
        read_committed(path, KEY)
