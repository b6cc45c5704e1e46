"""Evidence: the verdict follows from what is in the bundle, or the bundle is refused."""

import base64
import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

from modelward.audit.committing import commit_to, date, opening_path, read_committed
from modelward.audit.evidence import Taken, check_bundle, make_bundle
from modelward.audit.judging import weigh
from modelward.core.canonical import canonical_json
from modelward.core.errors import FormatError, InputError, ModelwardError, UnsafeFileError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.core.siblings import sibling_seed
from modelward.core.suspect import Access
from modelward.core.verdict import Decision
from modelward.keys.evidence import SigningKey, open_envelope, seal
from modelward.ownership.sac import SAC
from modelward.report.evidence_page import evidence_html, summary

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
SIGNER = SigningKey.fresh()
OUT = dt.datetime.now(dt.UTC).date().isoformat()
EARLIER = (dt.datetime.now(dt.UTC).date() - dt.timedelta(9)).isoformat()


def model(seed: int = 0) -> nn.Module:
    """Return a claimant's model; what it answers is in the key."""
    made, rng = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 3, bias=False)), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        made[1].weight.copy_(4 * torch.randn(64, 16, generator=rng))
        made[1].bias.copy_(-made[1].weight.sum(1) / 2)  # images in [0, 1], centred: no class gets them all
        made[3].weight.copy_(torch.randn(3, 64, generator=rng) / 2)
    return made


