"""Evidence in plain words: one page for somebody who is no engineer, with what would defeat it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

HEADLINES = {
    "stolen": "The suspect {suspect} has what the owner's model has of its own, and the owner's key is older than the suspect.",
    "related": "The suspect {suspect} and the claimant's model are related: one was made from the other, or both from a third.",
    "not stolen": "What the owner's model has of its own was not found in the suspect {suspect}, and few thieves would be missed.",
    "undecided": "Nothing can be concluded about the suspect {suspect} from this evidence.",
}
_FEW = 59


def summary(
    statement: Mapping[str, Any], verdict: Mapping[str, Any], *, signer: str, known: bool, notes: tuple[str, ...]
) -> dict[str, Any]:
    """Return the page as words.

    Parameters
    ----------
    statement
        content of an evidence bundle that was checked.
    verdict
        the verdict as it was computed again, as JSON values.
    signer, known
        public key of whoever signed, and whether the reader trusts it.
    notes
        what the check found on the way.
    """
    suspect = statement["suspect"]
    return {
        "headline": HEADLINES[verdict["decision"]].format(suspect=suspect["name"]),
        "signed": f"Signed by {signer}, " + ("the key that was trusted." if known else "which nobody vouched for: the signer is unknown."),
        "facts": _facts(statement, verdict),
        "defeats": defeats(statement, verdict, known=known),
        "notes": list(notes),
        "caveats": [*verdict["headlines"], *verdict["caveats"]],
    }


def _facts(statement: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the figures, each with its meaning."""
    suspect, made = statement["suspect"], statement["made_with"]
    threshold = "none" if verdict["threshold"] is None else f"{verdict['threshold']:.4f}"
    found = [
        ("suspect", f"{suspect['name']}, SHA-256 {suspect['digest'] or 'none: it is no file'}"),
        ("how it was obtained", str(suspect["obtained"])),
        ("method", f"{verdict['method']}, variant {verdict['variant']}"),
        ("what was measured", f"{_number(verdict['statistic'])}  {verdict['statistic_name']}; at most {threshold} is claimed"),
        ("chance of such a score", _chance(verdict)),
        ("strength", verdict["strength"] or "none is claimed"),
        ("thefts that would be missed", _misses(verdict)),
        ("asked", f"{verdict['queries']} images, access: {verdict['access']}"),
        ("key", f"SHA-256 of its content {statement['key_digest']}"),
        ("made", f"{statement['made']} by modelward {made['modelward']}, torch {made['torch']}, {made['threads']} threads"),
    ]
    if verdict["parametric_p"] is not None:
        found.insert(
            7,
            (
                "chance under an assumed distribution",
                f"{verdict['parametric_p']:.2g}; it stands beside the count, and decides nothing alone",
            ),
        )
    return found


def _number(value: float | None) -> str:
    """Return a statistic, or that there is none."""
    return "not computed" if value is None or value != value else f"{value:.4f}"  # noqa: PLR0124  # NaN


def _chance(verdict: Mapping[str, Any]) -> str:
    """Return the p-value in words."""
    if verdict["p_value"] is None:
        return "not known: too few draws stand behind the key"
    return (
        f"p = {verdict['p_value']:.3g}, counted over {verdict['draws']:,} {verdict['draws_of']}: how often a model made without the owner's would score "
        "like this; it is not the chance of innocence"
    )


def _misses(verdict: Mapping[str, Any]) -> str:
    """Return how many thieves the key would miss."""
    misses = verdict["misses"]
    return f"{misses['missed']} of {misses['tried']} that were tried" if misses["tried"] else "not known: none were tried"


def defeats(statement: Mapping[str, Any], verdict: Mapping[str, Any], *, known: bool) -> list[str]:
    """Return what would defeat the evidence: what the other side may show, most telling first.

    >>> verdict = {"decision": "stolen", "draws": 19, "draws_of": "siblings", "p_value": 1 / 20, "threshold": 0.1}
    >>> defeats({"commitment": None, "suspect": {"digest": None}}, verdict, known=True)[0]
    'Nothing dates the key: whoever shows that it was made after the suspect came out defeats the evidence.'
    """
    held = statement["commitment"]
    found = []
    if not known:
        found.append("The signer is unknown: anybody can sign a bundle of his own making.")
    if held is None:
        found.append("Nothing dates the key: whoever shows that it was made after the suspect came out defeats the evidence.")
    else:
        found.append("A suspect that came out before the day of the commitment: then the key may have been made to fit it.")
        found.append("An earlier commitment of somebody else to a key that fits both models.")
        found.append("An earlier commitment than the one shown: it is the earliest shown, not the only one possible.")
    found.append(
        "A sibling that was left out, or not trained as the owner's model was: train them again by the named code (the digests are in the key)."
    )
    found.append("A model made without the owner's that is as close to the suspect as the owner's is.")
    if verdict["draws"] < _FEW:
        found.append(
            f"A larger count: {verdict['draws']} {verdict['draws_of']} were compared with, {_FEW} or more say it with more weight."
        )
    found.append("A licence, a common ancestor or the owner's own publication: a copy may be a lawful one.")
    found.append("Answers that did not come from the suspect: the maker of the bundle recorded them; whoever can asks the suspect again.")
    if statement["suspect"]["digest"] is None:
        found.append("A service that has changed since: there is no file whose digest could be compared.")
    return found


@functools.cache
def _environment() -> Environment:
    """Return the template environment: everything is escaped, nothing undefined goes unnoticed."""
    return Environment(
        loader=PackageLoader("modelward.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def evidence_html(page: Mapping[str, Any]) -> str:
    """Return a `summary` as one HTML page that loads nothing."""
    return _environment().get_template("evidence.html.j2").render(p=page)
