"""What guessed, neighbouring and forged keys came to, in words: the best of q tries beside the threshold that it would have to reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
NEAR = ("other user", "secret with one bit changed")


def key_words(measures: Mapping[str, Any]) -> list[str]:
    """Return sentences on keys that are not the owner's, as far as rows tell.

    Examples
    --------
    >>> extra = {"best": {"1": 0.5, "100": 0.41}, "threshold": 0.2, "kinds": {"other user": {"n": 20, "fit": 0, "best": 0.45}}}
    >>> key_words({"key_specificity": {"value": 0.0, "n": 120, "extra": extra}, "forged_key_fits": None})
    ['Guessed keys on the protected model: best of 1 guess 0.500, best of 100 guesses 0.410, against the threshold 0.200.', \
'Neighbours of the key: other user, 0 of 20 fit, the best 0.450.']
    """
    guessed, forged = (measures.get(metric) for metric in ("key_specificity", "forged_key_fits"))
    sentences = []
    if guessed and (tried := _best(guessed["extra"], "guess")):
        sentences.append(f"Guessed keys on the protected model: {tried}.")
    kinds = guessed["extra"].get("kinds", {}) if guessed else {}
    near = [
        f"{kind}, {found['fit']} of {found['n']} fit, the best {found['best']:.3f}" for kind, found in sorted(kinds.items()) if kind in NEAR
    ]
    if near:
        sentences.append(f"Neighbours of the key: {'; '.join(near)}.")
    return sentences + _forged(forged)


def _best(extra: Mapping[str, Any], word: str) -> str:
    """Return the best statistic of q tries for each q."""
    best = sorted(((int(q), value) for q, value in extra.get("best", {}).items()), key=lambda pair: pair[0])
    told = [f"best of {q} {_many(word, q)} {value:.3f}" for q, value in best]
    limit = extra.get("threshold")
    return ", ".join([*told, *([f"against the threshold {limit:.3f}"] if told and limit is not None else [])])


def _many(word: str, count: int) -> str:
    """Return a word for that many."""
    return word if count == 1 else "guesses" if word == "guess" else "forgeries"


def _forged(row: Row | None) -> list[str]:
    """Return what forging came to, or why it was not tried."""
    if row is None:
        return []
    if row["value"] is None:
        return [f"Forging a key: not tested; {flag}." for flag in row.get("flags", ())]
    extra = row["extra"]
    each = f", each the best of {extra['tries']} secrets" if extra.get("tries") else ""
    tried = _best(extra, "forgery")
    if not tried:
        return []
    how = extra.get("how", "made for a model of somebody else after the fact")
    return [f"Forged keys ({how}{each}): {tried}; {'one fits' if row['value'] else 'none fits'}."]
