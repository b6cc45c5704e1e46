"""Commitments: a digest that fixes a key before a dispute, and what says when it was fixed."""

from __future__ import annotations

import base64
import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509

from modelward.core.canonical import digest_bytes
from modelward.core.commitment import Commitment
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.io.documents import texts
from modelward.io.timestamps import Stamp, stamp_request, verified_stamp

SCHEMA = "modelward/commitment"
OPENING = "modelward/opening"
VERSION = 1
NONCE = 32
MOST_KEYS = 100
_UNCHECKED = (
    "The commitment counts for nothing by its time stamp, which was not checked: pass the authority's root certificate with --tsa-root."
)


@dataclass(frozen=True)
class Opening:
    """What stays with the owner: digests of keys and a nonce. Whoever has it can check the commitment, nobody else can guess it.

    Parameters
    ----------
    key_digest
        of the key that is named first: it decides.
    nonce
        32 random bytes, in hex.
    others
        digests of further keys: they stand beside the first, and p counts as often as there are keys.

    Examples
    --------
    >>> opening = Opening.fresh("00" * 32)
    >>> opening.digest == digest_bytes(opening.message), Opening.of(opening.document(), "o.json") == opening
    (True, True)
    >>> Opening.fresh("00" * 32, "11" * 32).place_of("11" * 32)
    1
    """

    key_digest: str
    nonce: str
    others: tuple[str, ...] = ()

    @classmethod
    def fresh(cls, key_digest: str, *others: str) -> Opening:
        """Return an opening with a new nonce; raises `UsageError` for a key that is named twice."""
        if len({key_digest, *others}) < 1 + len(others):
            raise UsageError("a commitment names every key once; one of these was given twice")
        if len(others) >= MOST_KEYS:
            message = f"a commitment names at most {MOST_KEYS} keys, got {1 + len(others)}"
            raise UsageError(message)
        return cls(key_digest, secrets.token_hex(NONCE), others)

    @classmethod
    def of(cls, document: dict[str, Any], name: str) -> Opening:
        """Read an opening back; raises `FormatError` when it is none."""
        others = document.get("others", [])
        if not isinstance(others, list) or len(others) >= MOST_KEYS or not all(isinstance(one, str) for one in others):
            message = f"{name} is damaged or was altered: its further keys are no list of digests"
            raise FormatError(message)
        first, nonce = texts(document, "key_digest", "nonce", name=name)
        made = cls(first, nonce, tuple(others))
        _require_digits(name, made.key_digest, made.nonce, *made.others)
        if len(set(made.digests)) < len(made.digests):
            message = f"{name} is damaged or was altered: it names a key twice"
            raise FormatError(message)
        return made

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of all keys, the first one first."""
        return (self.key_digest, *self.others)

    def place_of(self, key_digest: str) -> int:
        """Return which of the keys this one is; raises `InputError` for one that is not among them."""
        if key_digest not in self.digests:
            raise InputError("the commitment is to another key: what was fixed is not what is in this one")
        return self.digests.index(key_digest)

    @property
    def message(self) -> bytes:
        """The bytes that the commitment is the SHA-256 of."""
        head = f"modelward commitment 2\n{len(self.digests)} keys" if self.others else "modelward commitment 1"
        return "\n".join([head, *self.digests, self.nonce, ""]).encode()

    @property
    def digest(self) -> str:
        """The commitment: what may be published."""
        return digest_bytes(self.message)

    @property
    def request(self) -> bytes:
        """An RFC 3161 request for a time stamp on the commitment (DER)."""
        return stamp_request(self.message)

    def document(self) -> dict[str, Any]:
        """Return the opening as its file holds it."""
        told = {"schema": OPENING, "version": VERSION, "key_digest": self.key_digest, "nonce": self.nonce}
        return {**told, "others": list(self.others)} if self.others else told


@dataclass(frozen=True)
class Record:
    """What may be published of a commitment, with what dates it: tokens of time-stamping authorities, a place of publication, both or neither.

    Parameters
    ----------
    digest
        the commitment, SHA-256 in hex.
    made
        the owner's own clock, ISO 8601: it proves nothing.
    token
        an RFC 3161 reply (DER).
    publication, published
        where it was published, in words that let a reader find it, and on which day, as the owner says.

    Examples
    --------
    >>> record = Record("00" * 32, "2020-01-01T00:00:00+00:00", publication="Gazette 12/2019, page 3", published="2019-12-01")
    >>> Record.of(record.document(), "c.json") == record, record.commitment()[0].kind
    (True, 'publication')
    """

    digest: str
    made: str
    token: bytes | None = None
    publication: str | None = None
    published: str | None = None

    @classmethod
    def fresh(cls, opening: Opening) -> Record:
        """Return the record of a new commitment: undated."""
        return cls(opening.digest, dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))

    @classmethod
    def of(cls, document: dict[str, Any], name: str) -> Record:
        """Read a record back; raises `FormatError` when it is none."""
        digest, made = texts(document, "digest", "made", name=name)
        _require_digits(name, digest)
        given = {field: document[field] for field in ("token", "publication", "published") if document.get(field) is not None}
        texts(given, *given, name=name)
        try:
            token = base64.b64decode(given["token"], validate=True) if "token" in given else None
            published = dt.date.fromisoformat(given["published"]).isoformat() if "published" in given else None
        except ValueError as error:
            message = f"{name} is damaged or was altered: {error}"
            raise FormatError(message) from error
        return cls(digest, made, token, given.get("publication"), published)

    def document(self) -> dict[str, Any]:
        """Return the record as its file holds it."""
        token = None if self.token is None else base64.b64encode(self.token).decode()
        return {
            "schema": SCHEMA, "version": VERSION, "digest": self.digest, "made": self.made, "token": token,
            "publication": self.publication, "published": self.published,
        }  # fmt: skip

    def stamped(self, token: bytes, roots: Sequence[x509.Certificate] = ()) -> Record:
        """Return the record with a token; with ``roots`` a token that does not hold is refused with `FormatError`."""
        if roots:
            self._stamp(token, roots)
        return replace(self, token=token)

    def _stamp(self, token: bytes, roots: Sequence[x509.Certificate]) -> Stamp:
        """Return what a token says of this commitment."""
        return verified_stamp(token, bytes.fromhex(self.digest), list(roots))

    def commitment(self, roots: Sequence[x509.Certificate] = (), released: str | None = None) -> tuple[Commitment, tuple[str, ...]]:
        """Return what the record is worth, and what is to be said of that.

        Parameters
        ----------
        roots
            certificates of the authorities that the reader trusts; a token that they do not vouch for counts for nothing.
        released
            the day (ISO 8601) on which the suspect was known to be out: what is dated after the day before it does not count.
        """
        candidates = list[Commitment]()
        notes = list[str]()
        if self.token is not None and roots:
            try:
                stamp = self._stamp(self.token, roots)
                candidates.append(Commitment(self.digest, "rfc3161", stamp.time, stamp.authority))
            except FormatError as error:
                notes.append(f"The commitment counts for nothing by its time stamp: {error}.")
        elif self.token is not None:
            notes.append(_UNCHECKED)
        stamped = bool(candidates)
        if self.publication:
            candidates.append(Commitment(self.digest, "publication", self.published, self.publication))
            notes.append("The publication of the commitment is as claimed: look it up before you believe it.")
        for candidate in candidates:
            late = _late(candidate, released)
            if late is None:
                return replace(candidate, seen=released), (*notes, *([] if released else [_UNKNOWN_RELEASE]))
            notes.append(late)
            if stamped:  # the date that can be checked decides, not the one that is claimed
                notes += [_CLAIMED] if self.publication else []
                break
        if not candidates and self.token is None:
            notes.append("The commitment is undated: neither a time stamp nor a publication says when it was made.")
        return Commitment(self.digest), tuple(notes)


_CLAIMED = "A publication is claimed beside the time stamp; it does not count where the stamp, which can be checked, does not."
_UNKNOWN_RELEASE = "The commitment was not compared with the day on which you first saw the suspect: pass it with --released."


def _late(commitment: Commitment, released: str | None) -> str | None:
    """Return why a date does not count, or ``None``."""
    time = None if commitment.time is None else dt.date.fromisoformat(commitment.time[:10])
    if time is not None and time > dt.datetime.now(dt.UTC).date():
        return f"The commitment of {time} ({commitment.where}) does not count: that day is still to come."
    if released is None:
        return None
    if dt.date.fromisoformat(released) > dt.datetime.now(dt.UTC).date():
        return f"The commitment ({commitment.where}) does not count: nobody has seen a suspect on {released}, which is still to come."
    if time is None:
        return f"The commitment ({commitment.where}) does not count: it has no date to compare with the suspect's release on {released}."
    if time >= dt.date.fromisoformat(released):
        return f"The commitment of {time} ({commitment.where}) does not count: the suspect was out on {released} already."
    return None


def _require_digits(name: str, *values: str) -> None:
    """Raise `FormatError` unless every value is 32 bytes in hex."""
    if not all(len(value) == 2 * NONCE and set(value) <= set("0123456789abcdef") for value in values):
        message = f"{name} is damaged or was altered: digests and nonces have {2 * NONCE} hexadecimal digits"
        raise FormatError(message)


def opened(record: Record, opening: Opening, key_digest: str) -> Record:
    """Return ``record`` once ``opening`` leads from it to the key.

    Raises
    ------
    InputError
        when the opening is not that of the commitment, or the commitment is to another key.
    """
    if opening.digest != record.digest:
        raise InputError("the opening is not that of this commitment: their digests differ")
    opening.place_of(key_digest)
    return record


def require_publication(text: str | None) -> str | None:
    """Return a place of publication that a reader can find; raises `UsageError` for a few letters."""
    if text is not None and (len(text.strip()) < 8 or len(text) > 500 or not text.isprintable()):
        raise UsageError("--publication says in 8 to 500 characters where the commitment can be looked up")
    return text
