"""A report as JUnit XML: one suite a section, one test case a check, for the pages of continuous integration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from modelward.io.atomic import write_bytes

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_bytes(document: Mapping[str, Any]) -> bytes:
    """Return the JUnit XML of a report document.

    A failed check is a failure; a section or check that was not tested is skipped; a flag is told in the case's output. A section without checks
    is one case of its own.

    Examples
    --------
    >>> part = {"id": "clean", "title": "Clean", "status": "failed", "lead": "It errs.", "checks": [], "flags": []}
    >>> b"<failure" in junit_bytes({"title": "Audit", "sections": [part]})
    True
    """
    root = ET.Element("testsuites", name=_clean(document["title"]))
    totals = {"tests": 0, "failures": 0, "skipped": 0}
    for part in document["sections"]:
        suite = ET.SubElement(root, "testsuite", name=_clean(part["title"]))
        whole = {"name": part["id"], "status": part["status"], "text": part["lead"], "fix": ""}
        counts = dict.fromkeys(totals, 0)
        for check in part["checks"] or [whole]:
            _case(suite, part["id"], check, counts)
        for name, count in counts.items():
            suite.set(name, str(count))
            totals[name] += count
    for name, count in totals.items():
        root.set(name, str(count))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def write_junit(document: Mapping[str, Any], path: Path) -> None:
    """Write the JUnit XML of a report document in one step."""
    write_bytes(path, junit_bytes(document))


def _case(suite: ET.Element, section: str, check: Mapping[str, str], counts: dict[str, int]) -> None:
    """Add one test case."""
    case = ET.SubElement(suite, "testcase", classname=f"modelward.{_clean(section)}", name=_clean(check["name"]))
    counts["tests"] += 1
    words = _clean(". ".join(filter(None, (check.get("text", ""), check.get("fix", "")))))
    if check["status"] == "failed":
        counts["failures"] += 1
        ET.SubElement(case, "failure", message=words)
    elif check["status"] == "not tested":
        counts["skipped"] += 1
        ET.SubElement(case, "skipped", message=words)
    else:
        ET.SubElement(case, "system-out").text = f"{check['status']}: {words}" if words else check["status"]


def _clean(text: str) -> str:
    """Return text without the characters that XML cannot hold."""
    return _FORBIDDEN.sub("?", str(text))
