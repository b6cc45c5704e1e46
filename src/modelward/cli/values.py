"""Values as people type them: sizes, settings, numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from modelward.core.errors import UsageError

_DECIMAL = re.compile(r"[-+]?\.\d+|[-+]?\d+\.")  # JSON has neither .5 nor 5.


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) from ``"32,32"``.

    >>> parse_size("28,32")
    (28, 32)
    """
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and 0 < int(part) < 4096 for part in parts):
        message = f"--size takes height and width in pixels, as in --size 32,32, not {text!r}"
        raise UsageError(message)
    return int(parts[0]), int(parts[1])


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return hyper-parameters from ``name=value`` pairs: values are numbers, fractions, true, false, null or text.

    >>> parse_settings(["count=400", "eps=8/255", "view=label", "references=null"])
    {'count': 400, 'eps': 0.03137254901960784, 'view': 'label', 'references': None}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            message = f"--set takes name=value, as in --set count=400, not {pair!r}"
            raise UsageError(message)
        if name in settings:
            message = f"--set gives {name} twice"
            raise UsageError(message)
        settings[name] = parse_value(text)
    return settings


def parse_value(text: str) -> Any:
    """Return a JSON scalar, a fraction as float, or the text itself."""
    import json
    from fractions import Fraction

    top, slash, bottom = text.partition("/")
    if slash and top.strip().isdecimal() and bottom.strip().isdecimal() and int(bottom):
        return float(Fraction(int(top), int(bottom)))
    if _DECIMAL.fullmatch(text.strip()):
        return float(text)
    try:
        value = json.loads(text, parse_constant=lambda _: text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, bool | int | float | str) else text
