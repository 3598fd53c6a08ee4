"""Scripted model providers on raw sockets: OpenAI, Azure OpenAI and Anthropic, with exact control of what goes over the wire.

One instance is one provider on its own port of 127.0.0.1. Each request takes the next behaviour of the mock's script, or the default
one when the script is used up, and is recorded. The mocks refuse what the real APIs refuse, so a wrong translation fails the test
that made it.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import socket
import struct
import threading
import time
import urllib.parse
import zlib
from collections import deque
from typing import Any, Coroutine, Iterable

WAIT = 30.0
"""Seconds after which waiting for a condition is a failure. Nothing sleeps this long when things work."""

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
    after: int = 0
    split: int | None = None
    gzip: bool = False
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


def split(size: int) -> Behaviour:
    """The body goes out in writes of `size` bytes."""
    return Behaviour(split=size)


def gzip() -> Behaviour:
    """The body is compressed."""
    return Behaviour(gzip=True)


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
        self.method = method
        self.target = target
        self.path, _, query = target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        self.headers = headers
        self.body = body
        self.at = time.monotonic()
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

    def abort(self) -> None:
        """Closes with a TCP reset instead of an orderly end."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Mock:
    """A provider. Subclasses say what it answers."""

    wire = ""
    default_key = ""

    def __init__(self, name: str | None = None, key: str | None = None) -> None:
        self.name = name or self.wire
        self.key = key or self.default_key
        self.text = self.own_text
        """What the model says."""
        self.default = ok()
        self._script: deque[Behaviour] = deque()
        self._requests: list[Recorded] = []
        self._changed = threading.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self._server = _Loop.run(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20))
        self.port: int = self._server.sockets[0].getsockname()[1]

    # -- what a test says and asks

    @property
    def own_text(self) -> str:
        """What the model says when a test wants nothing else. Characters of 1 to 4 bytes."""
        return f"Hello from {self.name} \u2013 gr\u00fc\u00dfe \U0001f44b"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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
        return self

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
        connection = _Connection(reader, writer)
        self._writers.add(writer)
        self.connections += 1
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
        with self._changed:
            behaviour = self._script.popleft() if self._script else self.default
            self._requests.append(request)
            self._changed.notify_all()
        try:
            keep = await self._answer(connection, request, behaviour)
        except (_ClientGone, OSError):
            request.gone.set()
            return False
        request.done.set()
        return keep and (request.header("connection") or "").lower() != "close"

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
        if "chunked" in found.get("transfer-encoding", "").lower():
            body = b""
            while size := int((await connection.line()).split(b";")[0], 16):
                body += await connection.take(size)
                await connection.line()
            while (await connection.line()).strip(b"\r\n"):
                pass
        else:
            body = await connection.take(int(found.get("content-length", 0)))
        return Recorded(first[0], first[1], headers, body)

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
            return self.answer(request)
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
        if "content-type" not in dict(headers):
            headers.insert(0, ("content-type", answer.content_type))
        if behaviour.gzip:
            headers.append(("content-encoding", "gzip"))
            frames = _gzip_frames(frames)
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
        sent = 0
        for frame in frames:
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


