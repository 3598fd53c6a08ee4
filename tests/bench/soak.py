"""Whether memory stays flat: `make soak` loads Tollgate with about half of what saturates it, for half an hour, and watches it.

Two workers, a few hundred virtual keys with every kind of limit, all scenarios of the benchmark at once. First each scenario is
measured by itself: what a request costs on this machine says how many of them saturate it. Then each gets its share of half
of that, request after request with the next key. Every ten seconds the resident memory of Envoy and of what is beside it (the
ledger and the supervisor) is noted, and what the Wasm VMs have asked for.

Memory is flat when the line through the second half rises by less than `RISE_MB` for Envoy and for what is beside it, and when
Envoy holds less than `AFTER_MB` a while after the load. Any failed request fails the run.

Writes target/soak.json and target/soak.svg, and prints what came of it."""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import itertools
import pathlib
import signal
import statistics
import sys
import threading
import time
from typing import Any, Iterator

HERE = pathlib.Path(__file__).resolve().parent
# As the tests see it: `bench` is this folder, not the file in it.
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if path != str(HERE))]

from bench import bench  # noqa: E402
from memory import linear_memories  # noqa: E402

SHARES = {"chat-1k": 0.45, "chat-32k": 0.2, "stream-50": 0.15, "openai-to-anthropic-1k": 0.15, "chat-1m": 0.05}
"""How much of the load each scenario makes up, by what it costs."""
SLICE = 5.0
"""Seconds after which a scenario goes on with the next key."""
RISE_MB = {"envoy_mb": 4.0, "beside_mb": 4.0}
AFTER_MB = 150.0
SETTLED = 120.0
"""Seconds that the allocator may take to give back what the load needed: it keeps for a minute what may be needed again."""


class Soaked(bench.Tollgate):
    """Tollgate with many keys."""

    count = 300

    def prepare(self) -> None:
        self.keys = [self.make_key() for _ in range(self.count)]
        self.key = self.keys[0]


@dataclasses.dataclass
class Point:
    """What was held at a time."""

    seconds: float
    envoy_mb: float
    beside_mb: float
    vms_mb: float


def look(subject: Soaked, begun: float) -> Point:
    envoy, beside = subject.parts()
    vms = sum(memory.committed_kb for pid in envoy for memory in linear_memories(pid))
    return Point(
        seconds=round(time.monotonic() - begun, 1),
        envoy_mb=round(bench.memory_mb(envoy), 2),
        beside_mb=round(bench.memory_mb(beside), 2),
        vms_mb=round(vms / 1024, 2),
    )


def saturated(sample: bench.Sample, workers: int) -> float:
    """Requests per second for which the workers, or all CPUs of the machine, are just enough."""
    whole = sample.cpu_us + sample.aside_us + sample.load_us
    return min(workers * 1e6 / sample.cpu_us, len(bench.CPUS) * 1e6 / whole)


