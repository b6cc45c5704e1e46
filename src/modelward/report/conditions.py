"""Conditions on the rows of a report, as in ``robust_acc < .4``: what continuous integration fails on."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from modelward.core.errors import UsageError
from modelward.core.nearest import nearest

OPERATORS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
# name: (metric, words that a row must carry, words that stand in when the condition names none)
NAMES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "clean_acc": ("accuracy", ("none",), ()),
    "robust_acc": ("accuracy", ("pgd",), ("linf 8/255",)),
    "noise_acc": ("accuracy", ("noise",), ("linf 8/255",)),
    "corrupted_acc": ("accuracy", (), ("jpeg", "quality 50")),
    "thief_acc": ("thief_accuracy", (), ()),
    "ece": ("calibration_error", (), ()),
} | {
    metric: (metric, (), ())
    for metric in ("accuracy", "class_accuracy", "calibration_error", "thief_accuracy", "auc", "auc_accuracy_matched", "recognised",
                   "false_claims", "accused")
}  # fmt: skip
_SHAPE = re.compile(r"\s*(?P<name>\w+)(?:\.(?P<end>\w+))?\s*(?:\[(?P<words>[^\]]*)\])?\s*(?P<op><=|>=|<|>)\s*(?P<limit>[^\s<>=]+)\s*")
_ENDS = {None: "value", "value": "value", "low": "ci_low", "high": "ci_high"}
_FIELDS = ("attack", "budget", "method", "variant", "data", "model")


@dataclass(frozen=True)
class Condition:
    """One condition.

    Parameters
    ----------
    text
        as written.
    metric, words
        the rows it is about: of that metric, with every word equal to one of the row's attack, budget, method, variant, data or model.
    end
        ``value``, ``ci_low`` or ``ci_high`` of the row.
    op, limit
        the comparison; the condition is met when it holds for any of the rows.
    """

    text: str
    metric: str
    words: tuple[str, ...]
    end: str
    op: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``NAME[WORD, ...] < NUMBER``; ``NAME.low`` and ``NAME.high`` are the ends of the 95 % interval.

        Raises
        ------
        UsageError
            for another shape, an unknown name (with the nearest one) or a limit that is no number.

        Examples
        --------
        >>> Condition.parse("robust_acc < .4").words
        ('pgd', 'linf 8/255')
        >>> Condition.parse("auc.low[extract-L] <= 95%").limit
        0.95
        >>> Condition.parse("robust_ac < .4")
        Traceback (most recent call last):
        ...
        modelward.core.errors.UsageError: a condition on 'robust_ac' cannot be checked; did you mean 'robust_acc'?
        """
        found = _SHAPE.fullmatch(text)
        if not found:
            message = f"a condition reads NAME < NUMBER, as in 'robust_acc < .4' or 'auc.low[FTAL] < .9', not {text!r}"
            raise UsageError(message)
        name, end = found["name"], found["end"]
        if name not in NAMES:
            hint = nearest(name, NAMES) or f"; known: {', '.join(NAMES)}"
            message = f"a condition on {name!r} cannot be checked{hint}"
            raise UsageError(message)
        if end not in _ENDS:
            message = f"{name}.{end}: a condition looks at {name}, {name}.low or {name}.high"
            raise UsageError(message)
        metric, always, usual = NAMES[name]
        words = tuple(word.strip().lower() for word in (found["words"] or "").split(",") if word.strip())
        return cls(text.strip(), metric, always + (words or usual), _ENDS[end], found["op"], _number(found["limit"], text))

    def concerns(self, row: Mapping[str, Any]) -> bool:
        """Return whether the condition looks at ``row``."""
        known = {str(row.get(name, "")).lower() for name in _FIELDS}
        return row["metric"] == self.metric and all(word in known for word in self.words)

    def check(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Return the outcome as a check of a report: ``failed`` when the condition is met, ``not tested`` when no figure is about it."""
        about = [row for row in rows if self.concerns(row) and row.get(self.end) is not None]
        met = [row for row in about if OPERATORS[self.op](row[self.end], self.limit)]
        if not about:
            return {"name": self.text, "status": "not tested", "text": "no figure was measured that this is about", "fix": ""}
        shown = met or about
        figures = "; ".join(_figure(row, self.end) for row in shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
        fix = f"{len(met)} of {len(about)} figures meet the condition" if met else ""
        return {"name": self.text, "status": "failed" if met else "passed", "text": figures, "fix": fix}


def _figure(row: Mapping[str, Any], end: str) -> str:
    """Return one figure in words."""
    what = " ".join(str(row[name]) for name in ("attack", "budget") if row.get(name) not in {"", "none", None})
    return f"{row[end]:.4g}" + (f" ({what})" if what else "")


def _number(text: str, condition: str) -> float:
    """Return the limit: ``.4``, ``40%`` or ``8/255``."""
    try:
        return float(Fraction(text.removesuffix("%"))) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        message = f"the condition {condition!r} compares with a number, as in .4, 40% or 8/255, not with {text!r}"
        raise UsageError(message) from None


def condition_checks(texts: Iterable[str], sections: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a check for every condition over the rows of all sections."""
    rows = [row for part in sections for row in part["rows"]]
    return [Condition.parse(text).check(rows) for text in texts]
