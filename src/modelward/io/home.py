"""Where modelward keeps what it makes: the result store and fetched models."""

from __future__ import annotations

import os
from pathlib import Path


def default_home() -> Path:
    """Return ``$MODELWARD_HOME``, else the user's cache folder."""
    home = os.environ.get("MODELWARD_HOME")
    if home:
        return Path(home)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "modelward"
