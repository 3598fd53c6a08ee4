"""What the gateway costs: `make bench` measures plain Envoy, Tollgate and the peers that are installed, one after the other.

Everything runs on this machine: a load generator (load.rs) calls each subject, which calls a provider that answers at once
(mock.rs). Every round starts all subjects anew and visits them in turn for every scenario; figures are medians over the rounds.
When there are CPUs enough, a subject has as many of them for itself as it has workers. A measurement during which other
processes were busy is repeated, and the calmest is kept. A run with any failed request is no figure: it is reported as failed.

Writes target/bench.json and target/bench.svg, and prints the table."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import html
import json
import math
import os
import pathlib
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import httpx  # noqa: E402

from gateway import BINARY, ROOT, bearer, children, environment, envoy_binary, free_port  # noqa: E402
from memory import resident_kb  # noqa: E402

TARGET = ROOT / "target"
PEERS = TARGET / "bench/peers"
MASTER_KEY = "sk-8c1f0b7e5a2d49369e4cbb70d1f6a853"
TICKS = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))
EVENTS = 50
CONNECTIONS = 64
STREAMS = 16
CALM_STREAMS = 2
PAUSE_US = 2000


# --------------------------------------------------------------------------------------------------------------------- scenarios


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One kind of request, and how many of them make a measurement. `slow` is for subjects a hundred times slower."""

    name: str
    model: str
    size: int
    requests: int
    slow: int
    rates: tuple[tuple[int, int], ...] = ()
    """Pairs of workers and requests per second: at which rates latency is measured."""
    streamed: bool = False

    def body(self) -> bytes:
        """The request: messages of about `size` bytes together."""
        words = "The quick brown fox jumps over the lazy dog; \"naïve\" café owners pay 5 % more.\n"
        turns = max(1, min(32, self.size // 1024))
        text = (words * (self.size // turns // len(words.encode()) + 1))[: max(1, self.size // turns - 60)]
        messages = [{"role": ("user", "assistant")[turn % 2], "content": text} for turn in range(turns)]
        if turns % 2 == 0:
            messages[-1]["role"] = "user"
        body = {"model": self.model, "messages": messages, "temperature": 0.7, "max_tokens": 256}
        if self.streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(body, ensure_ascii=False).encode()


CHAT, CLAUDE = "gpt-4o-mini", "claude-sonnet-4-20250514"
SCENARIOS = [
    Scenario("chat-1k", CHAT, 1 << 10, 12_000, 160, ((1, 20), (2, 1000))),
    Scenario("chat-32k", CHAT, 32 << 10, 6_000, 128, ((1, 20), (2, 1000))),
    Scenario("stream-50", CHAT, 1 << 10, 320, 96, streamed=True),
    Scenario("openai-to-anthropic-1k", CLAUDE, 1 << 10, 8_000, 160, ((1, 20),)),
    Scenario("chat-1m", CHAT, 1 << 20, 400, 64, ((1, 20),)),
]


# --------------------------------------------------------------------------------------------------------------------- processes


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes so far."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory_mb(pids: list[int]) -> float:
    """Resident memory of these processes together."""
    kilobytes = 0
    for pid in pids:
        # One that has ended has no memory, or no line about it.
        with contextlib.suppress(OSError, StopIteration):
            kilobytes += resident_kb(pid)
    return kilobytes / 1024


def machine_seconds() -> float:
    """What all CPUs have spent on anything, also on other machines of the same host."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / TICKS


def own_seconds() -> float:
    """What this script and the load generators it has waited for have spent."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def pinned(workers: int, inner: bool) -> set[int]:
    """The CPUs of a subject, or of everything else."""
    if len(CPUS) <= workers:
        return set(CPUS)
    return set(CPUS[:workers] if inner else CPUS[workers:])


def spawn(words: list[str], cpus: set[int], log: pathlib.Path | None, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a program in a process group of its own. What it prints goes to `log`, or is read from its stdout."""
    output = log.open("ab") if log else subprocess.PIPE
    return subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL if log else output,
        stderr=output if log else None,
        env=environment(env),
        text=True,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )


def end(process: subprocess.Popen[str]) -> None:
    """Ends a program and what it started."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Failed(Exception):
    """A measurement that is no figure."""


@dataclasses.dataclass
class Mock:
    """The provider."""

    process: subprocess.Popen[str]
    port: int

    @classmethod
    def start(cls, cpus: set[int], pause_us: int = PAUSE_US) -> Mock:
        process = spawn([str(TARGET / "bench/mock"), "--port", "0", "--pause-us", str(pause_us)], cpus, None)
        assert process.stdout
        return cls(process, int(process.stdout.readline()))

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def load(port: int, body: pathlib.Path, cpus: set[int], key: str, *flags: str) -> dict[str, Any]:
    """One run of the load generator. Fails when any request did."""
    words = [str(TARGET / "bench/load"), "--url", f"http://127.0.0.1:{port}/v1/chat/completions", "--body", str(body)]
    process = spawn([*words, "--header", f"authorization: Bearer {key}", *flags], cpus, None)
    try:
        output, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        raise Failed("no end after 300 s") from None
    finally:
        end(process)
    if process.returncode != 0 or not output.strip():
        found = json.loads(output) if output.strip() else {}
        raise Failed(f"{found.get('errors', 'all')} requests failed: {found.get('error')}")
    return json.loads(output)


# ---------------------------------------------------------------------------------------------------------------------- subjects


class Subject:
    """A gateway that is measured."""

    name = ""
    most_workers = 2
    slow = False
    key = MASTER_KEY

    def __init__(self, folder: pathlib.Path, mock: Mock, workers: int) -> None:
        self.folder = folder
        self.mock = mock
        self.workers = workers
        self.port = free_port()
        folder.mkdir(parents=True)
        words, env = self.command()
        begun = time.perf_counter()
        self.log = folder / "log"
        self.process = spawn(words, pinned(workers, True), self.log, env)
        try:
            self.wait_for_answer()
            self.start_ms = (time.perf_counter() - begun) * 1000
            self.prepare()
            time.sleep(1)
            self.idle_mb = memory_mb(self.pids())
        except BaseException:
            self.stop()
            raise

    @classmethod
    def installed(cls) -> bool:
        return True

    def command(self) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError

    def prepare(self) -> None:
        """What is done once, before anything is measured."""

    def check(self) -> None:
        """Whether it did all that it should have done; fails when not."""

    def wait_for_answer(self) -> None:
        body = {"model": CHAT, "messages": [{"role": "user", "content": "hi"}]}
        deadline = time.monotonic() + 90
        with httpx.Client(trust_env=False, timeout=10) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
                    if client.post(url, json=body, headers=bearer(self.key)).status_code == 200:
                        return
                time.sleep(0.005)
        raise Failed(f"it does not answer: {' '.join(self.log.read_text(errors='replace').split())[-600:]}")

    def pids(self) -> list[int]:
        """The processes that handle requests."""
        return [self.process.pid, *children(self.process.pid)]

    def aside(self) -> list[int]:
        """Processes beside those."""
        return []

    def stop(self) -> None:
        end(self.process)


class Plain(Subject):
    """Envoy with a route and nothing else."""

    name = "plain-envoy"

    def command(self) -> tuple[list[str], dict[str, str]]:
        kind = "type.googleapis.com/envoy.extensions"
        manager = {
            "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "plain",
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "600s"}}],
                    }
                ]
            },
            "http_filters": [
                {"name": "router", "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"}},
            ],
        }
        config = {
            "static_resources": {
                "listeners": [
                    {
                        "name": "plain",
                        "address": address(self.port),
                        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                    }
                ],
                "clusters": [
                    {
                        "name": "provider",
                        "type": "STATIC",
                        "connect_timeout": "5s",
                        "load_assignment": {
                            "cluster_name": "provider",
                            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(self.mock.port)}}]}],
                        },
                    }
                ],
            }
        }
        path = self.folder / "envoy.json"
        path.write_text(json.dumps(config, indent=1))
        envoy = envoy_binary()
        assert envoy, "no Envoy: run `make envoy`"
        return [envoy, "-c", str(path), "--concurrency", str(self.workers), "--disable-hot-restart", "-l", "warning"], {}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def litellm_config(mock: Mock) -> dict[str, Any]:
    """The same file for LiteLLM and for Tollgate: two deployments of one model, and one of Anthropic."""
    openai = {"model": f"openai/{CHAT}", "api_base": f"{mock.base}/v1"}
    return {
        "model_list": [
            {"model_name": CHAT, "litellm_params": openai | {"api_key": "sk-of-the-provider-1"}},
            {"model_name": CHAT, "litellm_params": openai | {"api_key": "sk-of-the-provider-2"}},
            {
                "model_name": CLAUDE,
                "litellm_params": {"model": f"anthropic/{CLAUDE}", "api_base": mock.base, "api_key": "sk-ant-of-the-provider"},
            },
        ],
        "general_settings": {"master_key": MASTER_KEY},
    }