def small_key(count: int = 20, candidates: int = 20, own: int = 3) -> Key:
    """Return a fingerprint of what nets that are drawn alike answer: every candidate has habits of its own."""
    figures = {"right": {"probes": [count // 2, count]}, "confidence": 0.8, "error": 0.1, "chance": 1 / 3}
    digests = [state_digest(model()) if place == own else f"{place:02x}" * 32 for place in range(candidates)]
    numbers = iter(range(1, candidates))
    seeds = [
        None if place == own else sibling_seed(state_digest(model()), "None", None, None, next(numbers)) for place in range(candidates)
    ]
    members = [{"digest": digest, "seed": seed, "figures": figures} for digest, seed in zip(digests, seeds, strict=True)]
    draws = {
        "of": "siblings", "own": own, "members": members, "origin": "code", "start": "none", "start_digest": None, "code": None, "images": None,
        "failed": [], "tuning": [], "smoke": False, "thieves": {"weights": {"tried": 20, "missed": 1, "kinds": {}}}, "nulls": 0,
        "false_claims": 0,
    }  # fmt: skip
    facts = {"settings": SAC().settings(), "calibrated": True, "classes": ["a", "b", "c"], "draws": draws}
    probes = torch.randint(0, 256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    answers = torch.stack([predict(model() if place == own else model(100 + place), probes) for place in range(candidates)])
    tensors = {
        "probes": probes, "labels": torch.ones(count, dtype=torch.int64), "answers": answers, "clean": probes, "clean_answers": answers.clone(),
    }  # fmt: skip
    return Key("sac", "hardened", state_digest(model()), facts, tensors)


def answered(key: Key, away: float = 0.1) -> Observation:
    """Return what a model answers that is ``away`` from the owner's: .1 for a thief, 9 for a stranger."""
    own = key.tensors["answers"][key.facts["draws"]["own"]]
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(2))
    answers = own + away * noise if away < 1 else 3 * noise
    return Observation(Access.WEIGHTS, {"answers": answers}, len(own), ("It was slow.",), "ab" * 32)


KEY = small_key()
TAKEN = Taken("shop/v1", None, "asked over its public address")


@pytest.fixture
def committed(tmp_path):
    made = commit_to(KEY, tmp_path / "c.json")
    return replace(date(made, tmp_path / "c.json", publication="Gazette 12/2019, page 3", published=EARLIER), released=OUT)


@pytest.fixture
def bundle(committed):
    return make_bundle(KEY, answered(KEY), TAKEN, SIGNER, committed=committed, seeds={"seed": 0})


def resealed(bundle: bytes, change) -> bytes:
    """Return the bundle as somebody who has the signing key would forge it."""
    statement = json.loads(open_envelope(bundle)[0])
    return seal(canonical_json(change(statement)), SIGNER)


def with_two_keys(tmp_path, first: Key, other: Key, used: Key):
    """Return a dated commitment to two keys, opened to one of them."""
    made = commit_to(first, tmp_path / "two.json", others=[other])
    date(made, tmp_path / "two.json", publication="Gazette 12/2019, page 3", published=EARLIER)
    return read_committed(tmp_path / "two.json", used, released=OUT)


def test_of_several_keys_the_first_decides_and_the_p_of_another_counts_for_all(tmp_path):
    other = replace(KEY, facts={**KEY.facts, "label": "another one"})
    first = with_two_keys(tmp_path, KEY, other, KEY)
    assert (first.place, first.count) == (0, 2)
    verdict = weigh(answered(KEY), KEY, first)
    assert verdict.stolen
    assert verdict.headlines[0].startswith("The commitment names 2 keys; this is the first, which decides.")
    second = replace(read_committed(tmp_path / "two.json", other), released=OUT)
    assert second.place == 1
    verdict = weigh(answered(other), other, second)  # p = .05, twice
    assert (verdict.decision.value, verdict.p_value) == ("undecided", 0.05)
    assert "this is number 2, whose p counts 2 times" in verdict.headlines[0]
    checked = check_bundle(make_bundle(other, answered(other), TAKEN, SIGNER, committed=second), released=OUT)
    assert checked.verdict.decision.value == "undecided"
    assert any("number 2" in told for told in checked.verdict.headlines)
    with pytest.raises(InputError, match="names 2 keys, and not these 2 in this order"):
        first.require(other, KEY)


def test_a_bundle_says_how_many_keys_the_commitment_names(bundle):
    assert "The commitment names one key, this one" in check_bundle(bundle).verdict.headlines[-1]
    undated = make_bundle(KEY, answered(KEY), TAKEN, SIGNER)
    assert "How many keys the claimant has is unknown" in check_bundle(undated).verdict.headlines[-1]


def test_a_bundle_gives_the_verdict_again_and_says_who_signed(bundle, committed):
    verdict = weigh(answered(KEY), KEY, committed)
    assert verdict.stolen
    assert (verdict.draws, verdict.p_value, verdict.strength) == (19, 0.05, "weak")
    checked = check_bundle(bundle, trusted=SIGNER.public, released=OUT)
    assert checked.known
    assert replace(checked.verdict, headlines=verdict.headlines) == verdict
    assert checked.verdict.headlines[0].startswith("The siblings and their answers are the owner's figures: nobody asked them again")
    assert not check_bundle(bundle).known
    with pytest.raises(UnsafeFileError, match="not by the trusted key"):
        check_bundle(bundle, trusted=SigningKey.fresh().public)


def test_the_bundle_fits_its_schema_and_holds_what_the_verdict_needs(bundle):
    envelope = json.loads(bundle)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    schema = json.loads((SCHEMAS / "evidence-2.schema.json").read_text())
    jsonschema.validate(statement, schema)
    jsonschema.validate(statement["commitment"]["record"], json.loads((SCHEMAS / "commitment-1.schema.json").read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**statement, "observation": None}, schema)
    assert statement["suspect"] == {"name": "shop/v1", "digest": None, "obtained": "asked over its public address"}
    assert statement["seeds"] == {"seed": 0}


def test_every_bit_of_a_small_bundle_counts():
    key = small_key(2, 1, 0)
    whole = make_bundle(key, answered(key), TAKEN, SIGNER)
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
        (lambda s: {**s, "version": 3}, "newer modelward"),
        (lambda s: {**s, "version": 1}, "made by an older modelward, whose verdicts counted other draws"),
        (lambda s: {**s, "schema": "modelward/key"}, "its schema is not"),
        (lambda s: {**s, "verdict": {**s["verdict"], "statistic": 0.1}}, "states statistic 0.1"),
        (lambda s: {**s, "verdict": {**s["verdict"], "p_value": 0.001}}, "states p_value"),
        (lambda s: {**s, "verdict": {**s["verdict"], "decision": "not stolen"}}, "states decision"),
        (lambda s: {**s, "key_digest": "00" * 32}, "contradicts itself"),
        (lambda s: {**s, "draws": {}}, "contradicts itself"),
        (lambda s: {**s, "draws": {**s["draws"], "own": 4}}, "contradicts itself"),
        (lambda s: {**s, "verdict": {**s["verdict"], "draws": 99}}, "states draws 99"),
        (lambda s: {**s, "commitment": None}, "states decision stolen, from its answers follows related"),
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
    assert check_bundle(near, released=OUT).verdict.stolen
    with pytest.raises(UnsafeFileError, match="threshold"):
        check_bundle(far)


def test_the_day_is_the_checkers_and_never_the_bundles(bundle):
    assert json.loads(open_envelope(bundle)[0])["verdict"]["decision"] == "stolen"
    found = check_bundle(bundle, model=model()).verdict
    assert found.decision is Decision.RELATED
    assert check_bundle(bundle, released=OUT).verdict.decision is Decision.STOLEN
    early = check_bundle(bundle, released=EARLIER, model=model()).verdict
    assert early.decision is Decision.RELATED
    assert any("does not count" in text for text in early.caveats)


def test_without_a_commitment_the_claimants_model_has_to_be_shown():
    made = make_bundle(KEY, answered(KEY), TAKEN, SIGNER)
    hidden = check_bundle(made, trusted=SIGNER.public, released=OUT).verdict
    assert hidden.matches
    assert hidden.decision is Decision.UNDECIDED
    assert hidden.caveats[0].startswith("The claimant's model was not shown")
    for shown in (model(), lambda key: model() if key.method == "sac" else None):
        assert check_bundle(made, model=shown).verdict.decision is Decision.RELATED
    with pytest.raises(InputError, match="not the one that the key in the bundle names: their digests differ"):
        check_bundle(made, model=model(1))


def test_a_suspect_that_is_the_claimants_model_says_nothing():
    same = replace(answered(KEY, 0.0), digest=state_digest(model()))
    found = check_bundle(make_bundle(KEY, same, TAKEN, SIGNER), model=model()).verdict
    assert found.decision is Decision.UNDECIDED
    assert found.caveats[0].startswith("The suspect is the very model that the key names")


def test_a_stranger_is_cleared_by_what_follows_from_the_answers():
    stranger = check_bundle(make_bundle(KEY, answered(KEY, 9), TAKEN, SIGNER)).verdict
    assert not stranger.matches
    assert stranger.decision is Decision.NOT_STOLEN
    assert "1 of 20 such thieves would be missed" in stranger.caveats[0]


def test_a_key_from_before_the_draws_decides_nothing_in_a_bundle_either():
    old = replace(KEY, facts={name: fact for name, fact in KEY.facts.items() if name != "draws"})
    checked = check_bundle(make_bundle(old, answered(KEY), TAKEN, SIGNER), model=model())
    assert checked.verdict.decision is Decision.UNDECIDED
    assert checked.verdict.caveats[0].startswith("The key was made before calibration by siblings and other secrets: enrol again")
    jsonschema.validate(json.loads(canonical_json(checked.statement)), json.loads((SCHEMAS / "evidence-2.schema.json").read_text()))


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
        json.loads(open_envelope(make_bundle(KEY, answered(KEY), TAKEN, SIGNER))[0]), verdict, signer="x", known=True, notes=()
    )
    assert undated["defeats"][0].startswith("Nothing dates the key")
    assert verdict["headlines"][1].startswith("By the owner's word training began at weights drawn anew")


def test_a_commitment_has_two_halves_that_are_never_overwritten(tmp_path):
    path = tmp_path / "c.json"
    made = commit_to(KEY, path)
    assert opening_path(path).stat().st_mode & 0o777 == 0o600
    assert made.opening.nonce not in path.read_text()
    assert read_committed(path, KEY).record == made.record
    with pytest.raises(UsageError, match="never overwritten"):
        commit_to(KEY, path)
    with pytest.raises(InputError, match="to another key"):
        read_committed(path, small_key(30))
    opening_path(path).unlink()
    with pytest.raises(InputError, match="nobody can tell which key"):
        read_committed(path, KEY)
