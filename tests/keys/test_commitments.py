"""Commitments: what opens them, what dates them, and what does not count."""

import base64
import datetime as dt
import json

import pytest
import torch

from modelward.core.errors import FormatError, InputError, UnavailableError, UsageError
from modelward.core.key import Key
from modelward.io import timestamps
from modelward.io.age import Secret
from modelward.io.documents import parse_document
from modelward.io.timestamps import ask_authority, certificates
from modelward.keys import read_key, write_key
from modelward.keys.commitments import SCHEMA, Opening, Record, opened, require_publication
from modelward.keys.files import key_digest

DAY = dt.datetime.now(dt.UTC).date()
TOMORROW, YESTERDAY = ((DAY + dt.timedelta(days)).isoformat() for days in (1, -1))


def key(value: int = 0) -> Key:
    return Key("zhang", "hardened", "00" * 32, {"n": 1.5}, {"probes": torch.full((2, 3), value), "null": torch.zeros(2)})


@pytest.fixture
def opening():
    return Opening.fresh(key_digest(key()))


@pytest.fixture
def record(opening):
    return Record.fresh(opening)


def test_the_digest_of_a_key_is_that_of_its_content_wherever_it_lies(tmp_path, quick):
    write_key(tmp_path / "a.mw", key())
    (tmp_path / "b.mw").write_bytes(quick((tmp_path / "a.mw").read_bytes(), "words"))
    read = [read_key(tmp_path / "a.mw"), read_key(tmp_path / "b.mw", passphrase=Secret("words"))]
    assert {key_digest(each) for each in read} == {key_digest(key())}
    others = [
        key(1),
        Key("zhang", "paper", "00" * 32, {"n": 1.5}, key().tensors),
        Key("zhang", "hardened", "00" * 32, {"n": 2}, key().tensors),
    ]
    assert len({key_digest(each) for each in (key(), *others)}) == 4


def test_a_commitment_opens_with_its_own_opening_to_its_own_key_only(opening, record):
    assert opened(record, opening, key_digest(key())) is record
    with pytest.raises(InputError, match="to another key"):
        opened(record, opening, key_digest(key(1)))
    with pytest.raises(InputError, match="not that of this commitment"):
        opened(record, Opening.fresh(key_digest(key())), key_digest(key()))
    assert opening.nonce not in json.dumps(record.document())


def test_what_nobody_dated_is_worth_nothing(record):
    commitment, notes = record.commitment()
    assert not commitment.dated
    assert "undated" in notes[0]


def test_a_token_counts_only_for_those_who_trust_its_authority(opening, record, authority, stranger):
    token = authority.stamp(opening.request)
    assert authority.agrees(token, record.digest)
    assert not authority.agrees(token, "00" * 32)
    roots = certificates(authority.pem, "root")
    stamped = Record.of(json.loads(json.dumps(record.stamped(token, roots).document())), "c.json")
    commitment, notes = stamped.commitment(roots)
    assert (commitment.kind, commitment.dated, commitment.where) == ("rfc3161", True, "CN=Test authority")
    assert abs(dt.datetime.fromisoformat(commitment.time) - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    assert "--released" in notes[0]
    unchecked, notes = stamped.commitment()
    assert not unchecked.dated
    assert "--tsa-root" in notes[0]
    distrusted, notes = stamped.commitment(certificates(stranger.pem, "root"))
    assert not distrusted.dated
    assert "does not hold" in notes[0]
    with pytest.raises(FormatError, match="does not hold"):
        record.stamped(stranger.stamp(opening.request), roots)


def test_a_token_on_something_else_does_not_hold(opening, record, authority):
    roots = certificates(authority.pem, "root")
    other = authority.stamp(Opening.fresh(opening.key_digest).request)
    with pytest.raises(FormatError, match="does not hold"):
        record.stamped(other, roots)
    whole = authority.stamp(opening.request)
    place = whole.index(bytes.fromhex(record.digest))
    with pytest.raises(FormatError, match="does not hold"):
        record.stamped(whole[:place] + bytes(32) + whole[place + 32 :], roots)
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        with pytest.raises(FormatError, match="does not hold"):
            record.stamped(whole[:cut], roots)


def test_no_flipped_bit_of_a_token_says_another_time(opening, record, authority):
    """A few bits (the outer status, unsigned attributes) mean nothing to a signature; whatever is accepted says what was signed."""
    roots = certificates(authority.pem, "root")
    token = authority.stamp(opening.request)
    told = record.stamped(token).commitment(roots)[0]
    accepted = 0
    for bit in range(0, 8 * len(token), 7):
        changed = bytearray(token)
        changed[bit // 8] ^= 1 << bit % 8
        found, notes = record.stamped(bytes(changed)).commitment(roots)
        accepted += found.dated
        assert found == told if found.dated else "does not hold" in notes[0]
    assert accepted < len(token) // 8


@pytest.mark.parametrize(("released", "counts"), [(None, True), (TOMORROW, False), (DAY.isoformat(), False), (YESTERDAY, False)])
def test_a_commitment_after_the_suspect_came_out_does_not_count(opening, record, authority, released, counts):
    stamped = record.stamped(authority.stamp(opening.request))
    commitment, notes = stamped.commitment(certificates(authority.pem, "root"), released)
    assert commitment.dated is counts
    assert counts or "was out on" in notes[-1] or "still to come" in notes[-1]


def test_a_claimed_publication_does_not_mend_a_stamp_that_is_too_late(opening, record, authority):
    from dataclasses import replace

    stamped = replace(record.stamped(authority.stamp(opening.request)), publication="Gazette 12/2019, page 3", published="2019-12-01")
    roots = certificates(authority.pem, "root")
    commitment, notes = stamped.commitment(roots, YESTERDAY)
    assert not commitment.dated
    assert "does not count where the stamp" in notes[-1]
    assert (
        replace(stamped, token=None).commitment(roots, YESTERDAY)[0].kind == "publication"
    )  # whoever looked it up may ask without the stamp
    assert stamped.commitment(roots)[0].kind == "rfc3161"


def test_a_publication_is_as_claimed(record):
    from dataclasses import replace

    printed = replace(record, publication="Gazette 12/2019, page 3")
    commitment, notes = printed.commitment()
    assert commitment.dated
    assert "as claimed" in notes[0]
    assert not printed.commitment(released=TOMORROW)[0].dated  # no date to compare
    assert replace(printed, published=YESTERDAY).commitment(released=DAY.isoformat())[0].dated
    assert not replace(printed, published=TOMORROW).commitment()[0].dated  # still to come
    assert not replace(printed, published=YESTERDAY).commitment(released=YESTERDAY)[0].dated
    for text in ("Gazette", "x" * 501, "Gazette\x1b[2J 12/2019"):
        with pytest.raises(UsageError, match="looked up"):
            require_publication(text)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "xyz"}, {"digest": None}, {"made": 3}, {"token": "?"}, {"token": 7}, {"published": "soon"}, {"publication": ["a"]},
    ],
)  # fmt: skip
def test_a_damaged_record_is_one_sentence(record, change):
    with pytest.raises(FormatError, match="damaged or was altered"):
        Record.of(record.document() | change, "c.json")


