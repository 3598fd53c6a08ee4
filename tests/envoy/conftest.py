"""Raw connections to a gateway, for what no HTTP client would send."""

from __future__ import annotations

import http.client
import json
import pathlib
import socket
from typing import Any, Callable, Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
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


class Http2Call:
    """One request over HTTP/2, frame by frame, on a connection of its own."""

    def __init__(self, gateway: Gateway, path: str = "/v1/chat/completions") -> None:
        self.socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=WAIT)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self.h2.initiate_connection()
        self.headers: dict[str, str] = {}
        self.body = b""
        self.over = False
        fields = {":method": "POST", ":path": path, ":scheme": "http", ":authority": "gateway"}
        self.stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.stream, list((fields | {"content-type": "application/json"}).items()))
        self._flush()

    def _flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def send(self, data: bytes, end: bool = False) -> "Http2Call":
        """One frame of the body."""
        self.h2.send_data(self.stream, data, end_stream=end)
        self._flush()
        return self

    def send_trailers(self, *pairs: tuple[str, str]) -> "Http2Call":
        self.h2.send_headers(self.stream, list(pairs), end_stream=True)
        self._flush()
        return self

    def read_until(self, enough: Callable[["Http2Call"], bool]) -> "Http2Call":
        """Reads frames until what has come is enough."""
        while not enough(self):
            data = self.socket.recv(65536)
            assert data and not self.over, f"the stream ended: {self.headers} {self.body[-200:]!r}"
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self.headers = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.body += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    raise ConnectionResetError(event.error_code)
                elif isinstance(event, h2.events.StreamEnded):
                    self.over = True
            self._flush()
        return self

    def reset(self) -> None:
        """Cancels the request; the connection stays."""
        self.h2.reset_stream(self.stream, h2.errors.ErrorCodes.CANCEL)
        self._flush()


@pytest.fixture
def http2() -> Iterator[Callable[..., Http2Call]]:
    """Begins requests over HTTP/2."""
    calls: list[Http2Call] = []

    def begin(*arguments: Any) -> Http2Call:
        calls.append(Http2Call(*arguments))
        return calls[-1]

    yield begin
    for call in calls:
        call.socket.close()


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