class Tollgate(Subject):
    """The command as anyone starts it: Envoy with the filter, and the ledger over SQLite. Calls come with a virtual key that has
    every kind of limit, all far away; each is priced, counted and logged."""

    name = "tollgate"
    filter_host = "wasm"

    def command(self) -> tuple[list[str], dict[str, str]]:
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(litellm_config(self.mock)))
        # Not below the folder: the path of a Unix socket has room for 107 bytes.
        self.state = tempfile.mkdtemp(prefix="tollgate-")
        words = [str(BINARY), "--config", str(path), "--host", "127.0.0.1", "--port", str(self.port)]
        words += ["--filter-host", self.filter_host]
        envoy = envoy_binary()
        assert envoy, "no Envoy: run `make envoy`"
        return [*words, "--num_workers", str(self.workers), "--state_dir", self.state], {"TOLLGATE_ENVOY": envoy}

    def manage(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}{path}"
        with httpx.Client(trust_env=False, timeout=30, headers=bearer(MASTER_KEY)) as client:
            answer = client.post(url, json=body) if body else client.get(url)
        if answer.status_code != 200:
            raise Failed(f"{path}: {answer.status_code} {answer.text}")
        return answer.json()

    def make_key(self) -> str:
        """A virtual key with every kind of limit, all far away."""
        limits = {"rpm_limit": 10**9, "tpm_limit": 10**12, "max_budget": 10**6, "max_parallel_requests": 10**6}
        return self.manage("/key/generate", limits)["key"]

    def prepare(self) -> None:
        self.key = self.make_key()

    def check(self) -> None:
        deadline = time.monotonic() + 10
        while self.manage(f"/key/info?key={self.key}")["info"]["spend"] <= 0:
            if time.monotonic() > deadline:
                raise Failed("the ledger shows no spend")
            time.sleep(0.1)

    def parts(self) -> tuple[list[int], list[int]]:
        envoy, others = [], [self.process.pid]
        for pid in children(self.process.pid):
            with contextlib.suppress(OSError):
                program = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
                (envoy if b"envoy" in program.rsplit(b"/", 1)[-1] else others).append(pid)
        return envoy, others

    def pids(self) -> list[int]:
        return self.parts()[0]

    def aside(self) -> list[int]:
        return self.parts()[1]

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.state, ignore_errors=True)


