"""Whose copy leaked: every user's key is asked, and a user is named only where chance over all of them does not explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelward.audit.enrolment import ownership
from modelward.audit.issuing import issued_key, numbered
from modelward.audit.judging import suspect_behind, weigh
from modelward.core.errors import AccessError, Undecided
from modelward.core.key import Key
from modelward.core.suspect import Access
from modelward.core.verdict import Verdict
from modelward.io.age import Secret
from modelward.keys.grants import Grant
from modelward.keys.registry import Registry

ALPHA = 0.05
OLD = (
    "Nobody is named and nobody is cleared: no other secrets stand beside these keys, as they do since calibration is done by them; issue the keys and "
    "the copies again."
)
ADVICE = "A user is named, not convicted: keys leak too, and whoever holds the master secret could have made this copy."


@dataclass(frozen=True)
class Suspicion:
    """One user's key and what it found.

    Parameters
    ----------
    user, number, state
        the user, the user's number, and whether the grant is active, revoked or expired.
    statistic, threshold
        small means that this user's mark is there.
    p, corrected
        chance of such an answer by itself, and of one such among all users (Bonferroni: p times their number); ``None`` for keys without draws.
    matches
        whether the statistic passes the key's own threshold.
    """

    user: str
    number: int
    state: str
    statistic: float
    threshold: float | None
    p: float | None
    corrected: float | None
    matches: bool


@dataclass(frozen=True)
class Tracing:
    """What tracing found.

    Parameters
    ----------
    named
        the users whose copy the suspect was made from; empty: unknown.
    margin
        how far the second user's statistic lies above the first one's; ``None`` for a single user.
    users
        every user, most suspicious first.
    notes
        what is to be known of the finding.
    """

    named: tuple[str, ...]
    margin: float | None
    users: tuple[Suspicion, ...]
    notes: tuple[str, ...] = ()


def trace(
    suspect: Path | str, registry: Registry, method: str, *, arch: str | None = None, passphrase: Secret | None = None, **asking: Any
) -> Tracing:
    """Return whose copy ``suspect`` is; "nobody's that can be told" is a legal answer.

    Revoked and expired users are asked about too: a copy may have leaked before. Where a method has a code against collusion, it reads the code
    and may name several.

    Raises
    ------
    Undecided
        when nobody was issued a marked copy for ``method``.
    """
    grants = [grant for grant in registry.grants(purpose=method) if grant.key_file is not None]
    if not grants:
        message = f"nobody was issued a key for {method} in {registry.path.name}, so there is nobody to name"
        raise Undecided(message)
    whole = {grant: issued_key(registry, grant, passphrase=passphrase) for grant in grants}
    keys = {grant: key for grant, key in whole.items() if not key.facts.get("bare")}  # a secret alone is no mark to look for
    if not keys:
        message = (
            f"the users of {registry.path.name} were issued secrets alone for {method}, without marked copies: there is nothing to look for"
        )
        raise Undecided(message)
    found = {grant: _asked(suspect, key, arch, asking) for grant, key in keys.items()}
    users = ranked(found)
    margin = users[1].statistic - users[0].statistic if len(users) > 1 else None
    if numbered(method):
        named = _decoded(suspect, keys, arch)
        return Tracing(named, margin, users, (ADVICE,) if named else ("No user's codeword is there.",))
    named, notes = alone(users, margin)
    return Tracing(named, margin, users, notes)


def _asked(suspect: Path | str, key: Key, arch: str | None, asking: Mapping[str, Any]) -> Verdict:
    """Return the verdict of one user's key."""
    method = ownership(key.method, {})
    return weigh(method.observe(suspect_behind(suspect, key, arch, **asking), key), key)


def ranked(found: Mapping[Grant, Verdict]) -> tuple[Suspicion, ...]:
    """Return users by their best keys, the smallest statistic first; p is the parametric one where the method has it.

    A p-value by ranks cannot fall below 1 / (other secrets + 1): 199 of them tell ten users apart. The parametric one takes the rate at which this
    very suspect answers the images of other secrets.
    """
    rows: dict[str, Suspicion] = {}
    for grant, verdict in sorted(found.items(), key=lambda pair: (pair[1].statistic, pair[0].number)):
        p = verdict.p_value if verdict.parametric_p is None else verdict.parametric_p
        corrected = None if p is None else min(1.0, p * len(found))
        row = Suspicion(grant.user, grant.number, grant.state(), verdict.statistic, verdict.threshold, p, corrected, verdict.matches)
        rows.setdefault(grant.user, row)
    return tuple(rows.values())


def alone(users: Sequence[Suspicion], margin: float | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the one user who is named, or nobody, and why.

    >>> row = Suspicion("ann", 0, "active", 0.0, 0.5, 1e-9, 2e-9, True)
    >>> alone([row], None)[0], alone([row, row], 0.0)[0]
    (('ann',), ())
    """
    first = users[0]
    if first.threshold is None:
        return (), (OLD,)
    if not first.matches:
        return (), ("No user's mark is there: the suspect may be nobody's copy, or the mark was removed.",)
    if first.corrected is None or first.corrected > ALPHA:
        told = "not known" if first.corrected is None else f"{first.corrected:.2g}"
        return (), (f"The key of {first.user} fits best, but over {len(users)} users chance explains it (p = {told}, more than {ALPHA}).",)
    if margin is not None and margin <= 0:
        return (), (f"The keys of {first.user} and {users[1].user} fit equally well: neither is named.",)
    return (first.user,), (ADVICE,)


def _decoded(suspect: Path | str, keys: Mapping[Grant, Key], arch: str | None) -> tuple[str, ...]:
    """Return the users whose codewords are in a suspect, by the method's own decoder, for each generation of the code's secret."""
    names = {grant.number: grant.user for grant in keys}
    found: dict[str, None] = {}
    for grant, key in {grant.generation: (grant, key) for grant, key in keys.items()}.values():
        given = suspect_behind(suspect, key, arch)
        if given.access is not Access.WEIGHTS:
            message = f"{grant.purpose} reads its code from weights; this suspect grants {given.access.value}"
            raise AccessError(message)
        method: Any = ownership(grant.purpose, {})
        for number in method.trace(given.model, key).users:
            found.setdefault(names.get(number, f"number {number}, who was never issued a key"))
    return tuple(found)
