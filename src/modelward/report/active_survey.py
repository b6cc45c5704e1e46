"""From rows to the survey of active protection: what each lock does of what is asked of one. Nothing but rows and cards is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelward.core.canonical import canonical_json
from modelward.report.files import csv_text, write_files
from modelward.report.matrix import name_of
from modelward.report.page import environment

Row = Mapping[str, Any]
REQUIREMENTS = {
    "effectiveness": "accuracy with the key: at most 2 points below the original",
    "denial": "accuracy without it: at most 5 points above chance; of networks trained on locked images, 30 points below the original",
    "security": "no key of random content opens it, and none of another build (most are refused for a digest); cutting the lock out of the file "
    "leaves at most 5 points above chance",
    "uniqueness": "every user's key names its user",
    "fidelity": "what locking costs whoever holds the key, paired: at most 2 points",
    "stealth": "by what the lock could be noticed",
    "robustness": "the best unlock, beside training from scratch on the same images: at most 15 points above chance, or no better than from scratch",
    "scalability": "time to issue a key, or a copy of unlocked images, to one more user",
    "overhead": "time of an authorised answer beside a plain one; time to lock",
    "revocability": "what revoking a user takes",
    "black-box feasibility": "whether it works where the model is only asked through an interface",
}
POINTS_LOST, POINTS_ABOVE, POINTS_UNLOCKED = 0.02, 0.05, 0.15


def summary(rows: Sequence[Row], active: Mapping[str, Mapping[str, str]], unmade: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the survey: one entry a lock, with its measurements, what becomes of each requirement, and every attempt to undo it.

    Parameters
    ----------
    rows
        of the cells that lock and unlock.
    active
        by method: what its card says of active protection.
    unmade
        locks that could not be made, and why; they keep their row, empty.

    Examples
    --------
    >>> rows = [{"metric": m, "method": "m", "variant": "paper", "value": v, "n": 100, "ci_low": v, "ci_high": v, "extra": {"chance": 0.1}, "unit": "fraction"}
    ...         for m, v in (("original", 0.8), ("authorised", 0.8), ("unauthorised", 0.3))]
    >>> line = summary(rows, {})["rows"][0]
    >>> line["requirements"]["effectiveness"]["passes"], line["requirements"]["denial"]["passes"], line["requirements"]["stealth"]["text"]
    (True, False, '')
    """
    names = [*dict.fromkeys(name_of(row) for row in rows), *(unmade or {})]
    made = [_line(name, [row for row in rows if name_of(row) == name], active.get(name.partition(",")[0], {})) for name in names]
    return {"requirements": REQUIREMENTS, "rows": [{**line, "why": (unmade or {}).get(line["name"], "")} for line in made]}


