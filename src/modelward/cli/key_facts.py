"""What may be told of a key: its facts, and of its arrays only names, types and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelward.core.key import Key


def header(key: Key) -> dict[str, Any]:
    """Return what may be told of a key: its facts, and of its arrays only name, type and shape."""
    arrays = {name: {"type": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)} for name, tensor in key.tensors.items()}
    head = {"method": key.method, "variant": key.variant, "calibrated": key.calibrated, "model_digest": key.model_digest}
    return head | {"facts": dict(key.facts), "arrays": arrays}


def header_lines(key: Key) -> list[tuple[str, str]]:
    """Return a key's header as lines: numbers in short, arrays by shape."""
    lines = [("method", f"{key.method}, variant {key.variant}"), ("model", key.model_digest)]
    if "calibrated" in key.facts:  # a lock's key decides nothing
        lines.append(("calibrated", "yes" if key.calibrated else "no: every verdict will be undecided"))
    for name, value in key.facts.items():
        if name != "calibrated":
            lines += flat(name, value)
    for name, tensor in key.tensors.items():
        shape = "x".join(map(str, tensor.shape)) or "one value"
        lines.append((f"array {name}", f"{shape} {str(tensor.dtype).removeprefix('torch.')}, not shown"))
    return lines


def flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Return a fact as lines; nested facts get dotted names, long lists of numbers are summed up.

    >>> flat("scores", {"nulls": [0.1, 0.2, 0.3, 0.4], "view": None, "members": [{"seed": 1}, {"seed": 2}]})
    [('scores.nulls', '4 values, 0.1 to 0.4'), ('scores.view', 'none'), ('scores.members', '2 entries')]
    """
    if isinstance(value, dict):
        return [line for inner, item in value.items() for line in flat(f"{name}.{inner}", item)]
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        return [(name, f"{len(value)} entries")]
    if isinstance(value, list | tuple) and len(value) > 3 and all(isinstance(item, int | float) and abs(item) < 1e300 for item in value):
        return [(name, f"{len(value)} values, {min(value):.4g} to {max(value):.4g}")]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)) or "none")]
    return [(name, "none" if value is None else str(value))]