def _gzip_frames(frames: list[bytes]) -> list[bytes]:
    """One gzip stream, flushed after each frame: every one can be decoded as soon as it arrives."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    packed = [packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH) for frame in frames]
    return [*packed, packer.flush()]


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


# ------------------------------------------------------------------------------------------------------- what the model says


def arguments_for(schema: dict | None) -> dict:
    """A value for every property of an object schema."""
    values = {"string": "Oslo", "integer": 3, "number": 1.5, "boolean": True, "array": [], "object": {}}
    properties = (schema or {}).get("properties", {})
    return {name: values.get(inner.get("type", "string"), "Oslo") for name, inner in properties.items()}


def _cut(text: str, count: int) -> list[str]:
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _need(condition: Any, message: str, code: int = 400) -> None:
    if not condition:
        raise Refused(code, message)


def _parse_object(request: Recorded) -> dict:
    try:
        body = json.loads(request.body)
    except ValueError:
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    _need(isinstance(body, dict), "We expected a JSON object.")
    return body


PROMPT_TOKENS, COMPLETION_TOKENS = 11, 7
"""The usage every mock reports."""

GATEWAY_ONLY = {
    "num_retries", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "disable_fallbacks", "timeout",
    "request_timeout", "stream_timeout", "litellm_metadata", "mock_response", "mock_timeout", "mock_testing_fallbacks",
    "mock_testing_context_fallbacks", "mock_testing_content_policy_fallbacks", "drop_params", "additional_drop_params",
    "allowed_openai_params", "tags", "cache", "api_key", "api_base", "base_url", "extra_body", "extra_headers",
    "model_info", "priority", "rpm", "tpm", "weight", "cooldown_time", "input_cost_per_token", "output_cost_per_token",
}  # fmt: skip
"""Parameters that speak to the gateway and that no provider knows."""


class OpenAiMock(Mock):
    """api.openai.com with its paths under `/v1`."""

    wire = "openai"
    default_key = "sk-openai-mock-key-5e0c"

    USAGE = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }

    @property
    def base(self) -> str:
        """`api_base` of a deployment."""
        return f"{self.origin}/v1"

    def params(self, model: str = "gpt-4o-mini") -> dict:
        """`litellm_params` of a deployment at this mock."""
        return {"model": f"openai/{model}", "api_base": self.base, "api_key": self.key}

    def route(self, request: Recorded) -> str:
        _need(request.path.startswith("/v1/"), f"Invalid URL ({request.method} {request.path})", 404)
        return request.path.removeprefix("/v1")

    def authorize(self, request: Recorded) -> None:
        given = [value for name, value in request.headers if name == "authorization"]
        _need(given == [f"Bearer {self.key}"], "Incorrect API key provided.", 401)

    def answer(self, request: Recorded) -> Answer:
        route = self.route(request)
        self.authorize(request)
        if route == "/models" and request.method == "GET":
            return _json({"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model", "owned_by": "mock"}]})
        _need(request.method == "POST", f"Not allowed to {request.method} on {request.path}.", 405)
        _need(
            (request.header("content-type") or "").startswith("application/json"), "Content-Type must be application/json.", 415
        )
        body = _parse_object(request)
        extra = GATEWAY_ONLY & body.keys()
        _need(not extra, f"Unrecognized request argument supplied: {', '.join(sorted(extra))}")
        answers = {"/chat/completions": self.chat, "/completions": self.completions, "/embeddings": self.embeddings}
        _need(route in answers, f"Invalid URL (POST {request.path})", 404)
        return answers[route](body)

    def model(self, body: dict) -> str:
        _need(isinstance(body.get("model"), str) and body["model"], "you must provide a model parameter")
        return body["model"]

    # -- chat

    def chat(self, body: dict) -> Answer:
        model = self.model(body)
        check_chat(body)
        message, finish = self.say(body)
        head = {"id": "chatcmpl-mock1", "created": 1754000000, "model": model, "system_fingerprint": "fp_mock"}
        if body.get("stream"):
            usage = (body.get("stream_options") or {}).get("include_usage")
            return _sse(self.chat_chunks(head | {"object": "chat.completion.chunk"}, message, finish, usage))
        _need("stream_options" not in body, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return _json(head | {"object": "chat.completion", "choices": [choice], "usage": self.USAGE})

    def say(self, body: dict) -> tuple[dict, str]:
        tools = body.get("tools") or []
        if tools and body.get("tool_choice") != "none" and body["messages"][-1]["role"] != "tool":
            chosen = tools if body.get("parallel_tool_calls", True) else tools[:1]
            if isinstance(body.get("tool_choice"), dict):
                chosen = [tool for tool in tools if tool["function"]["name"] == body["tool_choice"]["function"]["name"]]
            calls = [
                {
                    "id": f"call_mock{index}",
                    "type": "function",
                    "function": {
                        "name": tool["function"]["name"],
                        "arguments": json.dumps(arguments_for(tool["function"].get("parameters"))),
                    },
                }
                for index, tool in enumerate(chosen)
            ]
            return {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None}, "tool_calls"
        text = self.text
        kind = (body.get("response_format") or {}).get("type")
        if kind == "json_schema":
            text = json.dumps(arguments_for(body["response_format"]["json_schema"]["schema"]))
        elif kind == "json_object":
            text = json.dumps({"answer": self.name})
        return {"role": "assistant", "content": text, "refusal": None}, "stop"

    def chat_chunks(self, head: dict, message: dict, finish: str, usage: Any) -> list[dict]:
        def chunk(delta: dict, finish_reason: str | None = None) -> dict:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return head | {"choices": [choice]} | ({"usage": None} if usage else {})

        chunks = [chunk({"role": "assistant", "content": None if message.get("tool_calls") else "", "refusal": None})]
        for index, call in enumerate(message.get("tool_calls", [])):
            function = {"name": call["function"]["name"], "arguments": ""}
            chunks.append(chunk({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}))
            for piece in _cut(call["function"]["arguments"], 3):
                chunks.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        if message.get("content"):
            chunks += [chunk({"content": piece}) for piece in _cut(message["content"], 5)]
        chunks.append(chunk({}, finish))
        if usage:
            chunks.append(head | {"choices": [], "usage": self.USAGE})
        return chunks

    # -- the others

    def completions(self, body: dict) -> Answer:
        model = self.model(body)
        _need("messages" not in body, "Unrecognized request argument supplied: messages")
        _need(isinstance(body.get("prompt"), (str, list)), "you must provide a prompt")
        head = {"id": "cmpl-mock1", "object": "text_completion", "created": 1754000000, "model": model}

        def choice(text: str, finish: str | None) -> dict:
            return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}

        if body.get("stream"):
            chunks = [head | {"choices": [choice(piece, None)]} for piece in _cut(self.text, 4)]
            chunks.append(head | {"choices": [choice("", "stop")]})
            if (body.get("stream_options") or {}).get("include_usage"):
                chunks.append(head | {"choices": [], "usage": self.USAGE})
            return _sse(chunks)
        return _json(head | {"choices": [choice(self.text, "stop")], "usage": self.USAGE})

    def embeddings(self, body: dict) -> Answer:
        model = self.model(body)
        given = body.get("input")
        _need(isinstance(given, str) or (isinstance(given, list) and given), "'$.input' is invalid.")
        many = len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1
        encoding = body.get("encoding_format", "float")
        _need(encoding in ("float", "base64"), f"Invalid encoding_format: {encoding}")
        vector = [0.25, -0.5, 0.125][: body.get("dimensions", 3)]
        value = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector
        data = [{"object": "embedding", "index": index, "embedding": value} for index in range(many)]
        usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
        return _json({"object": "list", "data": data, "model": model, "usage": usage})

    # -- errors

    def refusal(self, code: int, message: str) -> dict:
        kind = "invalid_request_error" if code < 429 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": "invalid_api_key" if code == 401 else None}}

    def error_answer(self, kind: str) -> tuple[int, dict]:
        rows = {
            "bad_request": (400, "Invalid value for 'temperature'.", "invalid_request_error", None),
            "context_window": (
                400,
                "This model's maximum context length is 4097 tokens. However, your messages resulted in 5000 tokens.",
                "invalid_request_error",
                "context_length_exceeded",
            ),
            "content_policy": (
                400,
                "Your request was rejected as a result of the safety system.",
                "invalid_request_error",
                "content_policy_violation",
            ),
            "auth": (401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
            "permission": (403, "You are not allowed to sample from this model.", "invalid_request_error", None),
            "not_found": (404, "The model `gone` does not exist.", "invalid_request_error", "model_not_found"),
            "rate_limit": (429, "Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
            "server": (500, "The server had an error while processing your request.", "server_error", None),
            "unavailable": (503, "That model is currently overloaded.", "server_error", None),
        }
        code, message, type_, name = rows[kind]
        return code, {"error": {"message": message, "type": type_, "param": None, "code": name}}


class AzureMock(OpenAiMock):
    """An Azure OpenAI resource: deployments in the path, `api-version` in the query, `api-key` in a header."""

    wire = "azure"
    default_key = "azure-mock-key-91bd"

    FILTER = {"hate": {"filtered": False, "severity": "safe"}}

    @property
    def base(self) -> str:
        return self.origin

    def params(self, model: str = "my-deployment") -> dict:
        return {"model": f"azure/{model}", "api_base": self.base, "api_key": self.key, "api_version": "2024-10-21"}

    def route(self, request: Recorded) -> str:
        parts = request.path.split("/", 4)
        _need(parts[:3] == ["", "openai", "deployments"] and len(parts) == 5 and parts[3], "Resource not found", 404)
        _need(request.query.get("api-version"), "Resource not found (api-version is missing)", 404)
        return "/" + parts[4]

    def authorize(self, request: Recorded) -> None:
        keys = [value for name, value in request.headers if name == "api-key"]
        tokens = [value for name, value in request.headers if name == "authorization"]
        good = (keys == [self.key] and not tokens) or (not keys and tokens == [f"Bearer {self.key}"])
        _need(good, "Access denied due to invalid subscription key or wrong API endpoint.", 401)

    def model(self, body: dict) -> str:
        return "gpt-4o-mini-2024-07-18"

    def chat_chunks(self, head: dict, message: dict, finish: str, usage: Any) -> list[dict]:
        first = {
            "id": "",
            "object": "",
            "created": 0,
            "model": "",
            "choices": [],
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": self.FILTER}],
        }
        return [first, *super().chat_chunks(head, message, finish, usage)]

    def error_answer(self, kind: str) -> tuple[int, dict]:
        if kind == "content_policy":
            return 400, {
                "error": {
                    "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
                    "type": None,
                    "param": "prompt",
                    "code": "content_filter",
                    "status": 400,
                    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": self.FILTER},
                }
            }
        if kind == "auth":
            return 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}
        if kind == "not_found":
            return 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}}
        return super().error_answer(kind)


def check_chat(body: dict) -> None:
    """Refuses a chat request that OpenAI would refuse."""
    foreign = {"system", "stop_sequences", "max_tokens_to_sample", "thinking", "top_k"} & body.keys()
    _need(not foreign, f"Unrecognized request argument supplied: {', '.join(sorted(foreign))}")
    messages = body.get("messages")
    _need(isinstance(messages, list) and messages, "Invalid 'messages': empty array.")
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role")
        _need(role in ("system", "developer", "user", "assistant", "tool", "function"), f"Invalid value for {where}.role: {role}")
        if role == "tool":
            _need(
                message.get("tool_call_id") in open_calls, f"{where}: 'tool' must answer a preceding message with 'tool_calls'."
            )
            open_calls.discard(message["tool_call_id"])
        else:
            _need(not open_calls, f"{where}: tool_call_ids without an answer: {sorted(open_calls)}")
        for call in message.get("tool_calls") or []:
            _need(role == "assistant" and call.get("type") == "function", f"{where}: bad tool call")
            _need(isinstance(call["function"].get("arguments"), str), f"{where}: arguments must be a string")
            json.loads(call["function"]["arguments"])
            open_calls.add(call["id"])
        content = message.get("content")
        _need(content is not None or role == "assistant", f"Invalid value for {where}.content: expected a string, got null.")
        for part in content if isinstance(content, list) else []:
            _need(
                part.get("type") in ("text", "image_url", "input_audio", "file", "refusal"), f"{where}: part {part.get('type')}"
            )
            if part["type"] == "image_url":
                _need(
                    isinstance(part["image_url"], dict) and part["image_url"].get("url"), f"{where}: image_url must be an object"
                )
    for tool in body.get("tools") or []:
        _need(tool.get("type") == "function" and tool.get("function", {}).get("name"), "Invalid tool.")
        _need("input_schema" not in tool, "Unknown parameter: tools[0].input_schema")
    choice = body.get("tool_choice")
    if choice is not None:
        named = isinstance(choice, dict) and choice.get("type") == "function" and choice.get("function", {}).get("name")
        _need(named or choice in ("none", "auto", "required"), f"Invalid tool_choice: {choice}")
        _need(body.get("tools"), "'tool_choice' is only allowed when 'tools' are specified.")


def _json(value: dict) -> Answer:
    return Answer(200, json.dumps(value, ensure_ascii=False).encode(), headers=(("x-request-id", "req-mock-1"),))


def _sse(chunks: list[dict]) -> Answer:
    frames = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks]
    return Answer(200, [*frames, b"data: [DONE]\n\n"], "text/event-stream; charset=utf-8", (("x-request-id", "req-mock-1"),))


class AnthropicMock(Mock):
    """api.anthropic.com, as strict about the shape of a request as the real one."""

    wire = "anthropic"
    default_key = "sk-ant-mock-key-77fa"
    bearer = False
    """Takes the key as a bearer token too, as recent SDKs send it. A gateway has to send `x-api-key`."""

    VERSIONS = ("2023-06-01", "2026-10-21")
    KNOWN = {
        "model", "messages", "max_tokens", "system", "metadata", "stop_sequences", "stream", "temperature", "top_p", "top_k",
        "tools", "tool_choice", "thinking", "service_tier", "container", "mcp_servers", "context_management", "output_format",
        "output_config",
    }  # fmt: skip

    @property
    def base(self) -> str:
        return self.origin

    def params(self, model: str = "claude-haiku-4-5-20251001") -> dict:
        return {"model": f"anthropic/{model}", "api_base": self.base, "api_key": self.key}

    def answer(self, request: Recorded) -> Answer:
        _need(request.path == "/v1/messages", "Not found", 404)
        _need(request.method == "POST", "Method Not Allowed", 405)
        keys = [value for name, value in request.headers if name == "x-api-key"]
        tokens = [value for name, value in request.headers if name == "authorization"]
        good = (keys == [self.key] and not tokens) or (self.bearer and not keys and tokens == [f"Bearer {self.key}"])
        _need(good, "invalid x-api-key", 401)
        _need(request.header("anthropic-version") in self.VERSIONS, "anthropic-version: header is required")
        body = _parse_object(request)
        check_messages(body, self.KNOWN)
        blocks, stop = self.say(body)
        message = {
            "id": "msg_mock1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": blocks,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {
                "input_tokens": PROMPT_TOKENS,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": COMPLETION_TOKENS,
            },
        }
        headers = (("request-id", "req_mock_1"), ("anthropic-ratelimit-requests-remaining", "49"))
        if body.get("stream"):
            frames = [
                f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in self.events(message)
            ]
            return Answer(200, [frame.encode() for frame in frames], "text/event-stream; charset=utf-8", headers)
        return Answer(200, json.dumps(message, ensure_ascii=False).encode(), headers=headers)

    def say(self, body: dict) -> tuple[list[dict], str]:
        blocks: list[dict] = []
        if (body.get("thinking") or {}).get("type") == "enabled":
            blocks.append({"type": "thinking", "thinking": "The user greets me.", "signature": "c2lnbmF0dXJl"})
        choice = body.get("tool_choice") or {"type": "auto"}
        last = body["messages"][-1]["content"]
        answered = isinstance(last, list) and any(block["type"] == "tool_result" for block in last)
        tools = [tool for tool in body.get("tools") or [] if "input_schema" in tool]
        if tools and choice["type"] != "none" and (choice["type"] == "tool" or not answered):
            if choice["type"] == "tool":
                tools = [tool for tool in tools if tool["name"] == choice["name"]]
            elif choice.get("disable_parallel_tool_use"):
                tools = tools[:1]
            if choice["type"] == "auto":
                blocks.append({"type": "text", "text": "Let me look."})
            for index, tool in enumerate(tools):
                value = arguments_for(tool["input_schema"])
                blocks.append({"type": "tool_use", "id": f"toolu_mock{index}", "name": tool["name"], "input": value})
            return blocks, "tool_use"
        schema = (body.get("output_format") or (body.get("output_config") or {}).get("format") or {}).get("schema")
        blocks.append({"type": "text", "text": json.dumps(arguments_for(schema)) if schema else self.text})
        return blocks, "end_turn"

    def events(self, message: dict) -> list[dict]:
        start = message | {"content": [], "stop_reason": None, "usage": message["usage"] | {"output_tokens": 1}}
        events: list[dict] = [{"type": "message_start", "message": start}]
        for index, block in enumerate(message["content"]):
            deltas = self.deltas(block)
            empty = {
                "text": {"type": "text", "text": ""},
                "thinking": {"type": "thinking", "thinking": "", "signature": ""},
                "tool_use": block | {"input": {}},
            }[block["type"]]
            events.append({"type": "content_block_start", "index": index, "content_block": empty})
            if index == 0:
                events.append({"type": "ping"})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": COMPLETION_TOKENS}})
        events.append({"type": "message_stop"})
        return events

    @staticmethod
    def deltas(block: dict) -> list[dict]:
        if block["type"] == "text":
            return [{"type": "text_delta", "text": piece} for piece in _cut(block["text"], 5)]
        if block["type"] == "thinking":
            thinking = [{"type": "thinking_delta", "thinking": piece} for piece in _cut(block["thinking"], 2)]
            return [*thinking, {"type": "signature_delta", "signature": block["signature"]}]
        pieces = ["", *_cut(json.dumps(block["input"]), 3)]
        return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]

    def refusal(self, code: int, message: str) -> dict:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
        return {"type": "error", "error": {"type": kinds.get(code, "invalid_request_error"), "message": message}}

    def error_answer(self, kind: str) -> tuple[int, dict]:
        rows = {
            "bad_request": (400, "invalid_request_error", "temperature: Input should be less than or equal to 1"),
            "context_window": (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            "content_policy": (400, "invalid_request_error", "Output blocked by content filtering policy"),
            "auth": (401, "authentication_error", "invalid x-api-key"),
            "permission": (403, "permission_error", "Your API key does not have permission to use the specified resource."),
            "not_found": (404, "not_found_error", "model: gone"),
            "rate_limit": (429, "rate_limit_error", "This request would exceed your organization's limit."),
            "server": (500, "api_error", "Internal server error"),
            "unavailable": (529, "overloaded_error", "Overloaded"),
        }
        code, type_, message = rows[kind]
        return code, {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_mock_1"}


def check_messages(body: dict, known: set[str]) -> None:
    """Refuses a messages request that Anthropic would refuse."""
    extra = body.keys() - known
    _need(not extra, f"{sorted(extra)[0] if extra else ''}: Extra inputs are not permitted")
    _need(isinstance(body.get("model"), str) and body["model"], "model: Field required")
    _need(isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 0, "max_tokens: Field required")
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        _need(thinking.get("budget_tokens", 0) >= 1024, "thinking.budget_tokens: Input should be greater than or equal to 1024")
        _need(body["max_tokens"] > thinking["budget_tokens"], "`max_tokens` must be greater than `thinking.budget_tokens`.")
        forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
        _need(not forced, "Thinking may not be enabled when tool_choice forces tool use.")
    _need(
        isinstance(body.get("temperature", 1), (int, float)) and 0 <= body.get("temperature", 1) <= 1, "temperature: range: 0..1"
    )
    system = body.get("system", "")
    _need(isinstance(system, (str, list)), "system: Input should be a valid string or list")
    for block in system if isinstance(system, list) else []:
        _need(block.get("type") == "text" and block.get("text"), "system: text content blocks must be non-empty")
    _check_turns(body.get("messages"))
    _check_tools(body)


def _check_turns(messages: Any) -> None:
    _need(isinstance(messages, list) and messages, "messages: at least one message is required")
    _need(messages[0].get("role") == "user", 'messages: first message must use the "user" role')
    pending: set[str] = set()
    previous = None
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        role, content = message.get("role"), message.get("content")
        _need(role in ("user", "assistant"), f"{where}.role: Input should be 'user' or 'assistant', not {role}")
        _need(not message.keys() - {"role", "content"}, f"{where}: Extra inputs are not permitted: {sorted(message)}")
        # The API merges turns of one role itself; a translation that relies on it would be wrong for tool results.
        _need(role != previous, f"{where}: roles must alternate")
        previous = role
        _need(isinstance(content, (str, list)) and content, f"{where}: content must be non-empty")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        pending = _check_blocks(where, role, blocks, pending)
    _need(not pending, f"`tool_use` ids were found without `tool_result` blocks: {sorted(pending)}")
    last = messages[-1]
    if last["role"] == "assistant" and isinstance(last["content"], str):
        _need(last["content"] == last["content"].rstrip(), "final assistant content cannot end with trailing whitespace")


def _check_blocks(where: str, role: str, blocks: list[dict], pending: set[str]) -> set[str]:
    calls: set[str] = set()
    seen_other = False
    for block in blocks:
        kind = block.get("type")
        allowed = {
            "user": ("text", "image", "document", "tool_result"),
            "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
        }[role]
        _need(kind in allowed, f"{where}: block type '{kind}' is not allowed for {role}")
        if kind == "text":
            _need(block.get("text"), f"{where}: text content blocks must be non-empty")
        if kind == "tool_use":
            _need(isinstance(block.get("input"), dict), f"{where}: tool_use.input: Input should be a valid dictionary")
            _need(block.get("id") and block.get("name"), f"{where}: tool_use needs id and name")
            calls.add(block["id"])
        if kind == "tool_result":
            _need(not seen_other, f"{where}: tool_result blocks must come first")
            _need(block.get("tool_use_id") in pending, f"{where}: unexpected `tool_use_id` {block.get('tool_use_id')}")
            pending = pending - {block["tool_use_id"]}
        else:
            seen_other = True
        if kind in ("image", "document"):
            source = block.get("source", {})
            fields = {"base64": {"type", "media_type", "data"}, "url": {"type", "url"}, "text": {"type", "media_type", "data"}}
            _need(source.keys() == fields.get(source.get("type")), f"{where}: bad {kind} source {sorted(source)}")
    if role == "user":
        _need(not pending, f"{where}: `tool_use` ids were found without `tool_result` blocks: {sorted(pending)}")
    return calls


def _check_tools(body: dict) -> None:
    tools = body.get("tools") or []
    for tool in tools:
        _need(
            tool.get("type") != "function",
            "tools: Input tag 'function' found using 'type' does not match any of the expected tags",
        )
        if tool.get("type", "custom") == "custom":
            _need(tool.get("name") and "function" not in tool, "tools: name: Field required")
            _need(tool.get("input_schema", {}).get("type") == "object", "tools: input_schema.type: Field required")
    choice = body.get("tool_choice")
    if choice is not None:
        _need(tools, "tool_choice may only be specified while providing tools.")
        _need(isinstance(choice, dict) and choice.get("type") in ("auto", "any", "tool", "none"), "tool_choice: bad type")
        _need(choice["type"] != "tool" or choice.get("name") in {tool["name"] for tool in tools}, "tool_choice: no such tool")
    used = any(
        isinstance(message["content"], list) and any(block["type"] in ("tool_use", "tool_result") for block in message["content"])
        for message in body["messages"]
    )
    _need(tools or not used, "Requests which include `tool_use` or `tool_result` blocks must define tools")


MOCKS = {mock.wire: mock for mock in (OpenAiMock, AzureMock, AnthropicMock)}
"""The kinds of providers by name."""