def _line(name: str, own: Sequence[Row], card: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry of one lock, from its own rows."""
    first: dict[str, Row] = {}
    for row in own:
        first.setdefault(row["metric"], row)
    tried = [row for row in own if row["metric"] == "recovered"]
    chance = first.get("original", {}).get("extra", {}).get("chance")
    judged = {**_working(first, chance), **_misused(first, chance), "robustness": _robust(tried, chance), **_running(first, card)}
    return {
        "name": name,
        "carrier": card.get("carrier", ""),
        "identity": card.get("identity", ""),
        "chance": chance,
        "measures": first,
        "requirements": {requirement: judged[requirement] for requirement in REQUIREMENTS},
        "attempts": sorted(tried, key=lambda row: -row["value"]),
    }


def _said(text: str = "", *, passes: bool | None = None) -> dict[str, Any]:
    """Return what becomes of a requirement; without a figure, nothing."""
    return {"text": text, "passes": passes}


def _figure(row: Row) -> str:
    """Return a share with its 95 % interval."""
    return f"{row['value']:.3f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"


def _working(first: Mapping[str, Row], chance: float | None) -> dict[str, dict[str, Any]]:
    """Return what the holder of the key and everybody else can do."""
    made = {name: _said() for name in ("effectiveness", "denial", "fidelity")}
    whole, able, unable, lost = (first.get(name) for name in ("original", "authorised", "unauthorised", "fidelity_drop"))
    if whole and able:
        made["effectiveness"] = _said(f"{_figure(able)} of {whole['value']:.3f}", passes=able["value"] >= whole["value"] - POINTS_LOST)
    if unable and chance is not None:
        most = unable["extra"].get("ceiling", chance + POINTS_ABOVE)
        noise = f"; by noise as large {_figure(control)}" if (control := first.get("equal_noise")) else ""
        made["denial"] = _said(f"{_figure(unable)}, at most {most:.3f}{noise}", passes=unable["value"] <= most)
    if lost:
        made["fidelity"] = _said(
            f"{100 * lost['value']:.1f} [{100 * lost['ci_low']:.1f}, {100 * lost['ci_high']:.1f}] points",
            passes=lost["value"] <= POINTS_LOST,
        )
    elif whole and able:
        made["fidelity"] = _said("the same images, the same network", passes=True)
    return made


def _misused(first: Mapping[str, Row], chance: float | None) -> dict[str, dict[str, Any]]:
    """Return what forging a key, editing the file and passing keys on lead to."""
    made = {name: _said() for name in ("security", "uniqueness", "stealth")}
    guessed, foreign, stripped = (first.get(name) for name in ("guessed_keys_open", "foreign_keys_open", "stripped"))
    named, seen = first.get("users_named"), first.get("stealth")
    if guessed:
        told, good = f"{round(guessed['value'] * guessed['n'])} of {guessed['n']} keys open", guessed["value"] == 0
        if foreign:
            told, good = (
                f"{told}; {round(foreign['value'] * foreign['n'])} of {foreign['n']} of another build",
                good and foreign["value"] == 0,
            )
        if stripped and chance is not None:
            told, good = f"{told}; cut out: {_figure(stripped)}", good and stripped["value"] <= chance + POINTS_ABOVE
        made["security"] = _said(told, passes=good)
    if named:
        made["uniqueness"] = _said(f"{round(named['value'] * named['n'])} of {named['n']} named", passes=named["value"] == 1)
    if seen:
        made["stealth"] = _said(f"{seen['value']:.2f} {seen['unit']}")
    return made


def _named(row: Row) -> str:
    """Return what an attempt is called: several thefts in order by what they are together."""
    return str(row["extra"].get("group") if row["attack"] == "combined" else row["attack"])


def _robust(tried: Sequence[Row], chance: float | None) -> dict[str, Any]:
    """Return the best unlock among the attempts: of those that gain more than they may, the one that gains most; else the most accurate."""
    measured = [row for row in tried if row["value"] is not None]
    if not measured or chance is None:
        return _said()
    gains = [row for row in measured if row["value"] > _allowed(row, chance)]
    worst = max(gains, key=lambda row: row["value"] - _allowed(row, chance)) if gains else max(measured, key=lambda row: row["value"])
    scratch = worst["extra"].get("from_scratch")
    told = f"{_figure(worst)} by {_named(worst)}" + (f" ({scratch:.3f} from scratch)" if scratch is not None else "")
    return _said(told, passes=worst["value"] <= _allowed(worst, chance))


def _allowed(row: Row, chance: float) -> float:
    """Return what an attempt may reach: what is allowed to any, or the upper end of what training from scratch reaches at its budget."""
    interval = row["extra"].get("from_scratch_ci")
    most = row["extra"].get("ceiling", chance + POINTS_UNLOCKED)
    return max(most, float(interval[1])) if interval else float(most)


def _running(first: Mapping[str, Row], card: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what keeping the lock costs."""
    issue, slower, locking = (first.get(name) for name in ("issue_seconds", "latency", "lock_seconds"))
    costs = [f"{slower['value']:.2f} x"] if slower else []
    costs += [f"{locking['value']:.0f} s to lock"] if locking else []
    return {
        "scalability": _said(f"{issue['value']:.2g} s a user" if issue else ""),
        "overhead": _said("; ".join(costs)),
        "revocability": _said(card.get("revocable", "")),
        "black-box feasibility": _said(card.get("black_box", "")),
    }


def csv_rows(survey: Mapping[str, Any]) -> Iterable[list[str]]:
    """Yield the survey as lines of a table: a header, then one line a lock."""
    yield ["lock", *survey["requirements"]]
    for line in survey["rows"]:
        yield [line["name"], *(line["requirements"][name]["text"] for name in survey["requirements"])]


def render_survey(document: Mapping[str, Any]) -> str:
    """Return the survey as one HTML page that loads nothing.

    Parameters
    ----------
    document
        schema ``modelward/active-survey``, version 1.
    """
    return environment().get_template("active_survey.html.j2").render(d=document, s=document["survey"])


def write_survey(document: Mapping[str, Any], folder: Path, stem: str = "active-survey") -> list[Path]:
    """Write ``STEM.html``, ``STEM.csv`` and ``STEM.json`` into ``folder`` and return their paths.

    Raises
    ------
    StoreError
        when the folder cannot be written.
    """
    table = csv_text(csv_rows(document["survey"]))
    return write_files(folder, stem, {"html": render_survey(document), "csv": table, "json": canonical_json(document)})
