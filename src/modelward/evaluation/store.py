"""The store: rows in SQLite, arrays as safetensors named by their digest. Content-addressed, atomic, free of torch."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    URL,
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from modelward._version import __version__
from modelward.core.canonical import canonical_json
from modelward.core.errors import StoreError, UnsafeFileError
from modelward.evaluation.cell import Cell, Finished, Outcome
from modelward.io.atomic import sweep, write_bytes
from modelward.io.files import one_line, sha256_file
from modelward.io.home import default_home
from modelward.io.safetensors import dump_arrays, load_arrays

_META = MetaData()
_CELLS = Table(
    "cells", _META,
    Column("key", String(64), primary_key=True), Column("work", Text, nullable=False), Column("label", Text, nullable=False),
    Column("settings", Text, nullable=False), Column("seed", Integer, nullable=False), Column("threads", Integer, nullable=False),
    Column("precision", Text, nullable=False), Column("seconds", Float, nullable=False), Column("artifact", String(64)),
    Column("finished", Text, nullable=False), Column("version", Text, nullable=False), Column("rows", Text, nullable=False),
)  # fmt: skip
STALE_TEMP_SECONDS = 3600.0
_DIGEST = re.compile("[0-9a-f]{64}")


def _durable(connection: sqlite3.Connection, _record: object) -> None:
    """Keep out of the WAL-reset range: rollback journal, full sync."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=DELETE")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=60000")
    cursor.close()


def _values(cell: Cell, outcome: Outcome, artifact: str | None, seconds: float) -> dict[str, Any]:
    """Return a finished cell as a row of the table."""
    return {
        "key": cell.key, "work": cell.work, "label": cell.label, "settings": canonical_json(dict(cell.settings)).decode(), "seed": cell.seed,
        "threads": cell.threads, "precision": cell.precision, "seconds": seconds, "artifact": artifact, "version": __version__,
        "finished": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "rows": canonical_json(outcome.rows).decode(),
    }  # fmt: skip


