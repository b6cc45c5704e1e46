"""Rows made readable: one HTML file that works offline, prints well, dark and light, and the JSON it came from."""

from modelward.report.page import prepared, ready, render, write

__all__ = ["prepared", "ready", "render", "write"]
