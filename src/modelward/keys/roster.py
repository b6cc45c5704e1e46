"""Users in bulk: a CSV table with the header ``user,expires``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from modelward.core.errors import FormatError, UsageError
from modelward.io.files import one_line, read_bytes, require_text
from modelward.keys.grants import require_ahead, require_day, require_name

CAP = 4 * 2**20
MOST = 100_000


def read_roster(path: Path | str) -> list[tuple[str, str | None]]:
    r"""Return (user, last day or ``None``) of each line of a CSV table with the header ``user`` or ``user,expires``.

    Raises
    ------
    FormatError
        naming the line: another header, a name or a day that is none, a day that is past, a user who occurs twice, more than 100,000 users.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "users.csv"
    >>> _ = path.write_text("user,expires\nann,2030-06-30\nbob,\n")
    >>> read_roster(path)
    [('ann', '2030-06-30'), ('bob', None)]
    """
    name = Path(path).name
    text = require_text(read_bytes(path, cap=CAP), name)
    try:
        reader = csv.reader(io.StringIO(text), strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        message = f"{name} is no CSV table: {error}"
        raise FormatError(message) from error
    if not rows or rows[0][1] not in (["user"], ["user", "expires"]):
        message = f"{name}: the first line must be 'user,expires'"
        raise FormatError(message)
    if not 1 < len(rows) <= MOST + 1:
        message = f"{name} names {len(rows) - 1:,} users; 1 to {MOST:,} are issued at once"
        raise FormatError(message)
    found: dict[str, str | None] = {}
    for line, row in rows[1:]:
        try:
            user, day = _read(row, len(rows[0][1]))
        except UsageError as error:
            message = f"{name}, line {line}: {one_line(error)}"
            raise FormatError(message) from error
        if user in found:
            message = f"{name}, line {line}: user {user} occurs twice"
            raise FormatError(message)
        found[user] = day
    return list(found.items())


def _read(row: list[str], columns: int) -> tuple[str, str | None]:
    """Return user and last day of one line."""
    if len(row) != columns:
        message = f"{columns} cells were expected, there are {len(row)}"
        raise UsageError(message)
    return require_name(row[0]), require_ahead(require_day(row[1] if columns > 1 else None))
