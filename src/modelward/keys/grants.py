"""A grant: what one user was issued, for what, and until when."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any

from modelward.core.errors import UsageError

ACTIVE, REVOKED, EXPIRED = "active", "revoked", "expired"
_NAME = re.compile(r"[^\W_][\w.@+-]{0,63}")
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Request:
    """What is asked for: a user, the digest of the user's secret, and the last day of the grant (ISO 8601) or ``None``."""

    user: str
    secret_digest: str
    expires: str | None = None


@dataclass(frozen=True)
class Grant:
    """What one user was issued.

    Parameters
    ----------
    purpose
        what for: the name of the method.
    user
        the user's name.
    generation
        of the master secret that the user's secret comes from, >= 1.
    number
        place of the user among those of the purpose, from 0: it picks the codeword.
    status
        ``active`` or ``revoked``; `state` knows the calendar too.
    issued, revoked
        times in UTC, ISO 8601.
    expires
        the last day on which the grant holds, ISO 8601, or ``None``.
    secret_digest
        SHA-256 of the user's secret.
    key_digest, key_file
        digest of the content of the key that was made, and its file relative to the registry's folder.

    Examples
    --------
    >>> grant = Grant("zhang", "ann", 1, 0, ACTIVE, "2030-01-01T00:00:00+00:00", "2030-06-30", None, "00" * 32, None, None)
    >>> [grant.state(dt.date(2030, 6, day)) for day in (30,)], grant.state(dt.date(2030, 7, 1))
    (['active'], 'expired')
    """

    purpose: str
    user: str
    generation: int
    number: int
    status: str
    issued: str
    expires: str | None
    revoked: str | None
    secret_digest: str
    key_digest: str | None
    key_file: str | None

    @classmethod
    def checked(cls, **given: Any) -> Grant:
        """Return a grant of values that a file brought; raises `ValueError` for what none of ours ever wrote."""
        texts = {name: given[name] for name in ("purpose", "user", "status", "issued", "secret_digest")}
        texts |= {name: given[name] for name in ("expires", "revoked", "key_digest", "key_file") if given[name] is not None}
        wrong = [name for name, value in texts.items() if not isinstance(value, str)]
        wrong += [name for name in ("generation", "number") if not isinstance(given[name], int) or given[name] < 0]
        wrong += [name for name in ("purpose", "user") if name not in wrong and not _NAME.fullmatch(given[name])]
        wrong += [name for name in ("secret_digest", "key_digest") if given[name] is not None and not _DIGEST.fullmatch(str(given[name]))]
        if wrong or given["status"] not in {ACTIVE, REVOKED}:
            message = f"a grant with an impossible {wrong[0] if wrong else 'status'}"
            raise ValueError(message)
        if given["expires"] is not None:
            dt.date.fromisoformat(given["expires"])
        return cls(**given)

    def state(self, today: dt.date | None = None) -> str:
        """Return ``active``, ``revoked`` or ``expired`` on a day (UTC; by default this one)."""
        over = self.expires is not None and is_past(self.expires, today)
        return EXPIRED if self.status == ACTIVE and over else self.status


def today() -> dt.date:
    """Return this day in UTC, by which grants begin and end."""
    return dt.datetime.now(dt.UTC).date()


def is_past(day: str, now: dt.date | None = None) -> bool:
    """Return whether a day (ISO 8601) lies before another one, by default this one.

    >>> is_past("2030-06-30", dt.date(2030, 6, 30)), is_past("2030-06-30", dt.date(2030, 7, 1))
    (False, True)
    """
    return (now or today()) > dt.date.fromisoformat(day)


def require_name(name: str) -> str:
    """Return a name of a user or purpose, which also names files; raises `UsageError` for another.

    >>> require_name("ann@lab-2")
    'ann@lab-2'
    """
    if not _NAME.fullmatch(name):
        message = f"a name has 1 to 64 letters, digits, '.', '_', '-', '+' or '@' and begins with a letter or digit, got {name[:70]!r}"
        raise UsageError(message)
    return name


def require_day(text: str | None) -> str | None:
    """Return a day as ISO 8601, or ``None`` for none; raises `UsageError` for what is no day.

    >>> require_day("2030-06-30"), require_day(None)
    ('2030-06-30', None)
    """
    if not text:
        return None
    try:
        return dt.date.fromisoformat(text.strip()).isoformat()
    except ValueError as error:
        message = f"a day is written as 2030-06-30, not as {text[:40]!r}"
        raise UsageError(message) from error


def require_ahead(day: str | None) -> str | None:
    """Return the last day of a grant that is to be made, or ``None`` for none; raises `UsageError` for a day that is past.

    >>> require_ahead("9999-12-31"), require_ahead(None)
    ('9999-12-31', None)
    """
    if day is not None and is_past(day):
        message = f"{day} is past, so the grant would never hold; its last day is today or later"
        raise UsageError(message)
    return day
