"""SAC-JC: sample correlation with JPEG-compressed probes (Guan, Liang, Wang, He; IJCV, arXiv 2412.20768)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.core.card import Card
from modelward.ownership.sac import CLAIMS, FINGERPRINT, SAC


@dataclass(frozen=True, kw_only=True)
class SACJC(SAC):
    """Sample correlation on JPEG-compressed images.

    ``variant="paper"``: ordinary images compressed at severity 1 (quality 25), raw logits, threshold midway between the means of
    validation thieves and null models. ``variant="hardened"`` (default): of the compressed images together with the same images as they are,
    with noise, blurred, patched and halved, those that the candidates dispute; answers matched in temperature; which candidate accounts for the
    suspect's deviation from the mean of all. ``docs/decisions/0018-rank-among-siblings.md`` says why, with the rows.

    Examples
    --------
    >>> SACJC().statistic_view, SACJC(variant="paper").statistic_view
    ('temp', 'logits')
    """

    card: ClassVar[Card] = Card(
        name="sac-jc",
        title="sample correlation of JPEG-compressed probes",
        paper="Guan, Liang, Wang, He: Sample correlation for fingerprinting deep face recognition, IJCV, arXiv 2412.20768",
        taxonomy=FINGERPRINT,
        claims=CLAIMS,
        limits=("a source that hardly errs leaks little to thieves who train on its labels",),
        cost="verification: one forward pass of the probes; calibration trains the siblings",
    )

    own_probes: ClassVar[dict[str, str]] = {"paper": "normal", "hardened": "mixed"}
    own_severities: ClassVar[dict[str, tuple[int, ...]]] = {"paper": (1,), "hardened": (1, 4)}
    structural: ClassVar[bool] = False
    own_count: ClassVar[dict[str, int]] = {"paper": 800, "hardened": 1000}
