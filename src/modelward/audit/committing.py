"""Commit to a key, date the commitment, and say what it is worth when the key is used."""

from __future__ import annotations

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
    """

    record: Record
    opening: Opening
    roots: bytes = b""
    released: str | None = None

    def trusting(self, roots: Path) -> Committed:
        """Return the same with the authorities in a PEM file trusted; raises `FormatError` when there are none in it."""
        return replace(self, roots=_pem(roots))

    def worth(self) -> tuple[Commitment, tuple[str, ...]]:
        """Return what it counts for, and what is to be said of that; see `Record.commitment`."""
        return self.record.commitment(certificates(self.roots, "the root certificate") if self.roots else (), self.released)

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "record": self.record.document(), "opening": self.opening.document(), "roots": self.roots.decode("ascii", "replace"),
            "released": self.released,
        }  # fmt: skip


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
    return Committed(opened(record, private, key_digest(key)), private, pem, require_day(released))


def _pem(path: Path) -> bytes:
    """Return the content of a PEM file that holds certificates."""
    data = read_bytes(path, cap=CAP)
    certificates(data, path.name)
    return data


def commit_to(key: Key, path: Path) -> Committed:
    """Commit to ``key``: write the public half to ``path`` and the private half (mode 0600) beside it; neither is ever overwritten."""
    half = opening_path(path)
    taken = next((each for each in (path, half) if each.exists()), None)
    if taken is not None:
        message = f"{taken} exists, and a commitment is never overwritten; pass another name"
        raise UsageError(message)
    private = Opening.fresh(key_digest(key))
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
