"""A small drawing surface for figures: axes, ticks, lines, bands, dots, as inline SVG that follows the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 44


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round tick values that cover [low, high].

    >>> nice_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    scale: float = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * m for m in (1, 2, 5, 10) if scale * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def label_of(value: float) -> str:
    """Return a tick label without needless digits."""
    return f"{value:.6g}"


class Axes:
    """A plot area with linear axes.

    Parameters
    ----------
    x, y
        (low, high) of the data.
    title, x_label, y_label
        texts; escaped here.
    height
        of the whole figure in pixels; the width is 560.
    left
        room for tick labels.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        title: str,
        x_label: str = "",
        y_label: str = "",
        height: int = HEIGHT,
        left: int = LEFT,
    ) -> None:
        self.x = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self.y = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
        self.title, self.height, self.left = title, height, left
        self.parts: list[str] = []
        bottom = height - BOTTOM
        self.text((left + WIDTH - RIGHT) / 2, height - 6, x_label, "mid")
        self.parts.append(
            f'<text class="mid" transform="translate(13 {(TOP + bottom) / 2:.1f}) rotate(-90)">{escape(y_label)}</text>' if y_label else ""
        )

    def px(self, value: float) -> float:
        """Return the horizontal pixel of a data value."""
        return self.left + (value - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - RIGHT - self.left)

    def py(self, value: float) -> float:
        """Return the vertical pixel of a data value."""
        return self.height - BOTTOM - (value - self.y[0]) / (self.y[1] - self.y[0]) * (self.height - BOTTOM - TOP)

    def ticks(self, *, x: Sequence[tuple[float, str]] | None = None, y: bool = True) -> None:
        """Draw the frame, the grid and the tick labels."""
        for value, text in x if x is not None else [(v, label_of(v)) for v in nice_ticks(*self.x)]:
            self.line([(value, self.y[0]), (value, self.y[1])], "grid")
            self.text(self.px(value), self.height - BOTTOM + 15, text, "mid")
        for value in nice_ticks(*self.y) if y else []:
            self.line([(self.x[0], value), (self.x[1], value)], "grid")
            self.text(self.left - 6, self.py(value) + 4, label_of(value), "end")
        self.line([(self.x[0], self.y[0]), (self.x[1], self.y[0])], "axis")

    def text(self, x: float, y: float, text: str, style: str = "") -> None:
        """Write at pixel coordinates."""
        if text:
            self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(text)}</text>')

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """Draw a polyline through data points."""
        path = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" class="{style}"/>')

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], style: str) -> None:
        """Fill between two lines."""
        outline = [*zip(x, high, strict=True), *reversed(list(zip(x, low, strict=True)))]
        path = " ".join(f"{self.px(a):.1f},{self.py(b):.1f}" for a, b in outline)
        self.parts.append(f'<polygon points="{path}" class="{style} band"/>')

    def dot(self, x: float, y: float, style: str, shape: str = "circle") -> None:
        """Draw a marker; shape tells as much as colour does."""
        a, b = self.px(x), self.py(y)
        shapes = {
            "circle": f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" class="{style} mark"/>',
            "square": f'<rect x="{a - 3.5:.1f}" y="{b - 3.5:.1f}" width="7" height="7" class="{style} mark"/>',
            "cross": f'<path d="M{a - 4:.1f} {b - 4:.1f}l8 8m0 -8l-8 8" class="{style} stroke"/>',
            "diamond": f'<path d="M{a:.1f} {b - 5:.1f}l5 5l-5 5l-5 -5z" class="{style} mark"/>',
        }
        self.parts.append(shapes[shape])

    def box(self, x: tuple[float, float], y: tuple[float, float], style: str) -> None:
        """Fill a rectangle between data coordinates."""
        left, right = sorted((self.px(x[0]), self.px(x[1])))
        top, bottom = sorted((self.py(y[0]), self.py(y[1])))
        self.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.5):.1f}" height="{bottom - top:.1f}" class="{style}"/>'
        )

    def svg(self, description: str) -> str:
        """Return the figure."""
        head = f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" xmlns="http://www.w3.org/2000/svg">'
        return f"{head}<title>{escape(self.title)}</title><desc>{escape(description)}</desc>{''.join(self.parts)}</svg>"
