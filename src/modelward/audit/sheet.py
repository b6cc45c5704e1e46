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
    """Write the evidence sheet of an InFIP verdict as a PNG: probes, the owner's, the suspect's and the candidates' mean maps, likeness per probe.

    Raises
    ------
    UsageError
        for a key of another method.
    """
    require_maps(key)
    place, every = int(key.fact(float, "draws", "own")), key.tensor("maps")
    alike = InFIP().similarity(observed, key).mean(0).double().numpy()
    own, other, mean = (maps[0].double().numpy() for maps in (every[place], observed.tensors["maps"], every.double().mean(0)))
    limit = "no threshold: too few siblings" if verdict.threshold is None else f"threshold {verdict.threshold:.3f}"
    title = f"{verdict.decision.value}: {verdict.statistic_name} = {verdict.statistic:.3f}, {limit}"
    note = f"rule {key.facts['rules'][0]}; red speaks for the class, blue against it."
    if len(every) > 1:
        note += " The mean map of the owner's model and its siblings is what a likeness has to go beyond."
    write_bytes(path, draw_sheet(key.tensor("probes").numpy(), [own, other, mean], alike, title=title, note=note))
