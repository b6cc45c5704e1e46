"""A hook of the documentation build: formulae between dollar signs become MathML, which browsers draw by themselves."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_FORMULA = re.compile(r"(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?![\w$])")


def on_page_markdown(markdown: str, **_: Any) -> str:
    r"""Return a page with its formulae as MathML; code stays as it is.

    >>> on_page_markdown(r"`$a$` and $x^2$").startswith("`$a$` and <span><math")
    True
    """
    # a line that began with <math would be a block of its own; <span stands in a line
    parts = _CODE.split(markdown)
    return "".join(
        part if index % 2 else _FORMULA.sub(lambda found: f"<span>{convert(found[1])}</span>", part) for index, part in enumerate(parts)
    )
