"""Headers for a service, such as a token: from a file or the environment, never from argv."""

from __future__ import annotations

import os
import re
from pathlib import Path

from modelward.core.errors import UsageError
from modelward.io.age import Secret
from modelward.io.files import read_bytes

VARIABLE = "MODELWARD_HEADERS"
CAP = 16_384
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "expect"})


def read_headers(file: Path | None = None) -> dict[str, Secret]:
    """Return headers, one ``Name: value`` a line, from a file or ``$MODELWARD_HEADERS``; blank lines and lines with ``#`` first are skipped.

    Raises
    ------
    UsageError
        naming the line, never its content, when one is malformed or sets what the request itself must set.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "token"
    >>> _ = path.write_text("Authorization: Bearer 1234")
    >>> read_headers(path)
    {'Authorization': Secret(***)}
    """
    source = file.name if file else f"${VARIABLE}"
    try:
        text = read_bytes(file, cap=CAP).decode("utf-8-sig") if file else os.environ.get(VARIABLE, "")
    except UnicodeDecodeError:
        message = f"{source} is no text"
        raise UsageError(message) from None
    found: dict[str, Secret] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        fine = (
            colon and _NAME.fullmatch(name) and value.strip() and all(32 <= ord(char) < 256 and ord(char) != 127 for char in value.strip())
        )
        if not fine or name.lower() in _OURS or name in found:
            message = f"line {number} of {source} is no header 'Name: value' of your own, or comes twice"
            raise UsageError(message)
        found[name] = Secret(value.strip())
    if file and not found:
        message = f"{source} holds no header; write for example: Authorization: Bearer TOKEN"
        raise UsageError(message)
    return found
