"""Views of the matrix: the same rows in another order. A view is a writer of files, by its name on the command line.

The locks have rows of their own, and a view of their own: `modelward.report.active_survey`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelward.core.errors import UsageError
from modelward.core.nearest import nearest
from modelward.report.survey_page import write_survey

Writer = Callable[[Mapping[str, Any], Path], list[Path]]
VIEWS: dict[str, Writer] = {"ip-survey": write_survey}


def view_named(name: str) -> Writer:
    """Return the writer of a view; raises `UsageError` for one that there is not.

    Examples
    --------
    >>> view_named("ip-survey").__name__
    'write_survey'
    """
    if name not in VIEWS:
        message = f"there is no view {name!r}{nearest(name, (*VIEWS, 'active-survey'))}; known: {', '.join((*VIEWS, 'active-survey'))}"
        raise UsageError(message)
    return VIEWS[name]
