"""The server of all mocks: reads a request, follows the script, writes the answer exactly as told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import socket
import ssl
import struct
import threading
import time
import urllib.parse
import zlib
from collections import deque
from typing import Any, Callable, Coroutine, Iterable

from .http2 import Http2

WAIT = 30.0
"""Seconds after which waiting for a condition is a failure. Nothing sleeps this long when things work."""

TCP_ESTABLISHED = 1
"""The first byte of `TCP_INFO` of a connection that nobody has closed."""

# --------------------------------------------------------------------------------------------------------------- behaviours


class Gate:
    """A point in an answer where the mock waits until the test opens it (or the client goes away)."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()
        self._opened = asyncio.Event()
        """Set on the loop of the mocks, after `_open`."""

    def open(self) -> None:
        self._open.set()
        _Loop.get().call_soon_threadsafe(self._opened.set)

    def wait_reached(self) -> None:
        assert self._reached.wait(WAIT), "the mock never came to the gate"

    async def _pass(self, connection: "_Connection") -> None:
        self._reached.set()
        if await connection.closed_before(self._opened.wait()):
            raise _ClientGone


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """What one request meets. The default is the provider's regular answer."""

    status: int | None = None
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    hang: bool = False
    reset: str | None = None
    cut: bool = False
    after: int = 0
    split: int | None = None
    gzip: bool = False
    packed: tuple[str, ...] = ()
    content_type: str | None = None
    other_form: bool = False
    chunked: bool = False
    close: bool = False
    gate: Gate | None = None
    gate_after: int = 0
    trailers: tuple[tuple[str, str], ...] = ()

    def __or__(self, other: "Behaviour") -> "Behaviour":
        """Both at once: what `other` sets wins."""
        default = Behaviour()
        changes = {
            field.name: getattr(other, field.name)
            for field in dataclasses.fields(self)
            if getattr(other, field.name) != getattr(default, field.name)
        }
        return dataclasses.replace(self, **changes)


def ok(body: Any = None, headers: Iterable[tuple[str, str]] = ()) -> Behaviour:
    """The regular answer, with another body and more headers if given."""
    return Behaviour(body=_to_bytes(body), headers=tuple(headers))


def status(code: int, body: Any = None, headers: Iterable[tuple[str, str]] = ()) -> Behaviour:
    """An answer with this status. A body that is not bytes is sent as JSON."""
    body = {"error": {"message": f"mock status {code}", "type": "mock", "param": None, "code": None}} if body is None else body
    return Behaviour(status=code, body=_to_bytes(body), headers=tuple(headers))


def hang() -> Behaviour:
    """No answer until the client goes away."""
    return Behaviour(hang=True)


def reset(when: str, after: int = 0) -> Behaviour:
    """A TCP reset: `request` (nothing answered), `headers` (only headers), `stream` (after `after` frames of the body)."""
    assert when in ("request", "headers", "stream"), when
    return Behaviour(reset=when, after=after)


def cut(after: int = 0) -> Behaviour:
    """The connection ends in order, but too early: after `after` frames of a stream, in the middle of any other body."""
    return Behaviour(cut=True, after=after)


def split(size: int) -> Behaviour:
    """The body goes out in writes of `size` bytes."""
    return Behaviour(split=size)


def gzip() -> Behaviour:
    """The body is compressed."""
    return Behaviour(gzip=True)


def packed(*codings: str) -> Behaviour:
    """The body is compressed: `gzip`, `deflate` or `raw deflate`, one after the other, each flushed after each frame."""
    return Behaviour(packed=codings)


def typed(kind: str) -> Behaviour:
    """The answer is called something else; nothing at all when `kind` is empty."""
    return Behaviour(content_type=kind)


def other_form() -> Behaviour:
    """A whole answer where a stream is asked for, and a stream where none is."""
    return Behaviour(other_form=True)


def chunked() -> Behaviour:
    """A buffered answer without a content-length."""
    return Behaviour(chunked=True)


def closing() -> Behaviour:
    """The body ends with the connection: neither content-length nor chunks."""
    return Behaviour(close=True)


def trailers(*pairs: tuple[str, str]) -> Behaviour:
    """A chunked answer with trailers."""
    return Behaviour(chunked=True, trailers=pairs)


def gated(gate: Gate, after: int = 0) -> Behaviour:
    """Waits at the gate: before the headers, or once `after` frames of the body are out."""
    return Behaviour(gate=gate, gate_after=after)


