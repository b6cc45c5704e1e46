"""Where results may go: asked before hours of work, not after them."""

from __future__ import annotations

from pathlib import Path

from modelward.core.errors import UsageError


def require_free(path: Path, option: str, what: str) -> None:
    """Raise `UsageError` for a file that exists, or one in a folder that does not.

    Parameters
    ----------
    option, what
        the option that named it, and what would be written: ``"--out-key"``, ``"a key"``.
    """
    if path.exists():
        message = f"{path} exists, and {what} is never overwritten; pass another {option} or move it away"
        raise UsageError(message)
    if not path.absolute().parent.is_dir():
        message = f"the folder {path.parent} of {option} does not exist; make it first"
        raise UsageError(message)
