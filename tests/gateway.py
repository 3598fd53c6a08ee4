"""A running gateway for the tests: writes its configuration, starts the `tollgate` command, reads its lines, stops it and looks
at what it leaves behind."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any, Callable

import httpx
import yaml

from mock_provider import WAIT

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("TOLLGATE_BIN", ROOT / "target/release/tollgate"))
LISTENING = "tollgate: listening on "
FILTER_HOST = os.environ.get("TOLLGATE_FILTER_HOST", "wasm")
"""The build of the filter that gateways run: the whole suite runs with either."""
NATIVE_MODULE = ROOT / "target/module/libtollgate.so"
MASTER_KEY = "sk-master-0f4e2d"

RELOADS = re.compile(r"(?:^|\.)wasm\.\S*(?:vm_reload|fail)")
"""Names of Envoy's counters that say a Wasm VM was lost or could not be made."""


_LANE = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
_PORTS = itertools.count(os.getpid() * 37)


def free_port() -> int:
    """A port that is free now, and that nobody takes before it is used: below those that the kernel gives to connections, and out of
    a part of its own for each process that runs tests at the same time."""
    for step in _PORTS:
        port = 10_000 + _LANE % 8 * 2_500 + step % 2_500
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def wait_until(condition: Callable[[], Any], what: str, timeout: float = WAIT) -> Any:
    """The condition's value, once it is true."""
    end = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"not in {timeout} s: {what}"
        time.sleep(0.02)


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without provider keys, proxies and others' state, and with `extra`."""
    foreign = re.compile(r"_API_KEY$|_API_BASE$|_BASE_URL$|^LITELLM_|^TOLLGATE_STATE|^DATABASE_URL$|_PROXY$", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not foreign.search(name)}
    # A gateway that runs on this machine besides keeps its state where it is by convention.
    return kept | {"XDG_STATE_HOME": f"{tempfile.gettempdir()}/tollgate-tests-{os.getpid()}"} | (extra or {})


