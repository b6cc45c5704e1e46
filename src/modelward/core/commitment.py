"""A commitment: what was fixed before a dispute, and what says when."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("rfc3161", "publication", "undated")


@dataclass(frozen=True)
class Commitment:
    """A digest over a key and a nonce, fixed at a time that somebody else can name.

    Parameters
    ----------
    digest
        SHA-256 over the key's own digest and a nonce, in hex.
    kind
        ``"rfc3161"``: a time-stamp token that was verified; ``"publication"``: a place where it was published, to be checked by the reader;
        ``"undated"``: nothing says when, so it counts for nothing.
    time
        when, as ISO 8601 in UTC; ``None`` when nothing says it.
    where
        who stamped it, or where it was published.
    place, count
        which of the keys that it names this one is, from 0, and how many it names. The first alone decides; of another one p counts ``count`` times.
    seen
        the day (ISO 8601) on which whoever decides first saw the suspect, when the commitment was found to be older; ``None`` where that was not
        compared.

    Examples
    --------
    >>> Commitment("00" * 32, "undated").dated, Commitment("00" * 32, "publication", None, "Gazette 12/2026, page 3").dated
    (False, True)
    """

    digest: str
    kind: str = "undated"
    time: str | None = None
    where: str = ""
    seen: str | None = None
    place: int = 0
    count: int = 1

    @property
    def speaking(self) -> int:
        """How many keys speak beside each other when this one does.

        >>> Commitment("00" * 32, count=5).speaking, Commitment("00" * 32, place=2, count=5).speaking
        (1, 5)
        """
        return self.count if self.place else 1

    @property
    def older(self) -> bool:
        """True when the commitment counts and is older than the day on which the suspect was seen."""
        return self.dated and self.seen is not None

    @property
    def dated(self) -> bool:
        """True when the commitment counts."""
        return self.kind in {"rfc3161", "publication"}

    def __str__(self) -> str:
        """Say in one phrase what stands behind the date."""
        when = f" of {self.time}" if self.time else ""
        seen = f", the suspect was seen on {self.seen}" if self.seen else ""
        return f"{self.kind}{when}, {self.where}{seen}" if self.dated else "undated"
