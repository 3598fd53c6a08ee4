"""Tenants that attack, for the tests and for `make bench-attackers`: each has a key, and calls again and again.

A further attacker is one more row of `ATTACKERS`, a function that is called with a number that grows, or of `FLOODS`, a request
that the compiled load tool sends as fast as it can."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import subprocess
from collections import Counter, deque
from typing import Callable

import httpx

from gateway import ROOT, Asking, bearer


class Attacker:
    """What an attacker has: a key, and a client of its own."""

    def __init__(self, gateway: Asking, key: str) -> None:
        self.port, self.key = gateway.port, key
        self.client = httpx.Client(base_url=gateway.url, timeout=60, trust_env=False)
        self.uploads: deque[socket.socket] = deque()

    def chat(self, key: str | None = None, **body: object) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | body
        return self.client.post("/chat/completions", json=body, headers=bearer(key or self.key)).status_code

    def close(self) -> None:
        self.client.close()
        for upload in self.uploads:
            upload.close()


def unknown_keys(attacker: Attacker, turn: int) -> int:
    return attacker.chat(key=f"sk-nobody-{turn}")


def unknown_managers(attacker: Attacker, turn: int) -> int:
    answer = attacker.client.post("/key/generate", json={"key_alias": "x" * 250}, headers=bearer(f"sk-nobody-{turn}"))
    return answer.status_code


def tiny_timeouts(attacker: Attacker, turn: int) -> int:
    return attacker.chat(timeout=0.001)


def many_end_users(attacker: Attacker, turn: int) -> int:
    return attacker.chat(user=f"user-{turn}", max_tokens=1)


def huge_claims(attacker: Attacker, turn: int) -> int:
    return attacker.chat(max_tokens=10**12, n=1_000_000)


CHAT = b'{"model":"m","messages":[{"role":"user","content":"x"}]'
LARGE = [
    CHAT + b',"fallbacks":[' + b",".join([b'""'] * 4_300_000) + b"]}",
    CHAT + b',"mock_response":[' + b",".join([b"0"] * 6_000_000) + b"]}",
    CHAT + b',"metadata":{"a":[' + b",".join([b"[]"] * 4_300_000) + b"]}}",
]
"""Bodies of 13 MB whose values would take a hundred times as much when they were read."""


def large_members(attacker: Attacker, turn: int) -> int:
    headers = bearer(attacker.key) | {"content-type": "application/json"}
    return attacker.client.post("/chat/completions", content=LARGE[turn % len(LARGE)], headers=headers).status_code


STALLED = 24
"""Uploads that one attacker leaves open."""


def stalled_uploads(attacker: Attacker, turn: int) -> int:
    if len(attacker.uploads) >= STALLED:
        # One that was ended makes room for another.
        oldest = attacker.uploads[0]
        with contextlib.suppress(TimeoutError, OSError):
            oldest.recv(65536)
            oldest.close()
        attacker.uploads.popleft()
        if oldest.fileno() >= 0:
            attacker.uploads.append(oldest)
        return 0
    upload = socket.create_connection(("127.0.0.1", attacker.port), timeout=60)
    head = f"POST /chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {attacker.key}\r\n"
    upload.sendall(f"{head}content-type: application/json\r\ncontent-length: 20000000\r\n\r\n".encode())
    attacker.uploads.append(upload)
    # A gateway that reads no further leaves it here, too.
    upload.settimeout(0.05)
    with contextlib.suppress(OSError):
        upload.sendall(b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 1_000_000)
    return 0


def stolen_budget(attacker: Attacker, turn: int) -> int:
    answer = {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
        "usage": {"prompt_tokens": 10**9, "completion_tokens": 10**9, "total_tokens": 2 * 10**9},
    }
    return attacker.chat(mock_response=answer)


ATTACKERS: dict[str, Callable[[Attacker, int], int]] = {
    "unknown keys": unknown_keys,
    "management without a key": unknown_managers,
    "tiny time-outs": tiny_timeouts,
    "many end users": many_end_users,
    "huge claims": huge_claims,
    "large members": large_members,
    "stalled uploads": stalled_uploads,
    "made-up usage": stolen_budget,
}


def attack(gateway: Asking, key: str, name: str, over: Callable[[], bool], lane: int, lanes: int) -> Counter:
    """Attacks until it is over: statuses and how often; 0 is a lost connection, or no call at all."""
    attacker, came, turn = Attacker(gateway, key), Counter(), lane
    try:
        while not over():
            try:
                came[ATTACKERS[name](attacker, turn)] += 1
            except httpx.TransportError:
                came[0] += 1
            turn += lanes
    finally:
        attacker.close()
    return came


LOAD = ROOT / "target/bench/load"
"""The load tool, see tests/bench/load.rs; built by `make target/bench/load`."""
NUMBER = "00000000"
"""What the load tool replaces by the number of the request."""


@dataclasses.dataclass(frozen=True)
class Flood:
    """One request that is sent over and over."""

    body: dict
    key: str = ""
    """The attacker's own when it is empty."""
    path: str = "/chat/completions"
    connections: int = 16
    fresh: bool = False
    """A new connection for each request."""


HI = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
FLOODS: dict[str, Flood] = {
    "a flood of unknown keys": Flood(HI, key=f"sk-nobody-{NUMBER}"),
    "a flood of one wrong key": Flood(HI, key="sk-nobody"),
    "a flood of management": Flood({"key_alias": "x" * 250}, key=f"sk-nobody-{NUMBER}", path="/key/generate"),
    "a flood of tiny time-outs": Flood(HI | {"timeout": 0.001}),
    "a flood of end users": Flood(HI | {"user": f"user-{NUMBER}", "max_tokens": 1}),
    "new connections": Flood(HI, key=f"sk-nobody-{NUMBER}", connections=64, fresh=True),
    "new connections of 1 MB, wrong key": Flood(
        HI | {"user": "x" * 1_000_000}, key="sk-nobody", connections=64, fresh=True
    ),
    "new connections of 1 MB": Flood(
        {"model": "m", "messages": [{"role": "user", "content": "x" * 1_000_000}]}, connections=64, fresh=True
    ),
}


def load(gateway: Asking, flood: Flood, key: str, **flags: object) -> subprocess.Popen:
    """Begins a flood; see [loaded]."""
    words = {"url": gateway.url + flood.path, "header": f"authorization: Bearer {flood.key or key}", "body": "/dev/stdin"}
    words |= {"any": 1, "connections": flood.connections, "fresh": int(flood.fresh)} | flags
    arguments = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen([str(LOAD), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(flood.body))
    process.stdin.close()
    process.stdin = None
    return process


def loaded(process: subprocess.Popen) -> dict:
    """What came of a flood, once it is over: `statuses` (0 is a lost connection), `rps`, `latencies` in microseconds."""
    out, _ = process.communicate()
    result = json.loads(out)
    result["statuses"] = Counter({int(status): count for status, count in result["statuses"].items()})
    return result
