"""When keys of a study were fixed: the owner's before every suspect, a forger's after the model that he takes."""

from __future__ import annotations

from modelward.core.commitment import Commitment
from modelward.core.key import Key
from modelward.core.verdict import Verdict

_WHERE = "a study, which fixed it before anything was stolen"
OLDER = Commitment("00" * 32, "publication", "2026-01-01T00:00:00+00:00", _WHERE, seen="2026-02-01")
YOUNGER = Commitment("00" * 32, "publication", "2026-03-01T00:00:00+00:00", "a study, which fixed it after the suspect was seen")


def says_so(verdict: Verdict, key: Key) -> bool:
    """Return whether a verdict is a finding: stolen or related; of a key of a trial run, which decides nothing, whether the statistic fits."""
    draws = key.facts.get("draws")
    trial = isinstance(draws, dict) and bool(draws.get("smoke"))
    return verdict.fits if trial else verdict.found
