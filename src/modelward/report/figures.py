"""The figures of a report, from plain data to SVG: curves, strips, histograms, ROC, reliability, bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelward.report.axes import HEIGHT, Axes

Plot = Mapping[str, Any]
ROLES = {"main": ("c1", "circle"), "attack": ("c2", "square"), "control": ("c3", "cross")}
SIDES = {"stolen": ("c2", "diamond"), "independent": ("c1", "circle"), "gated": ("c3", "cross")}


def draw(plot: Plot) -> str:
    """Return a figure as SVG; a figure without data is an empty string."""
    return KINDS[plot["kind"]](plot) if plot.get("kind") in KINDS else ""


def legend(plot: Plot) -> list[tuple[str, str, str]]:
    """Return (text, colour class, marker) of each series that needs a legend."""
    if plot.get("kind") == "curve":
        return [(series["name"], *ROLES[series.get("role", "main")]) for series in plot["series"]] if len(plot["series"]) > 1 else []
    if plot.get("kind") in {"strip", "histogram"}:
        sides = dict.fromkeys(group["side"] for group in plot["groups"])
        return [({"gated": "useless thieves"}.get(side, side), *SIDES[side]) for side in sides]
    return []


def _curve(plot: Plot) -> str:
    """Draw lines with interval bands; equally spaced when the values span more than a decade."""
    series = [s for s in plot["series"] if s["x"]]
    if not series:
        return ""
    values = sorted({x for s in series for x in s["x"]})
    spread = len(values) > 3 and min(v for v in values if v > 0) * 10 < max(values)
    place = {x: float(i) if spread else float(x) for i, x in enumerate(values)}
    span = sorted(place.values())
    axes = Axes((span[0], span[-1]), (0.0, 1.0), title=plot["title"], x_label=plot["x_label"], y_label=plot["y_label"])
    axes.ticks(x=[(place[x], f"{x:g}") for x in values] if len(values) <= 9 else None)
    for line in series:
        style, shape = ROLES[line.get("role", "main")]
        x = [place[v] for v in line["x"]]
        axes.band(x, line["low"], line["high"], style)
        axes.line(list(zip(x, line["y"], strict=True)), f"{style} curve")
        for a, b in zip(x, line["y"], strict=True):
            axes.dot(a, b, style, shape)
    ends = "; ".join(f"{s['name']} from {s['y'][0]:.3f} to {s['y'][-1]:.3f}" for s in series)
    return axes.svg(f"{plot['y_label']} over {plot['x_label']}: {ends}")


def _strip(plot: Plot) -> str:
    """Draw one row of dots per group, the threshold as a line."""
    groups = [g for g in plot["groups"] if g["values"]]
    if not groups:
        return ""
    axes = _distances(plot, groups, (0.0, float(len(groups))), height=60 + 24 * len(groups), left=236)
    for row, group in enumerate(reversed(groups)):
        style, shape = SIDES[group["side"]]
        axes.text(axes.left - 8, axes.py(row + 0.5) + 4, group["name"], "end")
        for value in group["values"]:
            axes.dot(value, row + 0.5, style, shape)
    _threshold(axes, plot)
    return axes.svg(f"{len(groups)} groups of models by {plot['x_label']}; threshold {plot.get('threshold')}")


def _distances(
    plot: Plot,
    groups: list[Plot],
    y: tuple[float, float],
    *,
    height: int = HEIGHT,
    left: int = 56,
    y_label: str = "",
    y_ticks: bool = False,
) -> Axes:
    """Return axes that span all values and the threshold."""
    values = [v for g in groups for v in g["values"]] + ([plot["threshold"]] if plot.get("threshold") is not None else [])
    room = 0.04 * (max(values) - min(values)) or 0.1
    span = min(values) - room, max(values) + room
    axes = Axes(span, y, title=plot["title"], x_label=plot["x_label"], y_label=y_label, height=height, left=left)
    axes.ticks(y=y_ticks)
    return axes


def _threshold(axes: Axes, plot: Plot) -> None:
    if plot.get("threshold") is not None:
        axes.line([(plot["threshold"], axes.y[0]), (plot["threshold"], axes.y[1])], "limit")
        near_end = axes.px(plot["threshold"]) > axes.px(axes.x[1]) - 70
        axes.text(axes.px(plot["threshold"]) + (-4 if near_end else 4), 12, "threshold", "small end" if near_end else "small")


def _histogram(plot: Plot, bins: int = 24) -> str:
    """Draw stolen and independent models as two overlaid histograms."""
    sides = {side: [v for g in plot["groups"] if g["side"] == side for v in g["values"]] for side in ("independent", "stolen")}
    groups: list[Plot] = [{"values": values, "side": side} for side, values in sides.items() if values]
    if not groups:
        return ""
    axes = _distances(plot, groups, (0.0, 1.0))
    low, width = axes.x[0], (axes.x[1] - axes.x[0]) / bins
    shares = [
        [sum(low + k * width <= v < low + (k + 1) * width for v in g["values"]) / len(g["values"]) for k in range(bins)] for g in groups
    ]
    axes = _distances(plot, groups, (0.0, 1.1 * max(map(max, shares))), y_label="share of models", y_ticks=True)
    for group, heights in zip(groups, shares, strict=True):
        for k, share in enumerate(heights):
            if share:
                axes.box((low + k * width, low + (k + 1) * width), (0.0, share), f"{SIDES[group['side']][0]} bar")
    _threshold(axes, plot)
    return axes.svg(f"histogram of {plot['x_label']}: {', '.join(f'{len(v)} {side}' for side, v in sides.items())}")


def _roc(plot: Plot) -> str:
    """Draw true against false positive rate, with the diagonal for chance."""
    axes = Axes((0.0, 1.0), (0.0, 1.0), title=plot["title"], x_label="false positive rate", y_label="true positive rate", height=340)
    axes.ticks()
    axes.line([(0, 0), (1, 1)], "limit")
    axes.line(list(zip(plot["fpr"], plot["tpr"], strict=True)), "c1 curve")
    words = f"AUC {plot['auc']:.3f}" + (f" [{plot['low']:.3f}, {plot['high']:.3f}]" if plot.get("low") is not None else "")
    axes.text(axes.px(0.45), axes.py(0.12), words)
    axes.text(axes.px(0.45), axes.py(0.05), f"{plot['n_pos']} thieves, {plot['n_neg']} independent models", "small")
    return axes.svg(words)


def _reliability(plot: Plot) -> str:
    """Draw accuracy per confidence bin against the diagonal."""
    axes = Axes((0.0, 1.0), (0.0, 1.0), title=plot["title"], x_label="confidence", y_label="accuracy", height=340)
    axes.ticks()
    axes.line([(0, 0), (1, 1)], "limit")
    total = sum(b["n"] for b in plot["bins"]) or 1
    for item in plot["bins"]:
        axes.box((item["confidence"] - 0.02, item["confidence"] + 0.02), (0.0, item["n"] / total), "c3 bar")
        axes.dot(item["confidence"], item["accuracy"], "c1")
    axes.line([(b["confidence"], b["accuracy"]) for b in plot["bins"]], "c1 curve")
    axes.text(axes.px(0.03), axes.py(0.93), f"calibration error {plot['ece'] * 100:.1f} points; bars: share of images", "small")
    return axes.svg(f"expected calibration error {plot['ece']:.3f}")


def _bars(plot: Plot) -> str:
    """Draw horizontal bars with whiskers and, where there is one, a reference tick."""
    items = plot["items"]
    if not items:
        return ""
    axes = Axes((0.0, 1.0), (0.0, float(len(items))), title=plot["title"], x_label=plot["x_label"], height=58 + 20 * len(items), left=190)
    axes.ticks(y=False)
    for row, item in enumerate(reversed(items)):
        axes.text(axes.left - 8, axes.py(row + 0.5) + 4, item["name"], "end")
        axes.box((0.0, item["value"]), (row + 0.2, row + 0.8), "c1 bar")
        axes.line([(item["low"], row + 0.5), (item["high"], row + 0.5)], "whisker")
        if item.get("reference") is not None:
            axes.line([(item["reference"], row + 0.08), (item["reference"], row + 0.92)], "c2 tick")
    return axes.svg(f"{len(items)} bars; {plot['x_label']}")


KINDS: dict[str, Callable[[Plot], str]] = {
    "curve": _curve, "strip": _strip, "histogram": _histogram, "roc": _roc, "reliability": _reliability, "bars": _bars,
}  # fmt: skip