class Soak:
    """One run."""

    def __init__(self, options: argparse.Namespace, folder: pathlib.Path) -> None:
        self.options = options
        self.folder = folder
        self.points: list[Point] = []
        self.requests = {scenario.name: 0 for scenario in bench.SCENARIOS}
        self.rates: dict[str, float] = {}
        self.failed: str | None = None
        self.over = threading.Event()

    def run(self) -> dict[str, Any]:
        workers = self.options.workers
        mock = bench.Mock.start(bench.pinned(workers, False))
        try:
            Soaked.count = self.options.keys
            subject = Soaked(self.folder / "tollgate", mock, workers)
            try:
                return self.soak(subject, mock)
            finally:
                subject.stop()
        finally:
            bench.end(mock.process)

    def soak(self, subject: Soaked, mock: bench.Mock) -> dict[str, Any]:
        idle = look(subject, time.monotonic())
        self.calibrate(subject, mock)
        keys = itertools.cycle(subject.keys)
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(len(bench.SCENARIOS)) as pool:
            running = [pool.submit(self.load, scenario, subject, keys) for scenario in bench.SCENARIOS]
            while not self.over.is_set() and time.monotonic() - begun < self.options.minutes * 60:
                self.points.append(look(subject, begun))
                point = self.points[-1]
                line = f"{point.seconds:8.0f} s   Envoy {point.envoy_mb:6.1f} MB   beside {point.beside_mb:6.1f} MB"
                bench.say(f"{line}   VMs {point.vms_mb:5.1f} MB")
                self.over.wait(self.options.every)
            self.over.set()
            for each in running:
                each.result()
        seconds = time.monotonic() - begun
        if not self.failed:
            self.check(subject)
        after = self.settled(subject)
        return report(self, idle, after, seconds)

    def calibrate(self, subject: Soaked, mock: bench.Mock) -> None:
        """Finds how often each scenario is to be asked."""
        trial = bench.Bench(bench.arguments(["--quick"]), self.folder)
        self.bodies = trial.bodies
        for scenario in bench.SCENARIOS:
            found = saturated(trial.sample(scenario, subject, mock, self.options.workers), self.options.workers)
            self.rates[scenario.name] = round(found * self.options.load * SHARES[scenario.name], 2)
            bench.say(f"{scenario.name:<24}{found:9,.0f}/s saturate it, {self.rates[scenario.name]:9,.1f}/s in the mix")

    def load(self, scenario: bench.Scenario, subject: Soaked, keys: Iterator[str]) -> None:
        """Asks until the run is over, with another key every few seconds."""
        rate = self.rates[scenario.name]
        count = max(1, round(rate * SLICE))
        flags = ["--rate", str(rate), "--requests", str(count), "--connections", str(bench.CONNECTIONS), "--min-bytes", "300"]
        flags += ["--events", str(bench.EVENTS)] if scenario.streamed else []
        cpus = bench.pinned(self.options.workers, False)
        try:
            while not self.over.is_set():
                bench.load(subject.port, self.bodies[scenario.name], cpus, next(keys), *flags)
                self.requests[scenario.name] += count
        except Exception as failure:
            self.failed = self.failed or f"{scenario.name}: {failure}"
            self.over.set()

    def check(self, subject: Soaked) -> None:
        try:
            subject.check()
        except bench.Failed as failure:
            self.failed = str(failure)

    def settled(self, subject: Soaked) -> float:
        """What Envoy holds once it has had the time to give back what it does not need."""
        end = time.monotonic() + SETTLED
        held = bench.memory_mb(subject.pids())
        while held >= AFTER_MB - 5 and time.monotonic() < end and subject.process.poll() is None:
            time.sleep(1)
            held = bench.memory_mb(subject.pids())
        return held


# ------------------------------------------------------------------------------------------------------------------ what came of it


