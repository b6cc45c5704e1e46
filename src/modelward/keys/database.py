"""The registry's file: its tables, how it is opened, and what goes wrong with it in one sentence."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import URL, Column, Integer, MetaData, String, Table, Text, UniqueConstraint, create_engine, event
from sqlalchemy.engine import Engine

from modelward.core.errors import FormatError, StoreError
from modelward.io.files import one_line

VERSION = 1
MARK = 0x6D776172  # "mwar": says to SQLite's own tools whose file it is
_META = MetaData()
GRANTS = Table(
    "grants", _META,
    Column("purpose", String(64), primary_key=True), Column("user", String(64), primary_key=True),
    Column("generation", Integer, primary_key=True), Column("number", Integer, nullable=False), Column("status", String(16), nullable=False),
    Column("issued", Text, nullable=False), Column("expires", Text), Column("revoked", Text), Column("secret_digest", String(64), nullable=False),
    Column("key_digest", String(64)), Column("key_file", Text), UniqueConstraint("purpose", "number", "generation"),
)  # fmt: skip
ATTEMPTS = Table(  # younger than the file's version: made when it is first written to
    "attempts", _META, Column("purpose", String(64), primary_key=True), Column("user", String(64), primary_key=True),
    Column("count", Integer, nullable=False),
)  # fmt: skip
NOTES = Table("notes", _META, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))


def open_file(path: Path, patience: float) -> Engine:
    """Return an engine that begins no transaction by itself and waits ``patience`` seconds for others who write."""
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": patience})

    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous=FULL")

    event.listen(engine, "connect", prepare)
    return engine


def require_ours(name: str, mark: int, version: int, *, empty: bool) -> None:
    """Raise `FormatError` for a database of somebody else or of a newer modelward; a new, empty file is ours to fill."""
    if mark != MARK and not (mark == 0 and empty):
        message = f"{name} is a database, but no registry of modelward"
        raise FormatError(message)
    if version > VERSION:
        message = f"{name} was made by a newer modelward (registry version {version}, this one reads up to {VERSION}); update modelward"
        raise FormatError(message)


def explained(path: Path, what: str, error: Exception) -> FormatError | StoreError:
    """Return what went wrong with a registry that should be ``what`` (read, written, ...)."""
    text = one_line(getattr(error, "orig", error))
    if "locked" in text:
        return StoreError(f"the registry {path} is locked by another process; wait until it is done and run the same command again")
    if any(word in text for word in ("not a database", "malformed", "no such table", "no such column", "Could not decode", "corrupt")):
        return FormatError(f"{path.name} is damaged or no registry of modelward: {text}; restore it from its backup")
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return StoreError(f"the registry {path} cannot be {what}: its disk or file is read-only; copy it to a place that you may write")
    return StoreError(f"the registry {path} cannot be {what}: {text}")
