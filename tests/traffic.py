"""Many requests at once, on connections that live as long as the burst: those are what is spread over the workers."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http.client
import json
import socket
import threading
from typing import Any, BinaryIO, Callable, Sequence

from gateway import Gateway
from mock_provider import WAIT


@dataclasses.dataclass(frozen=True)
class Heard:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def deployment(self) -> str | None:
        return self.headers.get("x-litellm-model-id")

    @property
    def message(self) -> str:
        return json.loads(self.body)["error"]["message"]


def chat(connection: http.client.HTTPConnection, model: str, headers: dict[str, str] | None = None, **body: Any) -> Heard:
    """A chat completion, read to its end."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1} | body
    head = {"content-type": "application/json"} | (headers or {})
    connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
    answer = connection.getresponse()
    return Heard(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def fire(gateway: Gateway, count: int, at_once: int, ask: Callable[..., Any]) -> list[Any]:
    """What `ask(connection, turn)` returns for each of `count` turns, `at_once` of them at a time."""
    own = threading.local()
    opened: list[http.client.HTTPConnection] = []

    def one(turn: int) -> Any:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=WAIT)
            opened.append(own.connection)
        return ask(own.connection, turn)

    try:
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(one, range(count)))
    finally:
        for connection in opened:
            connection.close()


def chats(gateway: Gateway, count: int, at_once: int, model: str, **how: Any) -> list[Heard]:
    """So many chats with a model."""
    return fire(gateway, count, at_once, lambda connection, _: chat(connection, model, **how))


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
"""A body that most tests ask with."""
DEPTH = 64
"""Requests that are on their way on one connection of `pipelined`."""


def pipelined(
    gateway: Gateway, calls: Sequence[tuple[str, dict]], path: str = "/v1/chat/completions", connections: int = 8
) -> list[int]:
    """The statuses of these calls, each a key and a body.

    Requests follow each other without waiting, so that many thousands cost the caller next to nothing. One that is refused
    before its body was read closes its connection: those are not for here.
    """

    def some(part: Sequence[tuple[str, dict]]) -> list[int]:
        statuses: list[int] = []
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=WAIT) as connection, connection.makefile("rb") as answers:
            for at in range(0, len(part), DEPTH):
                few = part[at : at + DEPTH]
                connection.sendall(b"".join(_request(path, key, body) for key, body in few))
                statuses += [_status(answers) for _ in few]
        return statuses

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        parts = [calls[turn::connections] for turn in range(connections)]
        return [status for part in pool.map(some, parts) for status in part]


def _request(path: str, key: str, body: dict) -> bytes:
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n{content}".encode()


def _status(answers: BinaryIO) -> int:
    """The status of the next answer, read to its end."""
    status, length = int(answers.readline().split()[1]), 0
    chunked = False
    while (line := answers.readline()) != b"\r\n":
        name, _, value = line.lower().partition(b":")
        if name == b"content-length":
            length = int(value)
        chunked = chunked or (name == b"transfer-encoding" and b"chunked" in value)
    if not chunked:
        assert len(answers.read(length)) == length
        return status
    while (size := int(answers.readline(), 16)) > 0:
        answers.read(size + 2)
    assert answers.readline() == b"\r\n"
    return status