def slope(points: list[tuple[float, float]]) -> float:
    """How steep the line through points is: the median of all pairs, which single outliers do not move."""
    pairs = itertools.combinations(sorted(points), 2)
    found = [(later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in pairs if later[0] > earlier[0]]
    return statistics.median(found) if found else 0.0


def rise(points: list[Point], name: str) -> float:
    """By how much the line through the second half rises from its beginning to its end."""
    half = [(point.seconds, getattr(point, name)) for point in points[len(points) // 2 :]]
    return slope(half) * (half[-1][0] - half[0][0]) if half else 0.0


def verdict(points: list[Point], after_mb: float, failed: str | None) -> list[str]:
    """What is wrong; nothing when memory is flat."""
    wrong = [f"failed: {failed}"] if failed else []
    if len(points) < 4:
        wrong.append(f"{len(points)} looks at the memory say nothing about a slope: run it longer")
    for name, bound in RISE_MB.items():
        found = rise(points, name)
        if found >= bound:
            wrong.append(f"{name} rises by {found:.1f} MB in the second half: expected less than {bound:g}")
    if after_mb >= AFTER_MB:
        wrong.append(f"Envoy holds {after_mb:.0f} MB after the load: expected less than {AFTER_MB:g}")
    return wrong


def report(soak: Soak, idle: Point, after_mb: float, seconds: float) -> dict[str, Any]:
    wrong = verdict(soak.points, after_mb, soak.failed)
    options = soak.options
    return {
        "machine": {name: bench.machine(bench.arguments([]))[name] for name in ("cpu", "cpus", "memory_mb", "kernel", "date")},
        "workers": options.workers,
        "keys": options.keys,
        "load": options.load,
        "seconds": round(seconds, 1),
        "rates": soak.rates,
        "requests": soak.requests,
        "requests_per_second": round(sum(soak.requests.values()) / seconds, 1),
        "idle": dataclasses.asdict(idle),
        "after_mb": round(after_mb, 1),
        "rise_mb": {name: round(rise(soak.points, name), 2) for name in ("envoy_mb", "beside_mb", "vms_mb")},
        "bounds": {"rise_mb": RISE_MB, "after_mb": AFTER_MB},
        "flat": not wrong,
        "wrong": wrong,
        "points": [dataclasses.asdict(point) for point in soak.points],
    }


LINES = {"envoy_mb": ("Envoy", "#2563eb"), "beside_mb": ("ledger and supervisor", "#d97706"), "vms_mb": ("Wasm VMs", "#0f766e")}


def svg(report: dict[str, Any]) -> str:
    """Resident memory over time."""
    left, top, width, height = 60, 70, 600, 220
    points = report["points"]
    longest = max((point["seconds"] for point in points), default=0) or 1
    most = max((point[name] for point in points for name in LINES), default=0) or 1
    most = -(-most // 50) * 50
    parts = []
    for mark in range(0, int(most) + 1, 50):
        y = top + height - height * mark / most
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#e4e7eb"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{mark}</text>')
    minutes = longest / 60
    step = next((step for step in (0.5, 1, 2, 5, 10, 20, 60) if minutes / step <= 8), 120)
    for mark in range(int(minutes / step) + 1):
        x = left + width * mark * step / minutes
        parts.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{mark * step:g}</text>')
    x = left
    for name, (title, color) in LINES.items():
        line = " ".join(
            f"{left + width * point['seconds'] / longest:.1f},{top + height - height * point[name] / most:.1f}" for point in points
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += bench.legend_entry(x, title, color)
        x += 40 + 7 * len(title)
    info = report["machine"]
    foot = (
        f"{info['cpu']}, {info['cpus']} CPUs, {report['workers']} workers, {report['keys']} keys, "
        f"{report['requests_per_second']:,.0f} requests/s, {info['date']}"
    )
    title = "Resident memory under load, in megabytes, over minutes"
    heading = f"Memory at {report['load']:.0%} load: MB over minutes"
    return bench.drawing(left + width + 30, top + height + 60, title, heading, parts, foot)


def write(report: dict[str, Any], folder: pathlib.Path) -> None:
    """The two files."""
    bench.write_files("soak", report, svg(report), folder)


def summary(report: dict[str, Any]) -> str:
    """What came of it, as text."""
    points = report["points"]
    lines = [
        f"{report['seconds'] / 60:.0f} minutes, {sum(report['requests'].values()):,} requests, "
        f"{report['requests_per_second']:,.0f}/s, {report['keys']} keys, {report['workers']} workers"
    ]
    for name, (title, _) in LINES.items():
        found = [point[name] for point in points] or [0.0]
        lines.append(
            f"{title:<22} idle {report['idle'][name]:6.1f}   least {min(found):6.1f}   most {max(found):6.1f}   "
            f"last {found[-1]:6.1f} MB   second half {report['rise_mb'][name]:+.2f} MB"
        )
    lines.append(f"Envoy after the load   {report['after_mb']:.1f} MB")
    return "\n".join([*lines, *report["wrong"], "flat" if report["flat"] else "NOT FLAT"])


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Loads Tollgate for long and says whether its memory stays flat.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=0.5, help="of what saturates it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keys", type=int, default=300)
    parser.add_argument("--every", type=float, default=10, help="seconds between two looks")
    return parser.parse_args(words)


def main() -> int:
    options = arguments()
    # Whoever ends this ends what it started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with bench.scratch() as folder:
        found = Soak(options, folder).run()
    write(found, bench.TARGET)
    print(summary(found))
    bench.say("\ntarget/soak.json, target/soak.svg")
    return 0 if found["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
