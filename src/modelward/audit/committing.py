"""Commit to a key, date the commitment, and say what it is worth when the key is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelward.core.canonical import canonical_json
from modelward.core.commitment import Commitment
from modelward.core.errors import InputError, UsageError
from modelward.core.key import Key
from modelward.io.atomic import write_bytes
from modelward.io.documents import read_document
from modelward.io.files import read_bytes
from modelward.io.timestamps import CAP, ask_authority, certificates
from modelward.keys.commitments import OPENING, SCHEMA, VERSION, Opening, Record, opened, require_publication
from modelward.keys.files import key_digest
from modelward.keys.grants import require_day


@dataclass(frozen=True)
class Committed:
    """A commitment that was opened to a key, with what dates it.

    Parameters
    ----------
    record, opening
        the published and the private half.
    roots
        PEM certificates of the time-stamping authorities that are trusted; empty for none.
    released
        the day on which the suspect was known to be out, ISO 8601.
    place
        which of the keys that the commitment names this one is, from 0.
    """

    record: Record
    opening: Opening
    roots: bytes = b""
    released: str | None = None
    place: int = 0

    @property
    def count(self) -> int:
        """How many keys the commitment names."""
        return len(self.opening.digests)

    def require(self, *keys: Key) -> None:
        """Raise `InputError` unless ``keys`` are those that the commitment names, in its order; one of them may stand for all."""
        given = tuple(key_digest(key) for key in keys)
        if len(given) > 1 and given != self.opening.digests:
            message = f"the commitment names {self.count} keys, and not these {len(given)} in this order; commit to them at another --out"
            raise InputError(message)

    def trusting(self, roots: Path) -> Committed:
        """Return the same with the authorities in a PEM file trusted; raises `FormatError` when there are none in it."""
        return replace(self, roots=_pem(roots))

    def worth(self) -> tuple[Commitment, tuple[str, ...]]:
        """Return what it counts for, and what is to be said of that; see `Record.commitment`."""
        worth, notes = self.record.commitment(certificates(self.roots, "the root certificate") if self.roots else (), self.released)
        return replace(worth, place=self.place, count=self.count), notes

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "record": self.record.document(), "opening": self.opening.document(), "roots": self.roots.decode("ascii", "replace"),
            "released": self.released,
        }  # fmt: skip


def told_keys(committed: Committed | None) -> str:
    """Return how many keys a claimant's commitment names, and which of them decides, in a sentence.

    >>> told_keys(None)
    'How many keys the claimant has is unknown: no commitment names them.'
    """
    if committed is None:
        return "How many keys the claimant has is unknown: no commitment names them."
    if committed.count == 1:
        return "The commitment names one key, this one; whether the claimant made other commitments is unknown."
    which = "the first, which decides" if not committed.place else f"number {committed.place + 1}, whose p counts {committed.count} times"
    return f"The commitment names {committed.count} keys; this is {which}. Whether the claimant made other commitments is unknown."


def opening_path(path: Path) -> Path:
    """Return where the private half of the commitment ``path`` is kept.

    >>> opening_path(Path("c.json")).name
    'c.opening.json'
    """
    return path.with_suffix(".opening.json")


def read_committed(
    path: Path, key: Key, *, opening: Path | None = None, roots: Path | None = None, released: str | None = None
) -> Committed:
    """Return the commitment in ``path``, opened to ``key``.

    Raises
    ------
    InputError
        when a file is absent, or the commitment is to another key.
    FormatError
        when a file is damaged, or a root is no certificate.
    UsageError
        for a day that is none.
    """
    half = opening or opening_path(path)
    if not half.exists():
        message = f"the opening {half} of the commitment is not there: without it nobody can tell which key was committed to"
        raise InputError(message)
    record = Record.of(read_document(path, SCHEMA, VERSION), path.name)
    private = Opening.of(read_document(half, OPENING, VERSION), half.name)
    pem = b"" if roots is None else _pem(roots)
    digest = key_digest(key)
    return Committed(opened(record, private, digest), private, pem, require_day(released), private.place_of(digest))


def _pem(path: Path) -> bytes:
    """Return the content of a PEM file that holds certificates."""
    data = read_bytes(path, cap=CAP)
    certificates(data, path.name)
    return data


def commit_to(key: Key, path: Path, *, others: Sequence[Key] = ()) -> Committed:
    """Commit to ``key``: write the public half to ``path`` and the private half (mode 0600) beside it; neither is ever overwritten.

    ``others``: further keys to name. The first alone decides; the others stand beside it, and their p counts as often as there are keys.
    """
    half = opening_path(path)
    taken = next((each for each in (path, half) if each.exists()), None)
    if taken is not None:
        message = f"{taken} exists, and a commitment is never overwritten; pass another name"
        raise UsageError(message)
    private = Opening.fresh(*(key_digest(one) for one in (key, *others)))
    record = Record.fresh(private)
    write_bytes(half, canonical_json(private.document()), mode=0o600)
    write_bytes(path, canonical_json(record.document()))
    return Committed(record, private)


def date(
    committed: Committed, path: Path, *, authority: str | None = None, token: bytes | None = None, publication: str | None = None,
    published: str | None = None,
) -> Committed:  # fmt: skip
    """Add what dates a commitment, and write its public half anew.

    Parameters
    ----------
    authority
        address of an RFC 3161 time-stamping authority: it is sent the digest and nothing else.
    token
        the reply (DER) that was had from one by other means.
    publication, published
        where the commitment can be looked up, and since which day.

    Raises
    ------
    FormatError
        for a token that is on something else, or not signed by an authority that the roots of ``committed`` vouch for.
    UsageError
        for a publication that nobody could find.
    """
    record = committed.record
    if authority is not None:
        token = ask_authority(authority, committed.opening.request)
    if token is not None:
        record = record.stamped(token, certificates(committed.roots, "the root certificate") if committed.roots else ())
    if publication is not None:
        record = replace(record, publication=require_publication(publication), published=require_day(published))
    write_bytes(path, canonical_json(record.document()))
    return replace(committed, record=record)