def test_a_damaged_opening_and_other_documents_are_one_sentence(opening):
    with pytest.raises(FormatError, match="hexadecimal"):
        Opening.of(opening.document() | {"nonce": "Z" * 64}, "o.json")
    for data, words in (
        (b"", "no commitment"), (b"[" * 99_999, "no commitment"), (b"[]", "its schema"), (json.dumps(opening.document()).encode(), "its schema"),
        (b'{"schema": "modelward/commitment", "version": 2}', "newer"), (b'{"a": 1, "a": 2}', "twice"), (b"\xff\xfe", "no commitment"),
    ):  # fmt: skip
        with pytest.raises(FormatError, match=words):
            parse_document(data, SCHEMA, 1, name="c.json")


def test_without_the_package_one_sentence_says_what_to_install(opening, record, monkeypatch):
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(timestamps.importlib, "import_module", absent)
    with pytest.raises(UnavailableError, match=r"pip install 'modelward\[evidence\]'"):
        _ = opening.request
    for call in (lambda: record.stamped(b"x", [object()]), lambda: record.stamped(b"x").commitment([object()])):
        with pytest.raises(UnavailableError, match="pip install"):
            call()
    assert record.stamped(b"x").commitment()[1]  # what checks no token needs no package


def test_an_authority_is_asked_over_http(opening, record, authority, httpd):
    roots = certificates(authority.pem, "root")
    url = httpd(
        lambda body, headers: (200, authority.stamp(body)) if headers["Content-Type"] == "application/timestamp-query" else (415, b"")
    )
    assert record.stamped(ask_authority(url, opening.request), roots).commitment(roots)[0].dated
    with pytest.raises(InputError, match="status 404"):
        ask_authority(httpd(lambda *_: (404, b"")), opening.request)
    with pytest.raises(FormatError, match="does not hold"):
        record.stamped(ask_authority(httpd(lambda *_: (200, b"<html>hello</html>")), opening.request), roots)
    with pytest.raises(InputError, match="cannot be reached"):
        ask_authority("http://127.0.0.1:9/", opening.request, timeout=2)
    assert base64.b64encode(bytes.fromhex(opening.nonce)) not in opening.request


def test_a_root_that_is_no_certificate_is_one_sentence():
    with pytest.raises(FormatError, match="no certificate"):
        certificates(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "root.pem")


ONE, TWO, THREE = ("11" * 32, "22" * 32, "33" * 32)


def test_a_commitment_to_several_keys_has_a_first_and_an_order():
    made = Opening.fresh(ONE, TWO, THREE)
    assert Opening.of(json.loads(json.dumps(made.document())), "o.json") == made
    assert [made.place_of(digest) for digest in (ONE, TWO, THREE)] == [0, 1, 2]
    record = Record.fresh(made)
    for digest in (ONE, TWO, THREE):
        assert opened(record, made, digest) is record
    with pytest.raises(InputError, match="another key"):
        opened(record, made, "44" * 32)


@pytest.mark.parametrize(
    "changed",
    [(TWO, (ONE, THREE)), (ONE, (THREE, TWO)), (ONE, (TWO,)), (ONE, ()), (ONE, (TWO, THREE, "44" * 32))],
    ids=["another first", "another order", "one left out", "the first alone", "one more"],
)
def test_nobody_says_afterwards_which_keys_were_named(changed):
    made = Opening.fresh(ONE, TWO, THREE)
    first, others = changed
    with pytest.raises(InputError, match="digests differ"):
        opened(Record.fresh(made), Opening(first, made.nonce, others), first)


def test_a_key_is_named_once():
    with pytest.raises(UsageError, match="twice"):
        Opening.fresh(ONE, TWO, ONE)
    with pytest.raises(UsageError, match="at most 100 keys"):
        Opening.fresh(*(f"{number:064x}" for number in range(101)))
    document = Opening.fresh(ONE, TWO).document()
    for others in ([ONE], [TWO, TWO], "22", [3], ["zz"]):
        with pytest.raises(FormatError):
            Opening.of({**document, "others": others}, "o.json")


def test_the_commitment_to_one_key_is_what_it_was():
    assert Opening(ONE, TWO).message == f"modelward commitment 1\n{ONE}\n{TWO}\n".encode()
