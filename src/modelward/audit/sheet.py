"""From a key of relevance maps and a suspect to the picture that shows both."""

from __future__ import annotations

from pathlib import Path

from modelward.core.errors import UsageError
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.core.verdict import Verdict
from modelward.io.atomic import write_bytes
from modelward.ownership.infip import InFIP
from modelward.report.relevance_sheet import draw_sheet


def require_maps(key: Key) -> None:
    """Raise `UsageError` for a key that holds no relevance maps."""
    if key.method != InFIP.card.name:
        message = f"--sheet draws relevance maps, and this is a {key.method} key: only infip keys hold such maps"
        raise UsageError(message)


def write_sheet(path: Path, key: Key, observed: Observation, verdict: Verdict) -> None:
    """Write the evidence sheet of an InFIP verdict as a PNG: probes, the owner's, the suspect's and the mean independent maps, likeness per probe.

    Raises
    ------
    UsageError
        for a key of another method.
    """
    require_maps(key)
    alike = InFIP().similarity(observed, key).mean(0).double().numpy()
    own, other, null = (tensors[0].double().numpy() for tensors in (key.tensors["maps"], observed.tensors["maps"], key.tensors["null"]))
    limit = "no threshold: not calibrated" if verdict.threshold is None else f"threshold {verdict.threshold:.3f}"
    title = f"{verdict.decision.value}: {verdict.statistic_name} = {verdict.statistic:.3f}, {limit}"
    note = (
        f"rule {key.facts['rules'][0]}; red speaks for the class, blue against it. The mean map of independent models is what a likeness "
        "has to go beyond." if float(abs(null).max()) else f"rule {key.facts['rules'][0]}; red speaks for the class, blue against it."
    )  # fmt: skip
    write_bytes(path, draw_sheet(key.tensors["probes"].numpy(), [own, other, null], alike, title=title, note=note))