class TollgateNative(Tollgate):
    """The same, with the filter as a dynamic module of Envoy."""

    name = "tollgate-native"
    filter_host = "native"


class LiteLLM(Subject):
    """The LiteLLM proxy with one worker, a master key and no database."""

    name = "litellm"
    most_workers = 1
    slow = True
    program = PEERS / "litellm/bin/litellm"

    @classmethod
    def installed(cls) -> bool:
        return cls.program.exists()

    def command(self) -> tuple[list[str], dict[str, str]]:
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(litellm_config(self.mock)))
        words = [str(self.program), "--config", str(path), "--host", "127.0.0.1", "--port", str(self.port)]
        # Its own table of prices, not one from the network.
        return [*words, "--num_workers", "1", "--telemetry", "False"], {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


class Crabllm(Subject):
    """crabllm with one thread for requests and one virtual key."""

    name = "crabllm"
    most_workers = 1
    program = PEERS / "bin/crabllm"

    @classmethod
    def installed(cls) -> bool:
        return cls.program.exists()

    def command(self) -> tuple[list[str], dict[str, str]]:
        path = self.folder / "crabllm.toml"
        path.write_text(f"""listen = "127.0.0.1:{self.port}"

[providers.one]
kind = "openai"
api_key = "sk-of-the-provider"
base_url = "{self.mock.base}/v1"
models = ["{CHAT}"]

[providers.two]
kind = "anthropic"
api_key = "sk-ant-of-the-provider"
base_url = "{self.mock.base}/v1"
models = ["{CLAUDE}"]

[[keys]]
name = "bench"
key = "{MASTER_KEY}"
models = ["*"]
""")
        return [str(self.program), "serve", "--config", str(path)], {"TOKIO_WORKER_THREADS": "1"}


SUBJECTS: list[type[Subject]] = [Plain, TollgateNative, Tollgate, Crabllm, LiteLLM]


# ------------------------------------------------------------------------------------------------------------------ measurements


@dataclasses.dataclass
class Sample:
    """One measurement at saturation (of streams: with a fixed number at a time)."""

    cpu_us: float
    aside_us: float
    rps: float
    rss_mb: float
    foreign: float
    """CPUs that other processes had meanwhile."""
    load_us: float
    """CPU of the load generator and of the provider, per request."""


Histogram = list[list[int]]


def percentile_ms(histogram: Histogram, share: float) -> float:
    """The latency below which so many lie, in milliseconds."""
    counts: dict[int, int] = {}
    for value, count in histogram:
        counts[value] = counts.get(value, 0) + count
    left = math.ceil(sum(counts.values()) * share)
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value / 1000
    return math.nan


class Bench:
    """The rounds, and what they found."""

    def __init__(self, options: argparse.Namespace, folder: pathlib.Path) -> None:
        self.options = options
        self.folder = folder
        self.samples: dict[tuple[str, str, int], list[Sample]] = {}
        self.latencies: dict[tuple[str, str, int], Histogram] = {}
        self.starts: dict[tuple[str, int], list[dict[str, float]]] = {}
        self.failed: dict[tuple[str, str, int], str] = {}
        self.bodies = {}
        for scenario in SCENARIOS:
            self.bodies[scenario.name] = folder / f"{scenario.name}.json"
            self.bodies[scenario.name].write_bytes(scenario.body())

    def run(self) -> None:
        subjects = [kind for kind in SUBJECTS if kind.installed() and (not self.options.only or kind.name in self.options.only)]
        for number in range(self.options.rounds):
            for workers in self.options.workers:
                say(f"round {number + 1} of {self.options.rounds}, {workers} worker{'s' * (workers > 1)}")
                self.round(number, workers, [kind for kind in subjects if kind.most_workers >= workers])

    def round(self, number: int, workers: int, kinds: list[type[Subject]]) -> None:
        mock = Mock.start(pinned(workers, False))
        running: list[Subject] = []
        try:
            for kind in kinds:
                try:
                    running.append(kind(self.folder / f"{number}-{workers}-{kind.name}", mock, workers))
                except Failed as failure:
                    say(f"  {kind.name}: {failure}")
                    for scenario in SCENARIOS:
                        self.failed.setdefault((kind.name, scenario.name, workers), str(failure))
            for scenario in SCENARIOS:
                if self.options.scenarios and scenario.name not in self.options.scenarios:
                    continue
                self.direct(scenario, mock, workers)
                # Every other round goes the other way, so that nobody always comes after the same one.
                for subject in running if number % 2 == 0 else reversed(running):
                    self.visit(scenario, subject, mock, workers)
            for subject in running:
                self.finish(subject, workers)
        finally:
            for subject in running:
                subject.stop()
            end(mock.process)

    def rate(self, scenario: Scenario, workers: int) -> int | None:
        return dict(scenario.rates).get(workers)

    def direct(self, scenario: Scenario, mock: Mock, workers: int) -> None:
        """The provider itself, for what a gateway adds."""
        key = ("direct", scenario.name, workers)
        cpus = pinned(workers, False)
        self.latencies.setdefault(key, []).extend(self.calm(scenario, mock.port, cpus, MASTER_KEY, workers))

    def calm(self, scenario: Scenario, port: int, cpus: set[int], key: str, workers: int) -> Histogram:
        """Latencies at a low rate; of streams, those of the first byte with few at a time. Nothing when there is none to take."""
        body, seconds = self.bodies[scenario.name], self.options.paced_seconds
        if scenario.streamed:
            flags = ["--connections", str(CALM_STREAMS), "--requests", str(math.ceil(20 * seconds)), "--events", str(EVENTS)]
            return load(port, body, cpus, key, *flags)["firsts"]
        rate = self.rate(scenario, workers)
        if rate is None:
            return []
        load(port, body, cpus, key, "--connections", "1", "--requests", "3")
        return load(port, body, cpus, key, "--rate", str(rate), "--requests", str(math.ceil(rate * seconds)))["latencies"]

    def count(self, requests: int) -> int:
        return max(CONNECTIONS, int(requests * self.options.scale))

    def visit(self, scenario: Scenario, subject: Subject, mock: Mock, workers: int) -> None:
        key = (subject.name, scenario.name, workers)
        if key in self.failed:
            return
        cpus = pinned(workers, False)
        try:
            sample = self.sample(scenario, subject, mock, workers)
            self.samples.setdefault(key, []).append(sample)
            self.latencies.setdefault(key, []).extend(self.calm(scenario, subject.port, cpus, subject.key, workers))
        except Failed as failure:
            say(f"  {subject.name}, {scenario.name}: {failure}")
            self.failed[key] = str(failure)
            return
        note = f"   (others used {sample.foreign:.2f} CPUs)" if sample.foreign > self.options.foreign else ""
        say(f"  {scenario.name:<24}{subject.name:<14}{sample.cpu_us:>10,.1f} µs{sample.rps:>12,.0f} req/s{note}")

    def sample(self, scenario: Scenario, subject: Subject, mock: Mock, workers: int) -> Sample:
        """Warms up, then measures; again while others are busy, and the calmest counts."""
        requests = self.count(scenario.slow if subject.slow else scenario.requests)
        connections = STREAMS if scenario.streamed else CONNECTIONS
        cpus = pinned(workers, False)
        flags = ["--connections", str(connections), "--min-bytes", "300"]
        flags += ["--events", str(EVENTS)] if scenario.streamed else []
        body = self.bodies[scenario.name]
        load(subject.port, body, cpus, subject.key, *flags, "--requests", str(max(connections, requests // 8)))
        found: list[Sample] = []
        while len(found) <= self.options.repeats and not any(sample.foreign <= self.options.foreign for sample in found):
            pids, aside = subject.pids(), subject.aside()
            begun = time.perf_counter()
            before = cpu_seconds(pids), cpu_seconds(aside), cpu_seconds([mock.process.pid]), own_seconds(), machine_seconds()
            result = load(subject.port, body, cpus, subject.key, *flags, "--requests", str(requests))
            after = cpu_seconds(pids), cpu_seconds(aside), cpu_seconds([mock.process.pid]), own_seconds(), machine_seconds()
            cpu, beside, provider, own, all_of_it = (new - old for new, old in zip(after, before))
            foreign = max(0.0, all_of_it - cpu - beside - provider - own) / (time.perf_counter() - begun)
            sample = Sample(
                cpu_us=cpu / requests * 1e6,
                aside_us=beside / requests * 1e6,
                rps=result["rps"],
                rss_mb=memory_mb(pids),
                foreign=foreign,
                load_us=(provider + own) / requests * 1e6,
            )
            found.append(sample)
        return min(found, key=lambda sample: sample.foreign)

    def finish(self, subject: Subject, workers: int) -> None:
        try:
            subject.check()
        except Failed as failure:
            say(f"  {subject.name}: {failure}")
            for scenario in SCENARIOS:
                self.failed.setdefault((subject.name, scenario.name, workers), str(failure))
        figures = {
            "start_ms": subject.start_ms,
            "rss_idle_mb": subject.idle_mb,
            "rss_after_mb": memory_mb(subject.pids()),
            "aside_rss_mb": memory_mb(subject.aside()),
        }
        self.starts.setdefault((subject.name, workers), []).append(figures)

    # -- what came of it

    def report(self) -> dict[str, Any]:
        rows = []
        for kind in SUBJECTS:
            for scenario in SCENARIOS:
                for workers in self.options.workers:
                    key = (kind.name, scenario.name, workers)
                    if key in self.failed:
                        rows.append({"subject": key[0], "scenario": key[1], "workers": key[2], "failed": self.failed[key]})
                    elif key in self.samples:
                        rows.append(self.row(scenario, *key))
        processes = []
        for (subject, workers), found in self.starts.items():
            figures = {name: rounded(statistics.median(each[name] for each in found)) for name in found[0]}
            processes.append({"subject": subject, "workers": workers} | figures)
        return {
            "machine": machine(self.options),
            "rows": rows,
            "direct": [
                {"scenario": name, "workers": workers} | latency(found)
                for (subject, name, workers), found in self.latencies.items()
                if subject == "direct" and found
            ],
            "processes": processes,
        }

    def row(self, scenario: Scenario, subject: str, name: str, workers: int) -> dict[str, Any]:
        samples = self.samples[subject, name, workers]
        cpu = [sample.cpu_us for sample in samples]
        plain = self.samples.get((Plain.name, name, workers))
        if (Plain.name, name, workers) in self.failed:
            plain = None
        middle = statistics.median(cpu)
        row: dict[str, Any] = {
            "subject": subject,
            "scenario": name,
            "workers": workers,
            "cpu_us_per_request": rounded(middle),
            "cpu_us_min": rounded(min(cpu)),
            "cpu_us_max": rounded(max(cpu)),
            "ratio": round(middle / statistics.median(sample.cpu_us for sample in plain), 3) if plain else None,
            "aside_cpu_us_per_request": rounded(statistics.median(sample.aside_us for sample in samples)),
            "rps": None if scenario.streamed else rounded(statistics.median(sample.rps for sample in samples)),
            "rss_mb": rounded(statistics.median(sample.rss_mb for sample in samples)),
            "load_cpu_us_per_request": rounded(statistics.median(sample.load_us for sample in samples)),
            "foreign_cpus": round(statistics.median(sample.foreign for sample in samples), 3),
        }
        if scenario.streamed:
            row["cpu_us_per_event"] = rounded(middle / EVENTS)
        row["p50_ms"] = row["p99_ms"] = None
        mine, direct = self.latencies.get((subject, name, workers)), self.latencies.get(("direct", name, workers))
        if mine and direct:
            rate = self.rate(scenario, workers)
            row["latency_of"] = f"first byte, {CALM_STREAMS} streams" if scenario.streamed else f"{rate}/s"
            row |= {of: round(value - latency(direct)[of], 3) for of, value in latency(mine).items()}
        return row


def latency(histogram: Histogram) -> dict[str, float]:
    return {"p50_ms": percentile_ms(histogram, 0.5), "p99_ms": percentile_ms(histogram, 0.99)}


def rounded(value: float) -> float:
    return round(value, 1)


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures were taken on."""
    models = [line.partition(":")[2].strip() for line in read("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((int(line.split()[1]) // 1024 for line in read("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(CPUS),
        "memory_mb": memory,
        "kernel": platform.release(),
        "date": datetime.date.today().isoformat(),
        "rounds": options.rounds,
        "connections": CONNECTIONS,
        "streams": STREAMS,
        "subject_has_its_cpus_alone": [workers for workers in options.workers if len(CPUS) > workers],
    }


def read(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_text().splitlines()
    return []


# ------------------------------------------------------------------------------------------------------------------------ output


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


COLUMNS: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
    ("scenario", lambda row: row["scenario"]),
    ("workers", lambda row: str(row["workers"])),
    ("subject", lambda row: row["subject"]),
    ("CPU µs/req", lambda row: shown(row["cpu_us_per_request"], 1)),
    ("min … max", lambda row: f"{shown(row['cpu_us_min'], 1)} … {shown(row['cpu_us_max'], 1)}"),
    ("× plain", lambda row: shown(row.get("ratio"), 2)),
    ("beside", lambda row: shown(row.get("aside_cpu_us_per_request") or None, 1)),
    ("µs/event", lambda row: shown(row.get("cpu_us_per_event"), 1)),
    ("req/s", lambda row: shown(row.get("rps"), 0)),
    ("added p50 ms", lambda row: shown(row.get("p50_ms"), 2)),
    ("p99 ms", lambda row: shown(row.get("p99_ms"), 2)),
    ("of", lambda row: row.get("latency_of", "")),
    ("RSS MB", lambda row: shown(row.get("rss_mb"), 0)),
]


def shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By workers, then scenario, then subject; each in the order of its first appearance."""
    places = {name: list(dict.fromkeys(row[name] for row in rows)) for name in ("workers", "scenario", "subject")}
    return sorted(rows, key=lambda row: [places[name].index(row[name]) for name in places])


def table(report: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [[title for title, _ in COLUMNS]]
    for row in ordered(report["rows"]):
        if "failed" in row:
            lines.append([row["scenario"], str(row["workers"]), row["subject"], f"FAILED: {row['failed'][:100]}"])
        else:
            lines.append([cell(row) for _, cell in COLUMNS])
    whole = [line for line in lines if len(line) == len(COLUMNS)]
    widths = [max(len(line[at]) for line in whole) for at in range(len(COLUMNS))]
    widths[2] = max(len(line[2]) for line in lines)
    widths[0] = max(len(line[0]) for line in lines)
    left = {0, 2, 11}
    text = []
    for line in lines:
        short = len(line) < len(COLUMNS)
        cells = zip(line, widths)
        text.append("  ".join(c.ljust(w) if short or at in left else c.rjust(w) for at, (c, w) in enumerate(cells)).rstrip())
    text.append("")
    text.append(f"{'subject':<14}{'workers':>8}{'start ms':>11}{'RSS idle MB':>13}{'after':>8}{'beside':>8}")
    for row in report["processes"]:
        text.append(
            f"{row['subject']:<14}{row['workers']:>8}{row['start_ms']:>11,.0f}{row['rss_idle_mb']:>13,.0f}"
            f"{row['rss_after_mb']:>8,.0f}{shown(row['aside_rss_mb'] or None, 0):>8}"
        )
    text.append("")
    text.append("CPU: user and system time of the gateway's processes. Beside: the ledger and supervisor. Added: over direct.")
    return "\n".join(text)


COLORS = {"plain-envoy": "#9aa5b1", "tollgate-native": "#0d9488", "tollgate": "#2563eb", "crabllm": "#d97706", "litellm": "#b91c1c"}


def svg(report: dict[str, Any]) -> str:
    """A bar for each subject and scenario at the fewest workers: CPU microseconds per request."""
    workers = min((row["workers"] for row in report["rows"]), default=1)
    rows = [row for row in report["rows"] if row["workers"] == workers and "failed" not in row]
    subjects = [name for name in COLORS if any(row["subject"] == name for row in rows)]
    groups = list(dict.fromkeys(row["scenario"] for row in ordered(rows)))
    figures = {(row["scenario"], row["subject"]): row["cpu_us_per_request"] for row in rows}
    log = "litellm" in subjects
    most, least = max(figures.values(), default=1), min(figures.values(), default=1)
    floor = 10 ** math.floor(math.log10(max(least, 0.1))) if log else 0
    left, width, bar, gap, top = 190, 470, 17, 16, 74

    def length(value: float) -> float:
        if not log:
            return width * value / most
        # A little for the smallest, so that no bar vanishes.
        return 4 + (width - 4) * math.log10(max(value, floor) / floor) / max(math.log10(most / floor), 0.01)

    parts, y = [], top
    for group in groups:
        present = [name for name in subjects if (group, name) in figures]
        middle = y + bar * len(present) / 2 + 4
        parts.append(f'<text x="{left - 10}" y="{middle:.0f}" text-anchor="end">{html.escape(group)}</text>')
        for name in present:
            value = figures[group, name]
            parts.append(
                f'<rect x="{left}" y="{y}" width="{length(value):.1f}" height="{bar - 3}" rx="2" fill="{COLORS[name]}"/>'
                f'<text x="{left + length(value) + 6:.1f}" y="{y + bar - 6}" font-size="11">{value:,.0f}</text>'
            )
            y += bar
        y += gap
    legend, x = [], left
    for name in subjects:
        legend += legend_entry(x, name, COLORS[name])
        x += 36 + 7 * len(name)
    info = report["machine"]
    s = "s" if workers > 1 else ""
    scale = ", logarithmic scale" if log else ""
    foot = f"{info['cpu']}, {info['cpus']} CPUs, {workers} worker{s}, medians of {info['rounds']} rounds, {info['date']}"
    title = "CPU microseconds per request, by scenario and gateway"
    heading = f"CPU microseconds per request (less is better{scale})"
    return drawing(left + width + 70, y + 26, title, heading, [*legend, *parts], foot)


def legend_entry(x: int, name: str, color: str) -> list[str]:
    """A color and what it stands for, below the heading."""
    return [
        f'<rect x="{x}" y="44" width="12" height="12" rx="2" fill="{color}"/>',
        f'<text x="{x + 18}" y="54">{name}</text>',
    ]


def drawing(width: int, height: int, title: str, heading: str, parts: list[str], foot: str) -> str:
    """An SVG with what every chart has around its parts."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="#1f2933" role="img">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
            f'<text x="20" y="28" font-size="15" font-weight="600">{heading}</text>',
            *parts,
            f'<text x="20" y="{height - 14}" font-size="11" fill="#616e7c">{html.escape(foot)}</text>',
            "</svg>",
            "",
        ]
    )


def write(report: dict[str, Any], folder: pathlib.Path) -> None:
    """The two files."""
    write_files("bench", report, svg(report), folder)


def write_files(name: str, report: dict[str, Any], chart: str, folder: pathlib.Path) -> None:
    """A report as JSON and as a chart."""
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    (folder / f"{name}.svg").write_text(chart)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures plain Envoy, Tollgate and the peers that are installed.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two short rounds: to see that it works, not for figures")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in SUBJECTS], help="these subjects")
    parser.add_argument("--scenarios", nargs="+", choices=[scenario.name for scenario in SCENARIOS], help="these scenarios")
    parser.add_argument("--foreign", type=float, default=0.25, help="so many CPUs may be busy with something else")
    parser.add_argument("--repeats", type=int, default=1, help="how often a measurement is repeated when more are")
    options = parser.parse_args(words)
    options.scale, options.paced_seconds = (0.2, 1.0) if options.quick else (1.0, 2.0)
    if options.quick:
        options.rounds = 2
    return options


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tollgate-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    options = arguments()
    # Whoever ends this ends what it started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    with scratch() as folder:
        bench = Bench(options, folder)
        bench.run()
        report = bench.report()
    write(report, TARGET)
    print(table(report))
    say(f"\n{time.monotonic() - begun:.0f} s; target/bench.json, target/bench.svg")
    return 1 if any("failed" in row for row in report["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
