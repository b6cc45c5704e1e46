"""Tokens that nobody can guess, for doors between processes."""

from __future__ import annotations

import secrets


def fresh_token() -> str:
    """Return 64 random hexadecimal digits of the operating system's generator.

    >>> len(fresh_token()), fresh_token() == fresh_token()
    (64, False)
    """
    return secrets.token_hex(32)
