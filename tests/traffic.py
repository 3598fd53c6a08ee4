"""Many requests at once, on connections that live as long as the burst: those are what is spread over the workers."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http.client
import json
import threading
from typing import Any, Callable

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
