import json
from pathlib import Path

import pytest

from bench import compare
from bench.report import Report, percentile, summarise


def test_percentiles_are_samples_that_were_seen() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.99) == 7.0


def test_a_figure_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


def test_a_report_says_where_and_how_it_was_measured(tmp_path: Path) -> None:
    report = Report("hop", configuration={"streams": 2})
    report.add("round_trip_s", [0.1, 0.2, 0.3], streams=2)
    written = json.loads(report.write(tmp_path).read_text())
    assert written["commit"]
    assert written["machine"]["cores"] >= 1
    assert written["configuration"] == {"streams": 2}
    assert written["figures"][0] | {"p50": 0.2, "n": 3, "streams": 2} == written["figures"][0]


def test_comparing_pairs_figures_by_name_and_circumstance() -> None:
    before, after = Report("hop", {}), Report("hop", {})
    for streams, was, now in ((1, 1.0, 0.5), (200, 4.0, 8.0)):
        before.add("round_trip_s", [was], streams=streams)
        after.add("round_trip_s", [now], streams=streams)
    after.value("bytes", 3)
    rows = compare.compare(before.document(), after.document())
    ratios = {(row["where"], row["measure"]): row["ratio"] for row in rows}
    assert ratios[("streams=1", "p50")] == 0.5
    assert ratios[("streams=200", "p99")] == 2.0
    assert not any(row["figure"] == "bytes" for row in rows)


def test_comparing_says_when_nothing_is_comparable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("hop", {})
    report.value("bytes", 3)
    path = report.write(tmp_path)
    empty = Report("codec", {}).write(tmp_path)
    assert compare.main([str(path), str(empty)]) == 1
    assert "No figure" in capsys.readouterr().out
