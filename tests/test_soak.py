"""The soak's judgement and its files, on made-up figures. Nothing is started and nothing is timed."""

from __future__ import annotations

import json
import pathlib
import xml.etree.ElementTree

import pytest

from bench import bench, soak


def points(envoy: list[float], beside: float = 40.0) -> list[soak.Point]:
    return [soak.Point(seconds=10.0 * at, envoy_mb=mb, beside_mb=beside, vms_mb=12.0) for at, mb in enumerate(envoy)]


WARMING = [130.0 + 20 * (1 - 0.5**at) for at in range(60)]
NOISY = [140.0 + (at * 7 % 5) / 2 for at in range(120)]
LEAKING = [130.0 + at / 12 for at in range(120)]
SPIKED = [140.0 + (90.0 if at in (70, 71, 110) else 0.0) for at in range(120)]


@pytest.mark.parametrize(
    ("envoy", "after_mb", "failed", "wrong"),
    [
        (WARMING, 140.0, None, []),
        (NOISY, 140.0, None, []),
        (SPIKED, 140.0, None, []),
        (LEAKING, 140.0, None, ["envoy_mb rises by 4.9 MB in the second half: expected less than 4"]),
        (NOISY, 151.0, None, ["Envoy holds 151 MB after the load: expected less than 150"]),
        (NOISY, 140.0, "chat-1k: 3 requests failed", ["failed: chat-1k: 3 requests failed"]),
        ([140.0, 140.0], 140.0, None, ["2 looks at the memory say nothing about a slope: run it longer"]),
    ],
)
def test_what_is_flat(envoy: list[float], after_mb: float, failed: str | None, wrong: list[str]) -> None:
    assert soak.verdict(points(envoy), after_mb, failed) == wrong


def test_what_saturates_is_the_workers_or_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = bench.Sample(cpu_us=200, aside_us=50, rps=0, rss_mb=0, foreign=0, load_us=150)
    for cpus, workers, found in [(2, 2, 5_000), (8, 2, 10_000), (8, 1, 5_000)]:
        monkeypatch.setattr(bench, "CPUS", list(range(cpus)))
        assert soak.saturated(sample, workers) == found
    assert set(soak.SHARES) == {scenario.name for scenario in bench.SCENARIOS}
    assert sum(soak.SHARES.values()) == pytest.approx(1)


def test_report_and_files(tmp_path: pathlib.Path) -> None:
    run = soak.Soak(soak.arguments(["--minutes", "20"]), tmp_path)
    run.points = points(NOISY)
    run.requests["chat-1k"] = 1_200_000
    report = soak.report(run, run.points[0], 141.0, 1_200.0)
    assert (report["flat"], report["requests_per_second"], report["rise_mb"]["beside_mb"]) == (True, 1_000.0, 0.0)
    soak.write(report, tmp_path)
    assert json.loads((tmp_path / "soak.json").read_text()) == report
    drawing = xml.etree.ElementTree.fromstring((tmp_path / "soak.svg").read_text())
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}polyline"))) == len(soak.LINES)
    assert soak.summary(report).endswith("\nflat")
    assert soak.summary(report | {"flat": False, "wrong": ["too much"]}).endswith("too much\nNOT FLAT")
