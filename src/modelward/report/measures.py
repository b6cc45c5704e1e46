"""What each measurement of the matrix is called, how it is shown, and which value passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
# metric of a row, what the column is called, the largest value that passes
COLUMNS: tuple[tuple[str, str, float | None], ...] = (
    ("fidelity_drop", "accuracy lost", 0.02),
    ("verification", "verifies", None),
    ("false_claims", "false claims, bound", None),
    ("strangers_accused", "strangers accused", 0.0),
    ("key_specificity", "other keys fit", 0.01),
    ("forged_key_fits", "forged key fits", None),
    ("stealth", "stands out", None),
    ("capacity_bits", "bits", None),
    ("queries", "queries", None),
    ("protect_seconds", "seconds to protect", None),
    ("verify_seconds", "seconds to verify", None),
)
METRICS = (*(metric for metric, _, _ in COLUMNS), "payload_errors")  # the last is for a claim, it has no column
SAME = {"stealth": ("stealth", "key_image_auc")}  # what stands in one column: a mark is in key images or in weights
UNTESTED, NOTHING = "not tested", "-"


def taken(metric: str, rows: Sequence[Row]) -> Row | None:
    """Return the row of one protection and seed that a measurement is read from; ``None`` where it was not made.

    Examples
    --------
    >>> row = {"metric": "verification", "value": 0.0, "n": 1, "seconds": 0.25}
    >>> taken("verify_seconds", [row])["value"], taken("queries", [row])
    (0.25, None)
    """
    if metric == "verify_seconds":  # every row that verifies says how long it took
        asked = next((row for row in rows if row["metric"] == "verification"), None)
        return None if asked is None else {**asked, "metric": metric, "value": asked["seconds"], "n": 1, "unit": "seconds", "extra": {}}
    return next((row for row in rows if row["metric"] in SAME.get(metric, (metric,))), None)


def shown(metric: str, row: Row | None) -> str:
    """Return a measurement as it stands in the table; empty when it was not made.

    Examples
    --------
    >>> shown("fidelity_drop", {"value": 0.012, "n": 1000, "extra": {}}), shown("queries", None)
    ('1.2', '')
    """
    if row is None:
        return ""
    if metric == "capacity_bits":
        return _bits(row)
    if row["value"] is None:
        return UNTESTED if metric == "forged_key_fits" and row.get("flags") else ""
    said = _SAID.get(metric)
    return f"{row['value']:,.0f}" if said is None else said(row)


def _fit(row: Row) -> str:
    """Return whether the key fits what it was made for, and the p of it."""
    p = row["extra"].get("p")
    return ("yes" if row["extra"].get("matches") else "no") + (f", p {p:.2g}" if p is not None else "")


def _bound(row: Row) -> str:
    """Return the bound on false claims."""
    bound = row["extra"].get("bound")
    return "" if bound is None else f"{bound:.0%}"


def _counted(row: Row) -> str:
    """Return how many of how many."""
    return f"{round(row['value'] * row['n'])} of {row['n']}"


def _bits(row: Row) -> str:
    """Return what a mark carries: the bits that came back right, of how many and in each of how many images; a dash where it carries none."""
    extra = row["extra"]
    if not row["value"] and not extra.get("payload"):
        return NOTHING
    whole = extra.get("payload", row["value"])
    of = f" of {whole:,.0f}" if row["value"] < whole else ""
    return f"{row['value']:,.0f}{of}" + (f" in each of {extra['images']}" if extra.get("images") else "")


def _stands_out(row: Row) -> str:
    """Return how a mark gives itself away: key images by an AUC, weights by the p of their histogram, with the smallest of layers that carry none."""
    if row["metric"] == "key_image_auc":
        return f"AUC {row['value']:.2f}"
    other = row["extra"].get("least_unmarked_p")
    return f"{row['unit']} {row['value']:.2g}" + (f", other layers {other:.2g}" if other is not None else "")


def passes(metric: str, row: Row | None) -> bool | None:
    """Return whether a measurement passes its gate; ``None`` where there is no gate, or nothing was measured."""
    gate = next(most for name, _, most in COLUMNS if name == metric)
    if row is None or row["value"] is None:
        return None
    if metric == "verification":
        return bool(row["extra"].get("matches"))
    return None if gate is None else bool(row["value"] <= gate)


_SAID: Mapping[str, Callable[[Row], str]] = {
    "verification": _fit, "false_claims": _bound, "strangers_accused": _counted, "key_specificity": _counted, "stealth": _stands_out,
    "forged_key_fits": lambda row: "yes" if row["value"] else "no", "fidelity_drop": lambda row: f"{100 * row['value']:.1f}",
    "verify_seconds": lambda row: f"{row['value']:.2g}", "payload_errors": _counted,
}  # fmt: skip
BOUNDED = frozenset(
    {"false_claims", "forged_key_fits"}
)  # the bound stands there itself; forging stops where it succeeds, so it is no sample


def interval(metric: str, row: Row | None) -> str:
    """Return the 95 % interval of a measurement in the unit of its column, empty where it has none.

    Examples
    --------
    >>> interval("fidelity_drop", {"value": 0.012, "n": 1000, "ci_low": -0.004, "ci_high": 0.028}), interval("queries", {"value": 100.0, "n": 1})
    ('-0.4 to 2.8', '')
    """
    low, high = (None, None) if row is None or row["value"] is None else (row.get("ci_low"), row.get("ci_high"))
    if low is None or high is None or metric in BOUNDED:
        return ""
    if metric == "fidelity_drop":
        return f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{low:.2f} to {high:.2f}" if metric == "stealth" else f"{low:.0%} to {high:.0%}"


def beneath(metric: str, row: Row | None) -> str:
    """Return what stands beneath a measurement: its interval and n where it is a sample.

    Examples
    --------
    >>> beneath("false_claims", {"value": 0.0, "n": 10, "ci_low": 0.0, "ci_high": 0.28}), beneath("queries", {"value": 100.0, "n": 1})
    ('n 10', '')
    """
    span = interval(metric, row)
    sampled = row is not None and row["value"] is not None and (span or metric in BOUNDED)
    return ", ".join(text for text in (span, f"n {row['n']}" if row is not None and sampled else "") if text)
