"""Scan a model for triggers from the shell: a table of classes, masks and patterns as PNG files, one sheet with all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.audit.question import Question
from modelward.core.canonical import plain
from modelward.core.errors import InputError
from modelward.core.guard import require_finite
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.data import load_data
from modelward.imaging.glyphs import drawn_text
from modelward.imaging.quantise import to_uint8
from modelward.io.atomic import write_bytes
from modelward.io.images import png_bytes
from modelward.marking.inversion import Inversion
from modelward.marking.scanning import ScanReport, scan
from modelward.models import load_model
from modelward.models.embedded import embedded_model
from modelward.models.files import LoadedModel

STEPS = {"smoke": 60, "quick": 200, "full": 400}
RESTARTS = {"smoke": 1, "quick": 2, "full": 3}
TILE, GAP, NAME = 64, 6, 150  # pixels of the sheet
GREY, RED, WHITE = (225, 225, 225), (200, 40, 40), (255, 255, 255)


def scan_model(question: Question, *, kind: str = "trigger", count: int = 200, gate: float = 2.0) -> dict[str, Any]:
    """Scan a question's model with ``count`` of its test images; return the document, with the `ScanReport` under ``report`` and the images.

    The model may have more outputs than the data has classes.

    Raises
    ------
    InputError
        when model and data do not fit.
    """
    loaded, images = _fitted(question)
    images = images.few(count)
    plan = Inversion(kind=kind, steps=STEPS[question.profile], realism=0.0 if kind == "direct" else 0.05)
    rng = generator(derive_seed(question.seed, "scan", kind))
    found = scan(loaded.model, images, plan=plan, restarts=RESTARTS[question.profile], gate=gate, rng=rng)
    lines = [
        {
            "class": number, "name": name, "size": float(found.sizes[i]), "success": float(found.success[i]), "anomaly": float(found.anomaly[i]),
            "p": float(found.p[i]), "flagged": number in found.flagged,
        }
        for i, (number, name) in enumerate(zip(found.classes, found.names, strict=True))
    ]  # fmt: skip
    return {
        "model": loaded.digest, "arch": loaded.arch, "data": images.name, "images": len(images), "seed": question.seed, "kind": kind, "gate": gate,
        "pixels": images.shape[1] * images.shape[2], "classes": plain(lines), "flagged": list(found.flagged), "report": found, "shown": images,
    }  # fmt: skip


def _fitted(question: Question) -> tuple[LoadedModel, ImageSet]:
    """Return the model and the test images; outputs without a class are allowed."""
    images = load_data(question.data, size=question.size).test
    if question.model is None:
        loaded = embedded_model()
    else:
        loaded = load_model(question.model, question.arch, size=question.size, like=images.shape, convention=question.convention)
    require_finite(loaded.model)
    wanted = (loaded.model.channels, *loaded.model.size)
    if wanted != images.shape:
        message = (
            f"the model takes images of shape {wanted}, those of {images.name} have {images.shape}; pass --size or the data it was made for"
        )
        raise InputError(message)
    if loaded.model.classes < len(images.classes):
        message = f"the model has {loaded.model.classes} outputs, {images.name} has {len(images.classes)} classes; pass the data the model was made for"
        raise InputError(message)
    return loaded, images


def write_scan(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``masks/NN.png``, ``patterns/NN.png``, ``sheet.png`` and ``scan.json``; return the document without its tensors."""
    found: ScanReport = document["report"]
    for name, pictures in (("masks", found.masks), ("patterns", found.patterns)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, picture in zip(found.classes, to_uint8(pictures), strict=True):
            write_bytes(folder / name / f"{number:02d}.png", png_bytes(picture.numpy()))
    write_bytes(folder / "sheet.png", png_bytes(sheet(found, document["shown"]).numpy()))
    told = {key: value for key, value in document.items() if key not in {"report", "shown"}}
    text = json.dumps({"schema": "modelward/scan", "version": 1, **told}, indent=1, allow_nan=False)
    write_bytes(folder / "scan.json", text.encode() + b"\n")
    return told


def sheet(found: ScanReport, images: ImageSet) -> Tensor:
    """Return one picture (3, h, w), uint8, with a line a class: name, mask, pattern, trigger, an image of another class under it; flagged ones on red."""
    lines = []
    for i, (number, name) in enumerate(zip(found.classes, found.names, strict=True)):
        other = images.batch(slice(None))[images.labels != number][i : i + 1]
        laid = found.stamped(other, number, rng=generator(0))
        mask = found.masks[i]
        tiles = [_tile(part) for part in (mask, found.patterns[i], mask * found.patterns[i], other[0], laid[0])]
        back = RED if number in found.flagged else WHITE
        label = _label(f"{name:.14}", f"{float(found.sizes[i]):.0f} px, index {float(found.anomaly[i]):.1f}", flagged=back is RED)
        lines.append(_framed([label, *tiles], back))
    return torch.cat(lines, dim=1)


def _tile(picture: Tensor) -> Tensor:
    """Return a picture (1 or 3, H, W) in [0, 1] as uint8 (3, 64, 64)."""
    large = F.interpolate(picture[None].expand(1, -1, -1, -1), size=(TILE, TILE), mode="nearest-exact")[0]
    return to_uint8(large[None])[0].expand(3, -1, -1)


def _label(name: str, facts: str, *, flagged: bool) -> Tensor:
    """Return two lines of text, uint8 (3, 64, 150), dark on white or white on red."""
    ink = torch.zeros(TILE, NAME)
    for top, text in ((14, name), (34, facts)):
        ink[top : top + 16] = drawn_text(text, 16, NAME, size=12.0).reshape(16, NAME) / 255
    back, front = (RED, WHITE) if flagged else (WHITE, (20, 20, 20))
    paper = torch.tensor(back, dtype=torch.float32)[:, None, None]
    return (paper + ink * (torch.tensor(front, dtype=torch.float32)[:, None, None] - paper)).round().to(torch.uint8)


def _framed(parts: list[Tensor], back: tuple[int, int, int]) -> Tensor:
    """Return pictures of equal height side by side, with a margin."""
    paper = torch.tensor(back, dtype=torch.uint8)[:, None, None]
    line = torch.cat([piece for part in parts for piece in (paper.expand(-1, TILE, GAP), part)] + [paper.expand(-1, TILE, GAP)], dim=2)
    edge = paper.expand(-1, GAP // 2, line.shape[2])
    return torch.cat([edge, line, edge], dim=1)
