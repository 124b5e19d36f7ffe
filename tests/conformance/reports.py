"""What a suite said, read from its report: passed, failed with reasons, skipped. Pure but for reading the file.

Three kinds of reports: JUnit's XML of pytest, that of schemathesis, and the lines of our own client programs.
Called by `suites.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET  # the reports are written by the suites we start

if TYPE_CHECKING:
    from pathlib import Path

WHY_LENGTH: Final = 200
_LINE = re.compile(r"(ok|failed) ([^:]+)(?:: (.*))?")
_CHECK = re.compile(r"^- ([A-Z]+\d+) (.+)$", re.MULTILINE)


@dataclass
class Outcome:
    """What came of one suite."""

    passed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Name of the test to the reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    note: str = ""


def read_pytest(path: Path) -> Outcome:
    """Read pytest's report; a test is named `Class.test[parameters]`."""
    outcome = Outcome()
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 - see the import
        name = f"{case.get('classname', '').split('.')[-1]}.{case.get('name')}"
        bad = next((found for kind in ("failure", "error") if (found := case.find(kind)) is not None), None)
        skipped = case.find("skipped")
        if bad is not None:
            outcome.failed[name] = _shorten(bad.get("message") or bad.text or "")
        elif skipped is not None:
            outcome.skipped[name] = _shorten(skipped.get("message") or "")
        else:
            outcome.passed.add(name)
    return outcome


def read_schemathesis(path: Path, output: str) -> Outcome:
    """Read schemathesis's report; each pair of an operation and a failed check is one failure."""
    outcome = Outcome()
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 - see the import
        operation = case.get("name", "")
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if bad is None:
            outcome.passed.add(operation)
            continue
        text = bad.text or ""
        checks = _CHECK.findall(text) or [("", bad.get("message") or "an error of the fuzzer")]
        for code, title in checks:
            outcome.failed[f"{operation}: {title}"] = f"{code}, see the suite's output"
    found = re.search(r"(\d+) generated", output)
    outcome.note = f"{found[1]} requests" if found else ""
    return outcome


def read_lines(output: str) -> Outcome:
    """Read the lines `ok NAME` and `failed NAME: why` of `openai_sdk.py` and `clients.mjs`."""
    outcome = Outcome()
    for line in output.splitlines():
        found = _LINE.fullmatch(line.strip())
        if found is None:
            continue
        if found[1] == "ok":
            outcome.passed.add(found[2])
        else:
            outcome.failed[found[2]] = _shorten(found[3] or "")
    return outcome


def _shorten(text: str) -> str:
    return " ".join(text.split())[:WHY_LENGTH]
