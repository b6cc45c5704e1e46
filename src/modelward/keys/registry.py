"""The registry: who was issued what, until when, and who may no longer use it. It holds digests, never a secret."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from modelward.core.errors import FormatError, InputError, UsageError
from modelward.io.atomic import claim_file
from modelward.io.files import one_line
from modelward.keys.database import ATTEMPTS, GRANTS, MARK, NOTES, VERSION, explained, open_file, require_ours
from modelward.keys.grants import ACTIVE, REVOKED, Grant, Request, require_name

PATIENCE = 30.0


class Registry:
    """Users and their grants in one SQLite file (mode 0600); two processes may write at once.

    Each purpose (usually the method's name) numbers its users 0, 1, 2, ... in the order of issue: the number picks a user's codeword, is never
    used twice, and stays when a grant is renewed under a newer generation of the master secret.

    Parameters
    ----------
    path
        the file.
    create
        make it when it is absent; otherwise an absent file is refused.
    patience
        seconds to wait for another process that writes.

    Raises
    ------
    InputError
        when there is no such file.
    FormatError
        for a file that is damaged, no registry, or of a newer version.
    StoreError
        when it cannot be read or written: locked by another process, a read-only disk, a full disk.

    Examples
    --------
    >>> import tempfile
    >>> registry = Registry(Path(tempfile.mkdtemp()) / "registry.sqlite", create=True)
    >>> registry.issue([Request("ann", "00" * 32), Request("bob", "11" * 32)], purpose="zhang", generation=1)[1].number
    1
    >>> registry.revoke("ann")
    1
    >>> [(grant.user, grant.state()) for grant in registry.grants()]
    [('ann', 'revoked'), ('bob', 'active')]
    """

    def __init__(self, path: Path | str, *, create: bool = False, patience: float = PATIENCE) -> None:
        self.path = Path(path)
        self.made = create and claim_file(self.path)
        if not self.path.is_file():
            message = f"there is no registry {self.path}; `modelward issue` makes one, or pass its place with --registry"
            raise InputError(message)
        empty = self.path.stat().st_size == 0  # asked first: another process may fill it meanwhile
        self._engine = open_file(self.path, patience)
        with self._connected("read") as connection:
            found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("application_id", "user_version")}
        require_ours(self.path.name, found["application_id"], found["user_version"], empty=empty)
        if found["application_id"] == 0:
            self._make()

    @contextlib.contextmanager
    def _connected(self, what: str, *, write: bool = False) -> Iterator[Connection]:
        """Yield a connection in one transaction; a writing one holds the file from its first statement on."""
        try:
            with self._engine.connect() as connection, connection.begin():
                connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
        except (SQLAlchemyError, ValueError) as error:
            raise explained(self.path, what, error) from error

    def _make(self) -> None:
        """Make the tables; of two processes at once the second finds them made."""
        with self._connected("made", write=True) as connection:
            for table in (GRANTS, NOTES):
                connection.execute(CreateTable(table, if_not_exists=True))
            connection.exec_driver_sql(f"PRAGMA application_id={MARK}")
            connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")

    def issue(
        self, requests: Sequence[Request], *, purpose: str, generation: int, check: Callable[[Grant], object] = lambda _: None
    ) -> list[Grant]:
        """Record grants in one transaction, all or none, and return them in order.

        Parameters
        ----------
        requests
            users with the digests of their secrets.
        purpose, generation
            what for, and under which generation of the master secret.
        check
            is shown every grant before it is recorded; when it raises, none is.

        Raises
        ------
        UsageError
            for a user who was revoked, or who has a grant of this generation already, naming the user.
        """
        for request in requests:
            require_name(request.user)
        require_name(purpose)
        now = _now()
        with self._connected("written", write=True) as connection:
            numbers = _numbers(connection, purpose)
            made = [self._grant(connection, request, purpose, generation, numbers, now) for request in requests]
            for grant in made:
                check(grant)
            if made:
                connection.execute(insert(GRANTS), [vars(grant) for grant in made])
        return made

    @staticmethod
    def _grant(
        connection: Connection, request: Request, purpose: str, generation: int, numbers: dict[str, int], now: str
    ) -> Grant:  # fmt: skip
        """Return the grant of one request; a user's number is that of the first grant."""
        known = GRANTS.c
        rows = connection.execute(select(GRANTS).where(known.user == request.user, known.purpose == purpose)).all()
        if any(row.status == REVOKED for row in rows):
            message = f"user {request.user} was revoked for {purpose} on {rows[0].revoked[:10]}; issue under another name"
            raise UsageError(message)
        if any(row.generation == generation for row in rows):
            message = (
                f"user {request.user} has a grant for {purpose} already (number {rows[0].number}, generation {generation}); "
                "rotate the master secret to renew it"
            )
            raise UsageError(message)
        number = numbers.setdefault(request.user, max(numbers.values(), default=-1) + 1)
        return Grant(purpose, request.user, generation, number, ACTIVE, now, request.expires, None, request.secret_digest, None, None)

    def revoke(self, user: str, *, purpose: str | None = None) -> int:
        """Revoke a user's grants, for one purpose or for all, and return how many were active; raises `InputError` for a stranger."""
        ours = GRANTS.c.user == user if purpose is None else (GRANTS.c.user == user) & (GRANTS.c.purpose == purpose)
        with self._connected("written", write=True) as connection:
            if not connection.execute(select(func.count()).select_from(GRANTS).where(ours)).scalar_one():
                raise InputError(unknown(user, purpose, self.path))
            change = update(GRANTS).where(ours, GRANTS.c.status == ACTIVE).values(status=REVOKED, revoked=_now())
            return int(connection.execute(change).rowcount)

    def record(self, grant: Grant, *, key_digest: str, key_file: str) -> Grant:
        """Record which key file was made for a grant, by the digest of its content and its name relative to the registry's folder."""
        mine = (GRANTS.c.purpose == grant.purpose) & (GRANTS.c.user == grant.user) & (GRANTS.c.generation == grant.generation)
        with self._connected("written", write=True) as connection:
            connection.execute(update(GRANTS).where(mine).values(key_digest=key_digest, key_file=key_file))
        return replace(grant, key_digest=key_digest, key_file=key_file)

    def grants(self, *, user: str | None = None, purpose: str | None = None) -> list[Grant]:
        """Return grants, by purpose, number and generation."""
        query = select(GRANTS).order_by(GRANTS.c.purpose, GRANTS.c.number, GRANTS.c.generation)
        for column, value in ((GRANTS.c.user, user), (GRANTS.c.purpose, purpose)):
            query = query if value is None else query.where(column == value)
        with self._connected("read") as connection:
            return [_of_row(row, self.path.name) for row in connection.execute(query)]

    def require(self, user: str, purpose: str) -> Grant:
        """Return the newest grant of a user who may use it now; raises `InputError` for a stranger, a revoked or an expired grant."""
        found = self.grants(user=user, purpose=purpose)
        if not found:
            raise InputError(unknown(user, purpose, self.path))
        newest = found[-1]
        if newest.state() != ACTIVE:
            when = newest.revoked[:10] if newest.revoked else newest.expires
            message = f"the grant of user {user} for {purpose} is {newest.state()} since {when}"
            raise InputError(message)
        return newest

    def attempt(self, user: str, purpose: str, *, most: int) -> int:
        """Count an attempt of a user to come in and return its number, from 1; raises `InputError` when ``most`` failed since the last `pardon`.

        It is counted before it is judged, in one transaction: two processes never let more than ``most`` guesses through.
        """
        ours = (ATTEMPTS.c.user == user) & (ATTEMPTS.c.purpose == purpose)
        with self._connected("written", write=True) as connection:
            connection.execute(CreateTable(ATTEMPTS, if_not_exists=True))
            count = int(connection.execute(select(ATTEMPTS.c.count).where(ours)).scalar() or 0)
            if count >= most:
                message = (
                    f"user {user} is locked out of {purpose} after {count} failed attempts; the owner lifts that: modelward pardon {user}"
                )
                raise InputError(message)
            row = {"purpose": purpose, "user": user, "count": count + 1}
            connection.execute(insert(ATTEMPTS).prefix_with("OR REPLACE"), [row])
        return count + 1

    def pardon(self, user: str, purpose: str) -> None:
        """Forget a user's failed attempts: one came in after all, or the owner says so."""
        with self._connected("written", write=True) as connection:
            connection.execute(CreateTable(ATTEMPTS, if_not_exists=True))
            connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.user == user, ATTEMPTS.c.purpose == purpose))

    def notes(self) -> Mapping[str, str]:
        """Return what the registry remembers of itself: ``backup``, the time of its last backup."""
        with self._connected("read") as connection:
            return {row.name: row.value for row in connection.execute(select(NOTES))}

    def backup(self, target: Path | str) -> None:
        """Write a whole copy of the registry to a new file, consistent even while others write, and remember when; raises `UsageError` if it exists."""
        copy = Path(target)
        if not claim_file(copy):
            message = f"{copy} exists, and a backup overwrites nothing; pass another name"
            raise UsageError(message)
        with self._connected("written", write=True) as connection:
            connection.execute(insert(NOTES).prefix_with("OR REPLACE"), [{"name": "backup", "value": _now()}])
        with self._connected("copied") as connection, contextlib.closing(sqlite3.connect(copy)) as other:
            driver: Any = connection.connection.driver_connection
            driver.backup(other)


def unknown(user: str, purpose: str | None, path: Path) -> str:
    """Return the sentence on a user that a registry does not know."""
    return f"there is no user {one_line(user, 64)!r}{f' for {purpose}' if purpose else ''} in the registry {path.name}"


def _numbers(connection: Connection, purpose: str) -> dict[str, int]:
    """Return the numbers that a purpose's users have."""
    rows: Iterable[Row[Any]] = connection.execute(select(GRANTS.c.user, GRANTS.c.number).where(GRANTS.c.purpose == purpose))
    return {row.user: row.number for row in rows}


def _of_row(row: Row[Any], name: str) -> Grant:
    """Return a row as a grant; what somebody wrote into the file by hand is not believed."""
    try:
        return Grant.checked(**row._mapping)  # noqa: SLF001  # SQLAlchemy's public name of it
    except (TypeError, ValueError) as error:
        message = f"{name} is damaged or was altered: {one_line(error)}"
        raise FormatError(message) from error


def _now() -> str:
    """Return the time in UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
