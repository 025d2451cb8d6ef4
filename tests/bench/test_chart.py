import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import chart


def report(medians: dict[int, float]) -> dict[str, list[dict[str, object]]]:
    return {"figures": [{"name": "first_byte_s", "load": "burst", "at_once": n, "p50": s} for n, s in medians.items()]}


def test_a_chart_says_every_lines_seconds_and_is_well_formed(tmp_path: Path) -> None:
    path = tmp_path / "mesh.json"
    path.write_text(json.dumps(report({1: 0.02, 3: 0.03, 6: 1.5})))
    out = tmp_path / "charts" / "one.svg"
    assert chart.main([f"mini <2 cores>={path}", "--out", str(out)]) == 0
    root = ElementTree.fromstring(out.read_text())
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"mini <2 cores>", "20 ms / 30 ms / 1.5 s", "97 ms / 179 ms / 299 ms"} <= set(texts)


def test_a_report_without_the_three_bursts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"only \[1, 3\]"):
        chart.line("x", report({1: 0.02, 3: 0.03, 8: 0.1}))
