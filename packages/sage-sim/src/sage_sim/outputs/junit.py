"""A run as JUnit's XML, in which continuous integration shows each check as a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree


def junit_xml(results: Mapping[str, Any]) -> str:
    """
    Return a run as one test suite, with a test for each check: failed if it did not hold, skipped if nobody can tell.

    Args:
        results: What ``results.json`` holds.
    """
    findings = results["findings"]
    verdicts = [one["verdict"] for one in findings]
    suite = ElementTree.Element(
        "testsuite",
        name=f"sage-sim {results['topology']}",
        tests=str(len(findings)),
        failures=str(verdicts.count("invalid")),
        skipped=str(verdicts.count("unknown")),
        errors="0",
        time=str(results["seconds"]),
        timestamp=results["started"],
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("seed", "command", "verdict", "ending"):
        ElementTree.SubElement(properties, "property", name=name, value=str(results[name]))
    for one in findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"sage-sim.{results['topology']}", name=one["check"], time="0"
        )
        if one["verdict"] == "invalid":
            failure = ElementTree.SubElement(case, "failure", message=one["sentence"])
            failure.text = "\n".join((*one["examples"], f"repeat: {results['command']}"))
        elif one["verdict"] == "unknown":
            ElementTree.SubElement(case, "skipped", message=one["sentence"])
    if results["trouble"]:
        ElementTree.SubElement(suite, "system-err").text = _printable(results["trouble"])
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