def command(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `tollgate` with these arguments to its end."""
    words = [str(BINARY), *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, env=environment(env), stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        out, err = process.communicate(timeout=WAIT)
    except BaseException:
        # What it started goes too: an Envoy without its supervisor would stay for ever.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@functools.cache
def envoy_binary() -> str | None:
    """The Envoy the command would take, for the tests that start one by hand."""
    given = os.environ.get("TOLLGATE_ENVOY")
    if given:
        return given
    installed = sorted((ROOT / ".envoy").rglob("envoy"))
    # The package also brings a script of this name, which wants its own Python.
    programs = [str(path) for path in installed if path.is_file() and path.open("rb").read(4) == b"\x7fELF"]
    return programs[0] if programs else shutil.which("envoy")


def deployment(group: str, params: dict, **info: Any) -> dict:
    """An entry of `model_list`. `info` goes into `model_info`."""
    return {"model_name": group, "litellm_params": params} | ({"model_info": info} if info else {})


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


class Asking:
    """Something that listens like a gateway, and what tests ask of it."""

    port: int
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> httpx.Client:
        """A client with connections of its own."""
        return httpx.Client(base_url=self.url, timeout=WAIT, trust_env=False)

    def chat(
        self, model: str, content: str = "hi", headers: dict | None = None, path: str = "/v1/chat/completions", **body: Any
    ) -> httpx.Response:
        """A chat completion with plain HTTP, read to its end."""
        body = {"model": model, "messages": [{"role": "user", "content": content}]} | body
        return self.client.post(path, json=body, headers=headers or {})

    def messages(self, model: str, content: str = "hi", headers: dict | None = None, **body: Any) -> httpx.Response:
        """An Anthropic message with plain HTTP, read to its end."""
        body = {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": content}]} | body
        return self.client.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"} | (headers or {}))

    def manage(self, path: str, body: dict | None = None, key: str = MASTER_KEY, method: str | None = None, **query: Any) -> Any:
        """A management call that must succeed: POST with a body, else GET."""
        answer = self.manage_raw(path, body, key, method, **query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def manage_raw(
        self, path: str, body: dict | None = None, key: str = MASTER_KEY, method: str | None = None, **query: Any
    ) -> httpx.Response:
        """A management call, whatever comes of it."""
        method = method or ("GET" if body is None else "POST")
        return self.client.request(method, path, json=body, params=query or None, headers=bearer(key))

    def new_key(self, **fields: Any) -> str:
        """A new virtual key."""
        return self.manage("/key/generate", fields)["key"]

    def spend_of(self, key: str) -> float:
        """What the ledger says the key has spent."""
        answer = self.client.get("/key/info", params={"key": key}, headers=bearer(MASTER_KEY))
        assert answer.status_code == 200, answer.text
        return answer.json()["info"]["spend"]

    def serves(self, model: str = "", **body: Any) -> bool:
        """Whether it answers right now, on a new connection: a model, or only the question whether it is alive."""
        with contextlib.suppress(httpx.TransportError), self.connect() as client:
            if not model:
                return client.get("/health/liveliness").status_code == 200
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]} | body
            return client.post("/v1/chat/completions", json=body).status_code == 200
        return False


class Gateway(Asking):
    """The command, its Envoy, and what they print."""

    def __init__(
        self,
        directory: pathlib.Path,
        config: dict | str | pathlib.Path | None,
        env: dict[str, str] | None = None,
        workers: int = 2,
        arguments: tuple[str, ...] = (),
        port: int | None = None,
        state: pathlib.Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        # Not below `directory`: the path of a Unix socket has room for 107 bytes. One that was given stays when it stops.
        self.keeps_state = state is not None
        self.state = state or pathlib.Path(tempfile.mkdtemp(prefix="tollgate-"))
        self.config = directory / "config.yaml"
        if config is not None:
            self.write_config(config.read_text() if isinstance(config, pathlib.Path) else config)
        named = [] if config is None else ["--config", str(self.config)]
        self.port = port or free_port()
        self.may_reload = False
        """Set by tests that break a VM on purpose."""
        self.ends_with = 0
        """Set by tests that end it otherwise than well."""
        self.client = self.connect()
        self._lines: list[str] = []
        self._errors: collections.deque[str] = collections.deque(maxlen=200)
        self._read = threading.Condition()
        self.process = subprocess.Popen(
            [str(BINARY), *named, "--host", "127.0.0.1", "--port", str(self.port)]
            + ["--num_workers", str(workers), "--state_dir", str(self.state), *arguments],
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._follow, args=(self.process.stdout, self._lines), daemon=True),
            threading.Thread(target=self._follow, args=(self.process.stderr, self._errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self._wait_listening()
        except BaseException:
            self.kill()
            raise

    # -- life

    def _follow(self, pipe: Any, lines: Any) -> None:
        for line in pipe:
            with self._read:
                lines.append(line.rstrip("\n"))
                self._read.notify_all()

    def _wait_listening(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"tollgate ended with {self.process.returncode}:\n{self.log()}"
            return any(LISTENING in line for line in self.lines())

        wait_until(ready, f"`{LISTENING}` on stdout")

    def stop(self) -> None:
        """Stops it as an operator would and checks that it ended well."""
        trouble = {} if self.may_reload or self.process.poll() is not None else self.wasm_trouble()
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"tollgate did not end after SIGTERM:\n{self.log()}") from None
        self._clean()
        assert code == self.ends_with, f"tollgate ended with {code}:\n{self.log()}"
        assert not trouble, f"Envoy lost Wasm VMs: {trouble}\n{self.log()}"

    def kill(self) -> None:
        """Ends the command and everything it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._clean()

    def _clean(self) -> None:
        if not self.keeps_state:
            shutil.rmtree(self.state, ignore_errors=True)

    def write_config(self, config: dict | str) -> None:
        """Replaces config.yaml in one step, as an editor does."""
        text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False)
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.config)

    # -- what it says

    def lines(self) -> list[str]:
        with self._read:
            return list(self._lines)

    def log(self) -> str:
        """The last lines of both outputs, for messages."""
        with self._read:
            return "\n".join([*self._lines[-40:], *list(self._errors)[-80:]])

    def everything_printed(self) -> str:
        with self._read:
            return "\n".join([*self._lines, *self._errors])

    def access_log(self) -> list[dict]:
        """Access log records so far: JSON objects on stdout, or in a log file under the state directory."""
        lines = self.lines()
        for path in self.state.rglob("*access*"):
            if path.is_file():
                lines += path.read_text(errors="replace").splitlines()
        records = []
        for line in lines:
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    records.append(json.loads(line))
        return records

    def access_record(self, call_id: str) -> dict:
        """The access log record of one call, once it is written."""

        def find() -> dict | None:
            return next((record for record in self.access_log() if used(record).get("call_id") == call_id), None)

        return wait_until(find, f"an access log record of call {call_id}")

    def stats(self) -> dict[str, float]:
        """Envoy's counters through the gateway, by Prometheus name with labels."""
        return parse_metrics(self.client.get("/metrics").raise_for_status().text)

    # -- Envoy

    def sockets(self) -> list[pathlib.Path]:
        return sorted(self.state.rglob("*.sock"))

    def admin(self, path: str, method: str = "GET") -> httpx.Response:
        """Envoy's own admin interface, over its Unix socket."""
        for path_of_socket in self.sockets():
            transport = httpx.HTTPTransport(uds=str(path_of_socket))
            with httpx.Client(transport=transport, base_url="http://admin", timeout=WAIT) as client:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/server_info").status_code == 200:
                        return client.request(method, path)
        raise AssertionError(f"no Envoy admin socket among {self.sockets()}")

    def envoy_pid(self) -> int:
        """Process id of the running Envoy: the child of the command that runs a program called envoy."""
        return self._child(lambda words: b"envoy" in words[0].rsplit(b"/", 1)[-1], "Envoy")

    def ledger_pid(self) -> int:
        """Process id of the running ledger: the child of the command that runs the command again."""
        return self._child(lambda words: words[1:2] == [b"ledger"], "the ledger")

    def _child(self, wanted: Callable[[list[bytes]], bool], what: str) -> int:
        def find() -> int | None:
            for pid in children(self.process.pid):
                with contextlib.suppress(OSError):
                    if wanted(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")):
                        return pid
            return None

        return wait_until(find, f"{what} among the children of the command")

    def wasm_trouble(self) -> dict[str, int]:
        """Envoy's counters of lost VMs that are not zero."""
        try:
            return lost_vms(self.admin("/stats").text)
        except AssertionError:
            return {}


class PlainEnvoy(Asking):
    """An Envoy started by hand with the rendered configuration: the filter alone, no command running."""

    def __init__(self, directory: pathlib.Path, config: dict, module: pathlib.Path, env: dict[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        search: dict[str, str] = {}
        if FILTER_HOST == "native":
            module, search = NATIVE_MODULE, {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(NATIVE_MODULE.parent)}
        done = command("render", "--config", str(path), "--host", FILTER_HOST, "--module", str(module))
        assert done.returncode == 0, done.stderr
        self.rendered = done.stdout
        self.port, self.admin_port = free_port(), free_port()
        document = yaml.safe_load(done.stdout)
        document["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = self.port
        admin = document["admin"]["address"]["socket_address"]
        # The route to the statistics leads to the admin interface too.
        text = re.sub(rf"\bport_value: {admin['port_value']}\b", f"port_value: {self.admin_port}", yaml.safe_dump(document))
        (directory / "envoy.yaml").write_text(text)
        self._log = directory / "envoy.log"
        arguments = [envoy_binary(), "-c", str(directory / "envoy.yaml"), "--concurrency", "2", "--use-dynamic-base-id"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*arguments, "-l", "warning"], env=environment((env or {}) | search), stdout=log, stderr=log)
        self.client = self.connect()
        try:
            wait_until(self._up, "the plain Envoy")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _up(self) -> bool:
        assert self.process.poll() is None, self.log()
        return self.serves()

    def log(self) -> str:
        """The end of what Envoy wrote."""
        return self._log.read_text(errors="replace")[-4000:]

    def lost(self) -> dict[str, int]:
        """Envoy's counters of lost VMs that are not zero."""
        return lost_vms(httpx.get(f"http://127.0.0.1:{self.admin_port}/stats", trust_env=False, timeout=WAIT).text)

    def stop(self) -> None:
        """Ends it in order."""
        self.client.close()
        self.process.terminate()
        assert self.process.wait(WAIT) == 0, self.log()


def lost_vms(statistics: str) -> dict[str, int]:
    """Counters of lost Wasm VMs that are not zero, out of Envoy's plain statistics."""
    rows = (line.rpartition(": ") for line in statistics.splitlines())
    found = {name: value for name, _, value in rows if RELOADS.search(name)}
    return {name: int(value) for name, value in found.items() if value.isdigit() and value != "0"}


def used(record: dict) -> dict:
    """The access log record of a model call (call id, model, tokens, cost); nothing for other requests."""
    return record if "call_id" in record else {}


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *children(child)]
    return found


def parse_metrics(text: str) -> dict[str, float]:
    """Prometheus text: name with labels → value."""
    rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows if name}


# ------------------------------------------------------------------------------------------------------------------- streams


def events_of(body: bytes | str) -> list[tuple[str | None, str]]:
    """Server-sent events as pairs of event name and data."""
    text = body.decode() if isinstance(body, bytes) else body
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name = next((line[6:].strip() for line in lines if line.startswith("event:")), None)
            events.append((name, "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))))
    return events


def chunks_of(body: bytes | str) -> list[dict]:
    """The chunks of an OpenAI stream. The end mark is checked and left out."""
    data = [data for _, data in events_of(body)]
    assert data and data[-1] == "[DONE]", f"the stream does not end with [DONE]: {data[-2:]}"
    return [json.loads(item) for item in data[:-1]]


def text_of(chunks: list[dict]) -> str:
    """The text of a streamed chat completion."""
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", []))
