"""Raw connections to a gateway, for what no HTTP client would send."""

from __future__ import annotations

import http.client
import json
import pathlib
import socket
from typing import Any, Callable, Iterator

import pytest

from gateway import ROOT, Gateway
from mock_provider import WAIT


class _Kept:
    """What `http.client` may read from without losing what follows the answer it reads."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def makefile(self, *_: Any) -> "_Kept":
        return self

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Raw:
    """One connection to a gateway, byte by byte."""

    def __init__(self, gateway: Gateway) -> None:
        self.socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=WAIT)
        self._kept = _Kept(self.socket.makefile("rb"))

    def send(self, data: bytes) -> "Raw":
        self.socket.sendall(data)
        return self

    def post(self, body: bytes, *headers: bytes, path: bytes = b"/v1/chat/completions", length: bool = True) -> "Raw":
        lines = [b"POST " + path + b" HTTP/1.1", b"host: gateway", *headers]
        if not any(line.lower().startswith(b"content-type:") for line in headers):
            lines.append(b"content-type: application/json")
        if length:
            lines.append(b"content-length: %d" % len(body))
        return self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        response = http.client.HTTPResponse(self._kept, method="POST")
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def close(self) -> None:
        self._kept.file.close()
        self.socket.close()


@pytest.fixture
def raw() -> Iterator[Callable[[Gateway], Raw]]:
    """Opens raw connections, closed at the end of the test."""
    connections: list[Raw] = []

    def connect(gateway: Gateway) -> Raw:
        connections.append(Raw(gateway))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()


def chat_bytes(model: str = "openai", **more: Any) -> bytes:
    """A chat request's body."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]} | more).encode()


@pytest.fixture(name="chat_bytes")
def _chat_bytes() -> Callable[..., bytes]:
    return chat_bytes


@pytest.fixture(scope="session")
def module() -> pathlib.Path:
    """The filter module that `make build` makes."""
    found = ROOT / "target/wasm32-wasip1/wasm/tollgate.wasm"
    assert found.exists(), f"{found} is missing: run `make build`"
    return found


@pytest.fixture(scope="session")
def fault_module() -> pathlib.Path:
    """The filter module that panics when it is asked to."""
    found = ROOT / "target/fault/wasm32-wasip1/wasm/tollgate.wasm"
    assert found.exists(), f"{found} is missing: run `make fault-module`"
    return found