class Store:
    """Finished cells under one folder.

    Parameters
    ----------
    folder
        where ``cells.sqlite`` and ``blobs/`` live; made when absent.

    Raises
    ------
    StoreError
        when the folder cannot be written or the database cannot be read.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_home()
        self.blobs = self.folder / "blobs"
        try:
            self.blobs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"the store {self.folder} cannot be made: {error.strerror}; set $MODELWARD_HOME to a folder you may write"
            raise StoreError(message) from error
        sweep(self.blobs, STALE_TEMP_SECONDS)
        self._engine = self._open()

    def _open(self) -> Engine:
        """Open the database and make its table when it is new; two processes may do so at once."""
        engine = create_engine(URL.create("sqlite", database=str(self.folder / "cells.sqlite")))
        event.listen(engine, "connect", _durable)
        with self._connected("opened", "move it away", engine) as connection:
            connection.execute(CreateTable(_CELLS, if_not_exists=True))
        return engine

    @contextlib.contextmanager
    def _connected(self, what: str, remedy: str, engine: Engine | None = None) -> Iterator[Connection]:
        """Yield a connection in one transaction; what goes wrong is a `StoreError` saying what could not be done."""
        try:
            with (engine or self._engine).begin() as connection:
                yield connection
        except (SQLAlchemyError, ValueError, RecursionError) as error:  # ValueError: rows or a schema that are no JSON, no text
            message = (
                f"the store {self.folder} cannot be {what}: {one_line(getattr(error, 'orig', error))}; {remedy} or set $MODELWARD_HOME"
            )
            raise StoreError(message) from error

    def put(self, arrays: Mapping[str, NDArray[np.generic]], facts: Mapping[str, str] | None = None) -> str:
        """Write arrays as one content-addressed file and return its digest; a damaged file of that name is replaced."""
        return self.take(dump_arrays(dict(arrays), dict(facts or {})))

    def take(self, data: bytes) -> str:
        """Keep the bytes of an artefact as another store made them, and return their digest."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        if not path.exists() or sha256_file(path) != digest:
            try:
                path.parent.mkdir(exist_ok=True)
            except OSError as error:
                message = f"the store {self.folder} cannot be written: {error.strerror}; set $MODELWARD_HOME to a folder you may write"
                raise StoreError(message) from error
            write_bytes(path, data)
        return digest

    def path(self, digest: str) -> Path:
        """Return where the artefact with ``digest`` is kept."""
        return self.blobs / digest[:2] / f"{digest}.safetensors"

    def _holds(self, digest: str) -> bool:
        """Return whether an artefact is there; what is no digest is none, wherever it would lead."""
        return bool(_DIGEST.fullmatch(digest)) and self.path(digest).exists()

    def get(self, digest: str) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
        """Return (arrays, facts) of an artefact; raises `UnsafeFileError` when its digest is not what it was."""
        path = self.path(digest)
        try:
            return load_arrays(path, digest=digest)
        except UnsafeFileError as error:
            message = f"{error}; delete {path} and run the same command again, which makes it anew"
            raise UnsafeFileError(message) from error

    def find(self, key: str) -> Finished | None:
        """Return the finished cell with ``key``, or ``None``; a cell whose artefact is gone counts as not done."""
        return self.find_many([key]).get(key)

    def find_many(self, keys: Iterable[str]) -> dict[str, Finished]:
        """Return the finished cells among ``keys``."""
        wanted = list(keys)
        found: dict[str, Finished] = {}
        with self._connected("read", "move it away") as connection:
            for start in range(0, len(wanted), 500):
                query = select(_CELLS).where(_CELLS.c.key.in_(wanted[start : start + 500]))
                for row in connection.execute(query).mappings():
                    if row["artifact"] is None or self._holds(row["artifact"]):
                        found[row["key"]] = Finished(row["key"], json.loads(row["rows"]), row["artifact"], row["seconds"])
        return found

    def finish(self, cell: Cell, outcome: Outcome, artifact: str | None, seconds: float) -> Finished:
        """Record a finished cell in one transaction; a cell that is already there stays as it was."""
        return self.finish_many([(cell, outcome, artifact, seconds)])[0]

    def finish_many(self, done: Sequence[tuple[Cell, Outcome, str | None, float]]) -> list[Finished]:
        """Record finished cells that came together in one transaction, all or none: a disk syncs a hundred as fast as one."""
        rows = [_values(*each) for each in done]
        stale = delete(_CELLS).where(_CELLS.c.key == bindparam("k"), _CELLS.c.artifact.is_not(bindparam("a")))
        with self._connected("written", "free some space") as connection:
            if rows:
                connection.execute(stale, [{"k": row["key"], "a": row["artifact"]} for row in rows])
                connection.execute(insert(_CELLS).prefix_with("OR IGNORE"), rows)
        return [Finished(row["key"], json.loads(row["rows"]), row["artifact"], row["seconds"], cached=False) for row in rows]

    def listing(self) -> Iterator[dict[str, Any]]:
        """Yield label, work, seconds, finish time and size of every finished cell, oldest first."""
        with self._connected("read", "move it away") as connection:
            for row in connection.execute(select(_CELLS).order_by(_CELLS.c.finished)).mappings():
                size = self.path(row["artifact"]).stat().st_size if row["artifact"] and self._holds(row["artifact"]) else 0
                yield {**{name: row[name] for name in ("key", "label", "work", "seed", "seconds", "finished", "version")}, "bytes": size}

    def count(self) -> int:
        """Return the number of finished cells."""
        with self._connected("read", "move it away") as connection:
            return int(connection.execute(select(func.count()).select_from(_CELLS)).scalar_one())

    def clear(self) -> int:
        """Forget every cell and artefact; return how many cells there were."""
        count = self.count()
        with self._connected("cleared", "delete it") as connection:
            connection.execute(delete(_CELLS))
        for path in self.blobs.rglob("*.safetensors"):
            path.unlink(missing_ok=True)
        return count
