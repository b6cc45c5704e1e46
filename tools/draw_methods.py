"""Pictures for the method pages, made by running every method on the embedded model and images."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelward import embedded_model, generator, load_data
from modelward.audit import Question
from modelward.audit.stealing import steal, theft_spec
from modelward.core.catalogue import catalogue
from modelward.core.errors import ModelwardError
from modelward.core.families import EvasionMethod
from modelward.core.guard import predict
from modelward.core.method import Method
from modelward.evaluation.store import Store
from modelward.imaging.quantise import to_uint8
from modelward.io.images import png_bytes
from modelward.report.figures import draw

STYLE = (
    "<style>svg{background:#fff}text{font:12px system-ui,sans-serif;fill:#1c2733}.small{font-size:11px;fill:#55606c}.mid{text-anchor:middle}"
    ".end{text-anchor:end}.grid{stroke:#d9dee4;fill:none}.axis{stroke:#55606c;fill:none}.limit,.whisker{stroke:#1c2733;fill:none}.limit{stroke-dasharray:5 4}"
    ".c1{--c:#1f5fbf}.c2{--c:#c2410c}.c3{--c:#6b7280}.curve,.tick,.stroke{stroke:var(--c);stroke-width:2;fill:none}.tick{stroke-width:3}"
    ".band{fill:var(--c);opacity:.16;stroke:none}.mark{fill:var(--c)}.bar{fill:var(--c);opacity:.45}</style>"
)
SIDE, SHOWN = 72, 6


def draw_all(folder: Path, names: Sequence[str] = ()) -> None:
    """Draw the methods called ``names``, or all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        for name, method in catalogue().items():
            if not names or name in names:
                try:
                    svg = picture(name, method, Store(home))
                except ModelwardError as error:
                    print(f"{name}: no picture: {error}")
                    continue
                if svg:
                    (folder / f"{name}.svg").write_text(svg + "\n")


def picture(name: str, method: type[Method], store: Store) -> str:
    """Return the picture of one method, or nothing."""
    if issubclass(method, EvasionMethod):
        return attacked(method)
    if method.family == "theft":
        return stolen(name, store)
    return separated(name)


def attacked(method: type[EvasionMethod]) -> str:
    """Return images before and after an attack, and the difference."""
    model, images = embedded_model().model, load_data("fashion-mini").test
    right = (predict(model, images.pixels[:200]).argmax(1) == images.labels[:200]).nonzero().squeeze(1)[:SHOWN]
    chosen = images.take(right)
    x = chosen.batch(slice(None))
    value = method.configured({}).run(model, x, chosen.labels, rng=generator(0)).value
    after = predict(model, value).argmax(1)
    change = value - x
    scale = 0.5 / float(change.abs().max().clamp_min(1e-6))
    rows = (
        ("image", x, chosen.labels),
        (f"{method.card.name}", value, after),
        (f"change x {scale:.0f}", (0.5 + change * scale).clamp(0, 1), None),
    )
    parts = []
    for line, (title, pixels, labels) in enumerate(rows):
        top = 10 + line * (SIDE + 26)
        parts.append(f'<text x="8" y="{top + SIDE / 2:.0f}">{escape(title)}</text>')
        for column in range(SHOWN):
            left = 110 + column * (SIDE + 18)
            parts.append(_image(pixels[column], left, top))
            if labels is not None:
                parts.append(
                    f'<text x="{left + SIDE / 2:.0f}" y="{top + SIDE + 14}" class="small mid">{escape(images.classes[int(labels[column])])}</text>'
                )
    width, height = 110 + SHOWN * (SIDE + 18), 10 + 3 * (SIDE + 26)
    return f'<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">{STYLE}<title>{method.card.title}</title>{"".join(parts)}</svg>'


def _image(pixels: Tensor, left: float, top: float) -> str:
    """Return one image as an SVG element."""
    data = base64.b64encode(png_bytes(to_uint8(pixels[None])[0].numpy())).decode()
    place = f'x="{left}" y="{top}" width="{SIDE}" height="{SIDE}"'
    return f'<image {place} style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'


def stolen(name: str, store: Store) -> str:
    """Return the accuracy of the copy, of the victim, and of honest training."""
    with tempfile.TemporaryDirectory() as folder:
        found = steal(Question(profile="quick"), theft_spec(name, {}), store, out_model=Path(folder) / "copy.safetensors", jobs=1)
    copy, lineage, reference = found["rows"][0], found["lineage"], found["reference"]
    victim = lineage["accuracy"] + lineage["drop"]
    items: list[dict[str, Any]] = [
        {"name": "victim", "value": victim, "low": victim, "high": victim},
        {"name": f"copy by {name}", "value": copy["value"], "low": copy["ci_low"], "high": copy["ci_high"]},
    ]
    if reference:
        items.append(
            {"name": "from scratch at its budget", "value": reference["value"], "low": reference["ci_low"], "high": reference["ci_high"]}
        )
    title = f"{name}: accuracy on {copy['n']} images, 95 % intervals"
    return draw({"kind": "bars", "title": title, "x_label": "accuracy", "items": items}).replace(">", f">{STYLE}", 1)


def separated(name: str) -> str:
    """Return how a fingerprint tells thieves from independent models, from the committed rows."""
    folder = Path(__file__).resolve().parents[1] / "docs" / "results"
    for path in (folder / "sac-jc.json", folder / "fingerprints.json"):
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        mine = [row for row in rows if row["method"] == name and row["metric"] == "statistic"]
        first = [row for row in mine if row.get("configuration") == mine[0].get("configuration")]
        groups: dict[tuple[str, str], list[float]] = {}
        for row in first:
            side = "independent" if row["extra"]["side"] != "thief" else "stolen" if row["extra"]["useful"] else "gated"
            groups.setdefault((row["extra"]["group"], side), []).append(row["value"])
        if groups:
            shown = [{"name": group, "side": side, "values": values} for (group, side), values in groups.items()]
            title = "Thieves (diamonds) and independent models (circles)"
            return draw({"kind": "strip", "title": title, "x_label": first[0]["budget"], "groups": shown, "threshold": None}).replace(
                ">", f">{STYLE}", 1
            )
    return ""


torch.set_num_threads(1)