def _to_bytes(body: Any) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    return json.dumps(body).encode()


# ------------------------------------------------------------------------------------------------------------------- server


class _ClientGone(Exception):
    """The peer closed the connection."""


class Recorded:
    """One request as it came."""

    def __init__(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.version = "HTTP/1.1"
        self.trailers: list[tuple[str, str]] = []
        self.method = method
        self.target = target
        self.path, _, query = target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        self.headers = headers
        self.body = body
        self.at = time.monotonic()
        """When it was read."""
        self.done = threading.Event()
        """Set when the answer is out completely."""
        self.gone = threading.Event()
        """Set when the client went away before the answer was complete."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first header of this name (lower case)."""
        return next((value for key, value in self.headers if key == name), None)

    def header_names(self) -> set[str]:
        return {key for key, _ in self.headers}

    def wait_gone(self) -> None:
        assert self.gone.wait(WAIT), "the client's connection to the provider stayed open"


@dataclasses.dataclass
class Answer:
    """A regular answer: one body, or the frames of a stream."""

    status: int
    body: bytes | list[bytes]
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """The provider's own error for a request."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Loop:
    """The one event loop all mocks live on, in a thread of its own."""

    _instance: asyncio.AbstractEventLoop | None = None

    @classmethod
    def get(cls) -> asyncio.AbstractEventLoop:
        if cls._instance is None:
            cls._instance = asyncio.new_event_loop()
            threading.Thread(target=cls._instance.run_forever, name="mock providers", daemon=True).start()
        return cls._instance

    @classmethod
    def run(cls, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, cls.get()).result(WAIT)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._peek: asyncio.Task | None = None
        self._ahead = b""

    async def take(self, count: int) -> bytes:
        head, self._ahead = self._ahead[:count], self._ahead[count:]
        if len(head) < count:
            head += await self.reader.readexactly(count - len(head))
        return head

    async def line(self) -> bytes:
        if b"\n" in self._ahead:
            line, _, self._ahead = self._ahead.partition(b"\n")
            return line + b"\n"
        head, self._ahead = self._ahead, b""
        rest = await self.reader.readline()
        if not rest and not head:
            raise _ClientGone
        return head + rest

    async def closed_before(self, event: Coroutine[Any, Any, Any]) -> bool:
        """Whether the client closes before this happens. Pipelined bytes are kept for the next request."""
        waiting = asyncio.ensure_future(event)
        try:
            while True:
                if self._peek is None:
                    self._peek = asyncio.ensure_future(self.reader.read(65536))
                finished, _ = await asyncio.wait({self._peek, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if self._peek not in finished:
                    return False
                task, self._peek = self._peek, None
                try:
                    data = task.result()
                except OSError:
                    return True
                if not data:
                    return True
                self._ahead += data
        finally:
            waiting.cancel()

    async def settle(self) -> None:
        """Ends a pending look for a close, so that the next request can be read."""
        if self._peek is not None:
            task, self._peek = self._peek, None
            task.cancel()
            try:
                self._ahead += await task
            except (asyncio.CancelledError, OSError):
                pass

    async def write(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise _ClientGone
        self.writer.write(data)
        await self.writer.drain()

    def is_open(self) -> bool:
        """Whether the peer has neither closed nor reset the connection, as far as the kernel knows now."""
        try:
            state = self.writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return False
        return state == TCP_ESTABLISHED

    def abort(self) -> None:
        """Closes with a TCP reset instead of an orderly end."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Mock:
    """A provider. Subclasses say what it answers."""

    wire = ""
    default_key = ""

    def __init__(self, name: str | None = None, key: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.name = name or self.wire
        self.key = key or self.default_key
        self.text = self.own_text
        """What the model says."""
        self.default = ok()
        self.delay: tuple[float, float] | None = None
        """Least and most seconds of thinking before each answer."""
        self.usage: Callable[[dict], dict] | None = None
        """The `usage` of the answer to a body, in the provider's own members; the regular one when it is not set."""
        self._flying: set[_Connection] = set()
        self.peak = 0
        """The most requests at one time."""
        self._script: deque[Behaviour] = deque()
        self._requests: list[Recorded] = []
        self._changed = threading.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = _Loop.run(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, ssl=tls))
        self.port: int = self._server.sockets[0].getsockname()[1]

    # -- what a test says and asks

    @property
    def own_text(self) -> str:
        """What the model says when a test wants nothing else. Characters of 1 to 4 bytes."""
        return f"Hello from {self.name} \u2013 gr\u00fc\u00dfe \U0001f44b"

    @property
    def origin(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def script(self, *behaviours: Behaviour) -> "Mock":
        """Behaviours of the next requests, one each."""
        with self._changed:
            self._script.extend(behaviours)
        return self

    def clear(self) -> "Mock":
        """Forgets requests, script, text and default behaviour."""
        with self._changed:
            self._script.clear()
            self._requests = []
            self.default = ok()
            self.text = self.own_text
            self.delay = self.usage = None
            self.peak = self.in_flight
        return self

    @property
    def in_flight(self) -> int:
        """Requests whose answer is not out and whose client is there: the kernel knows of a closed connection before its reader does."""
        return sum(connection.is_open() for connection in list(self._flying))

    @property
    def requests(self) -> list[Recorded]:
        with self._changed:
            return list(self._requests)

    @property
    def last(self) -> Recorded:
        assert self.requests, f"{self.name} got no request"
        return self.requests[-1]

    def wait_requests(self, count: int) -> list[Recorded]:
        """The requests, once there are at least `count`."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self._requests) >= count, WAIT)
            assert there, f"{self.name} got {len(self._requests)} of {count} requests"
            return list(self._requests)

    def stop(self) -> None:
        """Closes the port and every connection: from now on connections are refused."""

        async def close() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()

        _Loop.run(close())

    def error(self, kind: str, headers: Iterable[tuple[str, str]] = ()) -> Behaviour:
        """The provider's own error: bad_request, context_window, content_policy, auth, permission, not_found, rate_limit,
        server, unavailable."""
        code, body = self.error_answer(kind)
        return status(code, body, headers)

    # -- what a subclass says

    def answer(self, request: Recorded) -> Answer:
        raise NotImplementedError

    def error_answer(self, kind: str) -> tuple[int, dict]:
        raise NotImplementedError

    def refusal(self, code: int, message: str) -> dict:
        raise NotImplementedError

    # -- the server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writers.add(writer)
        chosen = writer.get_extra_info("ssl_object")
        if chosen is not None and chosen.selected_alpn_protocol() == "h2":
            try:
                await Http2(self, reader, writer).serve()
            finally:
                self._writers.discard(writer)
                writer.close()
            return
        connection = _Connection(reader, writer)
        try:
            while await self._one(connection):
                await connection.settle()
        except (_ClientGone, asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, connection: _Connection) -> bool:
        """One request and its answer. False when the connection ends with it."""
        request = await self._read(connection)
        behaviour = self._record(request)
        self._flying.add(connection)
        self.peak = max(self.peak, self.in_flight)
        try:
            if self.delay and await connection.closed_before(asyncio.sleep(random.uniform(*self.delay))):
                raise _ClientGone
            keep = await self._answer(connection, request, behaviour)
        except (_ClientGone, OSError):
            request.gone.set()
            return False
        finally:
            self._flying.discard(connection)
        request.done.set()
        return keep and (request.header("connection") or "").lower() != "close"

    def _record(self, request: Recorded) -> Behaviour:
        """Keeps the request and says what it meets."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            return self._script.popleft() if self._script else self.default

    async def _read(self, connection: _Connection) -> Recorded:
        first = (await connection.line()).decode("latin-1").split()
        if len(first) != 3:
            raise _ClientGone
        headers: list[tuple[str, str]] = []
        while line := (await connection.line()).strip(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name.lower(), value.strip()))
        found = dict(headers)
        if found.get("expect", "").lower() == "100-continue":
            await connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        trailers: list[tuple[str, str]] = []
        if "chunked" in found.get("transfer-encoding", "").lower():
            body = b""
            while size := int((await connection.line()).split(b";")[0], 16):
                body += await connection.take(size)
                await connection.line()
            while line := (await connection.line()).strip(b"\r\n"):
                name, _, value = line.decode("latin-1").partition(":")
                trailers.append((name.lower(), value.strip()))
        else:
            body = await connection.take(int(found.get("content-length", 0)))
        request = Recorded(first[0], first[1], headers, body)
        request.trailers = trailers
        return request

    async def _answer(self, connection: _Connection, request: Recorded, behaviour: Behaviour) -> bool:
        if behaviour.hang:
            await connection.closed_before(asyncio.Event().wait())
            raise _ClientGone
        if behaviour.reset == "request":
            connection.abort()
            return False
        if behaviour.gate and not behaviour.gate_after:
            await behaviour.gate._pass(connection)
        answer = self._regular(request, behaviour)
        return await self._write(connection, answer, behaviour)

    def _regular(self, request: Recorded, behaviour: Behaviour) -> Answer:
        if behaviour.status is not None:
            return Answer(behaviour.status, behaviour.body or b"")
        if behaviour.body is not None:
            return Answer(200, behaviour.body)
        try:
            return self.answer(_asking_otherwise(request) if behaviour.other_form else request)
        except Refused as refused:
            code, message = refused.code, refused.message
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as wrong:
            # The checks read the request as if it had the right shape; one that has not is the client's fault.
            code, message = 400, f"Invalid request: {wrong!r}"
        return Answer(code, json.dumps(self.refusal(code, message)).encode())

    async def _write(self, connection: _Connection, answer: Answer, behaviour: Behaviour) -> bool:
        streamed = isinstance(answer.body, list)
        frames: list[bytes] = answer.body if streamed else [answer.body]
        headers = [*answer.headers, *behaviour.headers]
        kind = answer.content_type if behaviour.content_type is None else behaviour.content_type
        if kind and "content-type" not in dict(headers):
            headers.insert(0, ("content-type", kind))
        if behaviour.packed:
            headers.append(("content-encoding", ", ".join(coding.removeprefix("raw ") for coding in behaviour.packed)))
            for coding in behaviour.packed:
                frames = _packed_frames(frames, coding)
        if behaviour.gzip:
            headers.append(("content-encoding", "gzip"))
            frames = _packed_frames(frames, "gzip")
        in_chunks = (streamed or behaviour.chunked) and not behaviour.close
        if in_chunks:
            headers.append(("transfer-encoding", "chunked"))
        elif behaviour.close:
            headers.append(("connection", "close"))
        else:
            headers.append(("content-length", str(sum(map(len, frames)))))
        head = f"HTTP/1.1 {answer.status} Mock\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
        await connection.write(head.encode("utf-8", "surrogateescape") + b"\r\n")
        if behaviour.reset == "headers":
            connection.abort()
            return False
        if behaviour.cut and not streamed:
            await connection.write(frames[0][: len(frames[0]) // 2])
            return False
        sent = 0
        for frame in frames:
            if behaviour.cut and sent == behaviour.after:
                return False
            if behaviour.reset == "stream" and sent == behaviour.after:
                # Everything so far must have left before the reset takes it away.
                await asyncio.sleep(0.05)
                connection.abort()
                return False
            if behaviour.gate and behaviour.gate_after and sent == behaviour.gate_after:
                await behaviour.gate._pass(connection)
            for piece in _pieces(frame, behaviour.split):
                await connection.write(b"%x\r\n%s\r\n" % (len(piece), piece) if in_chunks else piece)
                if behaviour.split:
                    await asyncio.sleep(0)
            sent += 1
        if in_chunks:
            tail = "".join(f"{name}: {value}\r\n" for name, value in behaviour.trailers)
            await connection.write(b"0\r\n" + tail.encode() + b"\r\n")
        return not behaviour.close


def _pieces(frame: bytes, size: int | None) -> Iterable[bytes]:
    if not frame:
        return []
    if size is None:
        return [frame]
    return [frame[start : start + size] for start in range(0, len(frame), size)]


def _packed_frames(frames: list[bytes], coding: str) -> list[bytes]:
    """One compressed stream, flushed after each frame: every one can be decoded as soon as it arrives."""
    packer = zlib.compressobj(wbits={"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS, "raw deflate": -zlib.MAX_WBITS}[coding])
    packed = [packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH) for frame in frames]
    return [*packed, packer.flush()]


def _asking_otherwise(request: Recorded) -> Recorded:
    """The request as one that asks for the other form of the same answer."""
    body = json.loads(request.body)
    body["stream"] = not body.get("stream", False)
    body.pop("stream_options", None)
    return Recorded(request.method, request.target, request.headers, json.dumps(body).encode())


class RefusedPort:
    """A port nobody listens on, held so that nobody can take it: connections are refused."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._socket.close()
