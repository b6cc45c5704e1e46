"""Rows made readable: one HTML file that works offline, prints well, dark and light, and the JSON it came from."""

from modelward.report.page import ready, render, write

__all__ = ["ready", "render", "write"]
