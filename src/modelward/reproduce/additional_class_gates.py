"""What is asked of the additional class, and whether it holds: figures picked from rows, each with its interval."""

from __future__ import annotations

from typing import Any

from modelward.audit.section import percent
from modelward.reproduce.fingerprint_tables import Rows, yes
from modelward.statistics import newcombe, wilson


def of(rows: Rows, **wanted: str) -> Rows:
    """Return the rows in which every field has the wanted value.

    >>> of([{"metric": "hits", "attack": "none"}], metric="hits", attack="prune")
    []
    """
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def first(rows: Rows, **wanted: str) -> dict[str, Any] | None:
    """Return the first of the rows that `of` gives."""
    return next(iter(of(rows, **wanted)), None)


def told(row: dict[str, Any] | None) -> str:
    """Return a rate with its interval, and a dash where there is none."""
    return "-" if row is None else percent(row)


def share(rows: Rows, **wanted: str) -> float | None:
    """Return the smallest value, over the seeds, of the rows that `of` gives."""
    return min((row["value"] for row in of(rows, **wanted) if row["value"] is not None), default=None)


def rated(value: float, n: int) -> dict[str, Any]:
    """Return a rate of which only value and sample size are known, as a row with its Wilson interval.

    >>> told(rated(0.5, 10))
    '50.0 % [23.7, 76.3]'
    """
    found = wilson(round(value * n), n)
    return {"value": found.value, "ci_low": found.low, "ci_high": found.high, "n": n}


def gates(rows: Rows) -> list[list[object]]:
    """Return the gates of the issue; the worst seed counts."""
    made: list[list[object]] = []

    def gate(name: str, target: str, value: float | None, met: bool, n: int) -> None:
        made.append([name, target, "-" if value is None or not n else told(rated(value, n)), n, yes(value is not None and met)])

    for name in ("paper", "hardened"):
        hits = share(rows, configuration=name, metric="hits", attack="none")
        n = (first(rows, configuration=name, metric="hits", attack="none") or {}).get("n", 0)
        gate(f"{name}: key images found", ">= 99 %", hits, (hits or 0) >= 0.99, n)
        read = share(rows, configuration=name, metric="users_read", attack="users")
        gate(f"{name}: payloads read", "100 %", read, read == 1, (first(rows, configuration=name, metric="users_read") or {}).get("n", 0))
        after = share(rows, configuration=name, metric="hits", attack="wrap-reconstruct")
        gate(f"{name}: key images found behind an autoencoder", ">= 90 %", after, (after or 0) >= 0.9, n)
        made.append(_lost(rows, name))
        taken = _most(rows, name, "class_on_test", "none")
        gate(
            f"{name}: class answered to test images",
            "<= 0.1 %",
            taken,
            taken is not None and taken <= 0.001,
            _n(rows, name, "class_on_test", "none"),
        )
    for kind, limit in (("random noise", 0.01), ("other-seed keys", 0.05)):
        worst = _most(rows, "hardened", "class_answered", kind)
        gate(
            f"hardened: class answered to {kind}",
            f"<= {limit:.0%}",
            worst,
            worst is not None and worst <= limit,
            _n(rows, "hardened", "class_answered", kind),
        )
    for metric, words in (("nulls_matched", "null models accused"), ("strangers_matched", "other owners' marked models accused")):
        worst = _most(rows, "hardened", metric)
        gate(f"hardened: {words}", "0", worst, worst == 0, (first(rows, configuration="hardened", metric=metric) or {}).get("n", 0))
    wrong = _most(rows, "hardened", "misattributed")
    gate("users misattributed", "<= 0.1 %", wrong, wrong is not None and wrong <= 0.001, _n(rows, "hardened", "misattributed", "users"))
    return made


def _lost(rows: Rows, name: str) -> list[object]:
    """Return the gate of the accuracy that the mark costs, in the worst seed."""
    found = [
        (newcombe((round(row["extra"]["before"] * row["n"]), row["n"]), (round(row["value"] * row["n"]), row["n"])), row["n"])
        for row in of(rows, configuration=name, metric="accuracy", attack="none")
    ]
    drop, n = max(found, key=lambda pair: pair[0].value, default=(None, 0))
    words = "-" if drop is None else f"{100 * drop.value:.1f} [{100 * drop.low:.1f}, {100 * drop.high:.1f}]"
    return [f"{name}: accuracy lost", "<= 2 points", words, n, yes(drop is not None and drop.value <= 0.02 + 1e-9)]


def _n(rows: Rows, name: str, metric: str, attack: str) -> int:
    """Return the sample size of a figure."""
    return int((first(rows, configuration=name, metric=metric, attack=attack) or {}).get("n", 0))


def _most(rows: Rows, name: str, metric: str, attack: str | None = None) -> float | None:
    """Return the largest value over the seeds."""
    found = of(rows, configuration=name, metric=metric, **({"attack": attack} if attack else {}))
    return max((row["value"] for row in found), default=None)
