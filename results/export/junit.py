"""JUnit XML for build servers: a suite for each cell, a case for each step.

A step that ended as oom, time-out or crash is an error, one that may not be ranked a failure with the rules it broke, one that was
never tried is skipped. Figures are properties of the case.
"""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from results.load import LoadedCell
from results.manifest import Manifest
from results.rows import Row

NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""
FIGURES = (
    "accuracy", "accuracy_lo", "accuracy_hi", "output_tokens_per_s", "samples_per_s", "ttft_p50_ms", "tpot_p50_ms",
    "e2e_p50_ms", "vram_reserved_bytes", "host_memory_bytes", "energy_per_sample_j", "power_class",
)  # fmt: skip


def junit_xml(manifest: Manifest, cells: Iterable[LoadedCell]) -> bytes:
    """The file."""
    root = ElementTree.Element("testsuites", name=clean(manifest.run))
    for cell in cells:
        root.append(_suite(manifest, cell))
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(suite.get(total, "0")) for suite in root)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in root):.3f}")
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _suite(manifest: Manifest, cell: LoadedCell) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=clean(cell.facts.deployment), timestamp=manifest.created_utc[:19])
    suite.set("hostname", clean(str(manifest.host.get("name") or "")))
    for row in cell.rows:
        suite.append(_case(row))
    kinds = [child.tag for case in suite for child in case]
    suite.set("tests", str(len(cell.rows)))
    for total, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(total, str(kinds.count(tag)))
    suite.set("time", f"{sum(row.seconds or 0.0 for row in cell.rows):.3f}")
    return suite


def _case(row: Row) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=clean(row.deployment), name=clean(row.step))
    case.set("time", f"{row.seconds or 0.0:.3f}")
    properties = ElementTree.SubElement(case, "properties")
    for name in FIGURES:
        if (value := getattr(row, name)) is not None:
            ElementTree.SubElement(properties, "property", name=name, value=clean(str(value)))
    text = clean("\n".join(row.reasons))
    match row.outcome:
        case "ok" if not row.valid:
            ElementTree.SubElement(case, "failure", message=clean("; ".join(row.reasons)), type="not-valid").text = text
        case "ok":
            pass
        case "skipped" | "interrupted":
            ElementTree.SubElement(case, "skipped", message=clean("; ".join(row.reasons)))
        case _:
            ElementTree.SubElement(case, "error", message=clean("; ".join(row.reasons)), type=row.outcome).text = text
    if row.warnings:
        ElementTree.SubElement(case, "system-out").text = clean("\n".join(row.warnings))
    return case


def clean(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
