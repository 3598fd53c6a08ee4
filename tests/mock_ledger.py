"""A ledger that does what a test tells it to: answers look-ups, takes usage, fails in every way a ledger can fail."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import threading
import time
import urllib.parse
from typing import Any

from mock_provider import WAIT

SECRET = "the-secret-between-envoy-and-ledger"


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@dataclasses.dataclass
class Call:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass
class Answer:
    """What a management call is answered."""

    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


class MockLedger:
    """Listens on a port of this machine."""

    def __init__(self, port: int = 0) -> None:
        self.calls: list[Call] = []
        self.keys: dict[str, dict] = {}
        self.end_users: dict[str, dict] = {}
        self.fail_lookups: str | None = None
        """How look-ups fail: a status as text, `garbage`, `reset` or `hang`."""
        self.fail_sync: str | None = None
        self.refuses_batches = False
        """Syncs are answered, and no batch is taken."""
        self.acknowledged: dict[str, int] = {}
        self.batches: list[dict] = []
        """Those that were applied."""
        self.events: list[dict] = []
        self.folded: list[dict] = []
        self.changes: list[dict] = []
        """What is told with the next sync."""
        self.end_users_matter = False
        self.answer = Answer()
        self.open = threading.Event()
        """Look-ups wait while it is not set."""
        self.open.set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = port
        self.start()

    # -- life

    def start(self) -> None:
        ledger = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length) if length else self._chunks()
                headers = {name.lower(): value for name, value in self.headers.items()}
                ledger.handle(self, Call(self.command, self.path, headers, body, time.monotonic()))

            def _chunks(self) -> bytes:
                body = b""
                while self.headers.get("transfer-encoding", "").lower() == "chunked":
                    size = int(self.rfile.readline(), 16)
                    body += self.rfile.read(size)
                    self.rfile.readline()
                    if size == 0:
                        break
                return body

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_one

            def log_message(self, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256
            allow_reuse_address = True

            def handle_error(self, *_: Any) -> None:
                pass

            def process_request(self, request: Any, address: Any) -> None:
                with ledger._lock:
                    ledger._connections.append(request)
                super().process_request(request, address)

        self._connections: list[Any] = []
        self._stopped.clear()
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Goes away: nothing listens, every connection is cut."""
        import socket

        self._stopped.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- records

    def new_key(self, key: str, **scope: Any) -> str:
        """Makes a key that look-ups find."""
        self.keys[hash_of(key)] = {"key": {"id": hash_of(key)} | scope, "revision": 1}
        return key

    def lookups(self, what: str = "keys") -> list[Call]:
        return [call for call in self.calls if call.path.startswith(f"/internal/{what}/")]

    def syncs(self) -> list[dict]:
        return [call.json() for call in self.calls if call.path == "/internal/sync"]

    def managed(self) -> list[Call]:
        return [call for call in self.calls if not call.path.startswith("/internal/")]

    # -- answers

    def handle(self, to: http.server.BaseHTTPRequestHandler, call: Call) -> None:
        with self._lock:
            self.calls.append(call)
        if not call.path.startswith("/internal/"):
            answer = self.answer
            return send(to, answer.status, answer.body, answer.headers)
        if call.headers.get("authorization") != f"Bearer {SECRET}":
            return send(to, 401, b"{}")
        if call.path == "/internal/sync":
            return self._sync(to, call)
        self.open.wait(WAIT)
        if self.fail_lookups:
            return self._fail(to, self.fail_lookups)
        _, _, what, name = call.path.split("/", 3)
        record = getattr(self, what).get(urllib.parse.unquote(name))
        if record is None and what == "end_users":
            record = {"scope": {"id": urllib.parse.unquote(name)}, "revision": 1}
        return send(to, 200 if record else 404, json.dumps(record or {}).encode())

    def _sync(self, to: http.server.BaseHTTPRequestHandler, call: Call) -> None:
        if self.fail_sync:
            return self._fail(to, self.fail_sync)
        request = call.json()
        with self._lock:
            node, batch = request["node"], request.get("batch")
            if batch and not self.refuses_batches and batch["number"] > self.acknowledged.get(node, 0):
                self.acknowledged[node] = batch["number"]
                self.batches.append(batch)
                self.events += batch["events"]
                self.folded += batch["folded"]
            changes, self.changes = self.changes, []
        reply = {"acknowledged": self.acknowledged.get(node, 0), "cursor": 1, "changes": changes, "nodes": 1}
        reply |= {"end_users": self.end_users_matter, "reset": request["cursor"] == 0}
        send(to, 200, json.dumps(reply).encode())

    def _fail(self, to: http.server.BaseHTTPRequestHandler, how: str) -> None:
        match how:
            case "garbage":
                send(to, 200, b"<html>")
            case "reset":
                to.close_connection = True
                to.connection.shutdown(2)
            case "hang":
                self._stopped.wait(WAIT)
            case status:
                send(to, int(status), b'{"detail": "no"}')


def send(to: http.server.BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    to.send_response(status)
    for name, value in ({"content-type": "application/json"} | (headers or {})).items():
        to.send_header(name, value)
    to.send_header("content-length", str(len(body)))
    to.end_headers()
    if to.command != "HEAD":
        to.wfile.write(body)
