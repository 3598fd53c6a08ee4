"""The benchmark works: its writers on made-up figures, and its provider and load generator together. Nothing is timed."""

from __future__ import annotations

import json
import pathlib
import subprocess
import xml.etree.ElementTree
from typing import Iterator

import httpx
import pytest

from bench import bench
from gateway import ROOT


@pytest.fixture(scope="module")
def mock() -> Iterator[bench.Mock]:
    programs = ["target/bench/mock", "target/bench/load"]
    done = subprocess.run(["make", "-C", str(ROOT), *programs], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mock = bench.Mock.start(set(bench.CPUS), pause_us=100)
    yield mock
    bench.end(mock.process)


def run(mock: bench.Mock, body: pathlib.Path, *flags: str) -> dict:
    return bench.load(mock.port, body, set(bench.CPUS), "sk-any", *flags)


@pytest.mark.parametrize("scenario", bench.SCENARIOS, ids=lambda scenario: scenario.name)
def test_provider_and_load_generator_agree(mock: bench.Mock, scenario: bench.Scenario, tmp_path: pathlib.Path):
    body = tmp_path / "body.json"
    body.write_bytes(scenario.body())
    assert json.loads(body.read_bytes())["messages"][-1]["role"] == "user"
    assert 0.9 < len(scenario.body()) / scenario.size < 1.4
    flags = ["--events", str(bench.EVENTS)] if scenario.streamed else []
    closed = run(mock, body, "--connections", "3", "--requests", "20", "--min-bytes", "300", *flags)
    paced = run(mock, body, "--rate", "200", "--requests", "10", *flags)
    assert (closed["requests"], closed["errors"], paced["requests"], paced["errors"]) == (20, 0, 10, 0)
    assert sum(count for _, count in closed["latencies"]) == sum(count for _, count in closed["firsts"]) == 20
    # The events, one with the usage, and the end mark.
    assert closed["events"] == (20 * (bench.EVENTS + 2) if scenario.streamed else 0)


def test_what_is_no_good_answer_fails_the_run(mock: bench.Mock, tmp_path: pathlib.Path):
    body = tmp_path / "body.json"
    body.write_bytes(bench.SCENARIOS[0].body())
    with pytest.raises(bench.Failed, match="an answer of"):
        run(mock, body, "--requests", "5", "--min-bytes", "100000")
    with pytest.raises(bench.Failed, match="a stream of 0 events"):
        run(mock, body, "--requests", "5", "--events", "50")
    words = [str(bench.TARGET / "bench/load"), "--url", f"{mock.base}/nothing/here", "--body", str(body), "--requests", "5"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and "404" in json.loads(done.stdout)["error"]


def test_the_provider_reads_chunked_bodies_and_speaks_both_formats(mock: bench.Mock):
    body = bench.SCENARIOS[-1].body()
    pieces = (body[at : at + 7001] for at in range(0, len(body), 7001))
    with httpx.Client(base_url=mock.base, trust_env=False) as client:
        assert client.post("/v1/messages", content=pieces).json()["usage"]["output_tokens"] == 51
        assert client.post("/v1/chat/completions", content=iter([body])).json()["usage"]["total_tokens"] == 281
        padded = json.dumps({"messages": [{"role": "user", "content": "x" * 100_000}], "stream": True}).encode()
        streamed = client.post("/v1/chat/completions", content=padded).text
        assert streamed.endswith("data: [DONE]\n\n") and streamed.count("data: ") == bench.EVENTS + 2


def sample(cpu_us: float) -> bench.Sample:
    return bench.Sample(cpu_us=cpu_us, aside_us=1.5, rps=1e6 / cpu_us, rss_mb=80.0, foreign=0.0, load_us=12.0)


@pytest.fixture
def report(tmp_path: pathlib.Path) -> dict:
    made = bench.Bench(bench.arguments(["--rounds", "3", "--workers", "1"]), tmp_path)
    for subject, factor in {"plain-envoy": 1.0, "tollgate": 2.0, "litellm": 200.0}.items():
        for scenario in bench.SCENARIOS:
            key = (subject, scenario.name, 1)
            made.samples[key] = [sample(factor * cpu) for cpu in (60, 40, 50)]
            made.latencies[key] = [[1_200, 99], [9_000, 1]]
            made.latencies["direct", scenario.name, 1] = [[200, 50], [300, 50]]
        made.starts[subject, 1] = [{"start_ms": 90.0, "rss_idle_mb": 70.0, "rss_after_mb": 80.0, "aside_rss_mb": 20.0}]
    made.failed["litellm", "chat-1m", 1] = '3 requests failed: "answered: HTTP/1.1 500"'
    return made.report()


def test_figures_become_rows(report: dict):
    rows = {(row["subject"], row["scenario"]): row for row in report["rows"]}
    assert len(rows) == 15
    row = rows["tollgate", "chat-1k"]
    assert (row["cpu_us_per_request"], row["cpu_us_min"], row["cpu_us_max"], row["ratio"]) == (100.0, 80.0, 120.0, 2.0)
    assert (row["rps"], row["rss_mb"], row["latency_of"]) == (10_000.0, 80.0, "20/s")
    assert (row["p50_ms"], row["p99_ms"]) == (1.0, 0.9)
    assert rows["tollgate", "stream-50"]["cpu_us_per_event"] == 2.0
    # What failed is told, and has no figures.
    assert set(rows["litellm", "chat-1m"]) == {"subject", "scenario", "workers", "failed"}


def test_table_and_files(report: dict, tmp_path: pathlib.Path):
    lines = bench.table(report).splitlines()
    assert lines[0].startswith("scenario") and len({len(line) for line in lines[1:3]}) == 1
    assert [line for line in lines if "FAILED: 3 requests failed" in line]
    assert any("100.0" in line and "80.0 … 120.0" in line and "2.00" in line for line in lines)
    bench.write(report, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == report
    drawing = xml.etree.ElementTree.fromstring((tmp_path / "bench.svg").read_text())
    text = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"tollgate", "plain-envoy", "litellm", "chat-1k", "10,000"} <= set(text) and "logarithmic" in (text[0] or "")
    # A bar for each figure, a legend, the background.
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}rect"))) == 14 + 3 + 1


def test_percentiles_of_merged_histograms():
    assert bench.percentile_ms([[1000, 50], [2000, 49], [9000, 1]], 0.5) == 1.0
    assert bench.percentile_ms([[1000, 50], [2000, 48], [1000, 1], [9000, 1]], 0.99) == 2.0
