"""Requests that no honest client sends, and some that honest ones send oddly: a clear answer, and the next request is served."""

from __future__ import annotations

import json

import httpx
import pytest

from gateway import Gateway, chunks_of, deployment, text_of
from mock_provider import AnthropicMock, Gate, OpenAiMock, cut, gated, reset

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def still_serving(gateway):
    yield
    for model in ("openai", "azure", "anthropic"):
        assert gateway.chat(model).status_code == 200


BROKEN = {
    "empty": b"",
    "one byte": b"{",
    "cut off": b'{"model": "openai", "messages": [',
    "two values": b'{"model": "openai"} {"a": 1}',
    "not utf-8": b'{"model": "openai", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "bad escape": b'{"model": "open\\xai"}',
    "lone surrogate": b'{"model": "\\ud800", "messages": []}',
    "array": b"[]",
    "number": b"1",
    "text": b'"openai"',
    "null": b"null",
    "deep arrays": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "deep inside": b'{"model": "openai", "messages": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "model is a number": b'{"model": 1, "messages": []}',
    "model is an object": b'{"model": {}, "messages": []}',
    "model is null": b'{"model": null, "messages": []}',
    "model twice": b'{"model": "no-such-model", "messages": [], "model": "no-such-model"}',
    "no model": b'{"messages": []}',
    "messages is a number": b'{"model": "anthropic", "messages": 1}',
    "messages of numbers": b'{"model": "anthropic", "messages": [1, 2]}',
    "content is a number": b'{"model": "anthropic", "messages": [{"role": "user", "content": 1}]}',
    "stream is text": b'{"model": "no-such-model", "messages": [], "stream": "yes"}',
    "huge model name": b'{"model": "' + b"m" * 300_000 + b'", "messages": []}',
    "control characters": b'{"model": "a\\r\\nx-injected: 1", "messages": []}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/v1/completions"])
def test_broken_bodies_are_4xx(gateway, path, body):
    answer = gateway.client.post(path, content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text[:300]
    assert answer.headers["content-type"].startswith("application/json")
    shape = answer.json()
    assert shape["error"]["message"]
    if path == "/v1/messages":
        assert shape["type"] == "error"
    else:
        assert shape["error"]["code"] == str(answer.status_code)
    assert "x-injected" not in answer.headers


ODD_HEADERS = {
    "not utf-8": [b"x-odd: \xff\xfe\x80"],
    "key not utf-8": [b"authorization: Bearer \xff\xfe"],
    "call id not utf-8": [b"x-litellm-call-id: \xff"],
    "timeout not utf-8": [b"x-litellm-timeout: \xff"],
    "timeout not a number": [b"x-litellm-timeout: soon"],
    "timeout negative": [b"x-litellm-timeout: -1"],
    "timeout infinite": [b"x-litellm-timeout: 1e400"],
    "retries not a number": [b"x-litellm-num-retries: many"],
    "retries huge": [b"x-litellm-num-retries: 99999999999999999999"],
    "repeated key": [b"authorization: Bearer a", b"authorization: Bearer b"],
    "repeated content-type": [b"content-type: application/json", b"content-type: text/plain"],
    "empty values": [b"x-empty:", b"authorization:"],
    "long value": [b"x-long: " + b"a" * 60_000],
    "many": [b"x-many-%d: 1" % index for index in range(90)],
    "wrong content type": [b"content-type: text/plain"],
    "content type not utf-8": [b"content-type: \xff"],
    "accept-encoding": [b"accept-encoding: gzip, br, zstd"],
    "te": [b"te: trailers"],
    "upgrade": [b"connection: upgrade", b"upgrade: websocket"],
}


@pytest.mark.parametrize("headers", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_odd_headers_do_no_harm(gateway, raw, chat_bytes, headers):
    status, _, body = raw(gateway).post(chat_bytes(), *headers).answer()
    assert status == 200 or 400 <= status < 500, body
    if status != 200:
        assert json.loads(body)["error"]["message"]


HEADERS_OF_NOBODY = {
    "two lengths": [b"content-length: 5", b"content-length: 6"],
    "length and chunks": [b"content-length: 5", b"transfer-encoding: chunked"],
    "negative length": [b"content-length: -1"],
    "too many": [b"x-%d: 1" % index for index in range(400)],
    "too large": [b"x-large: " + b"a" * 500_000],
}


@pytest.mark.parametrize("headers", HEADERS_OF_NOBODY.values(), ids=HEADERS_OF_NOBODY)
def test_broken_http_is_refused(gateway, raw, headers):
    connection = raw(gateway)
    try:
        status, _, _ = connection.post(b"", *headers, length=False).answer()
    except OSError:
        return
    assert 400 <= status < 500


ODD_PATHS = [
    b"/%ff%fe",
    b"/v1/%00",
    b"//v1//chat/completions",
    b"/v1/../admin",
    b"/" + b"a" * 20_000,
    b"/engines//chat/completions",
    b"/engines/%2e%2e/chat/completions",
]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths_are_4xx(gateway, raw, path):
    status, _, _ = raw(gateway).post(b"{}", path=path).answer()
    assert 400 <= status < 500


def test_chunked_upload(gateway, providers, raw, chat_bytes):
    body = chat_bytes()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    connection = raw(gateway).post(b"", b"transfer-encoding: chunked", length=False).send(pieces)
    assert connection.answer()[0] == 200
    assert providers.openai.last.json["messages"] == HELLO


@pytest.mark.parametrize("wire", ["openai", "azure", "anthropic"])
def test_chunked_upload_with_trailers(gateway, providers, raw, chat_bytes, wire):
    body = chat_bytes(wire)
    pieces = b"%x\r\n%s\r\n0\r\nx-trailer: 1\r\n\r\n" % (len(body), body)
    connection = raw(gateway).post(b"", b"transfer-encoding: chunked", b"te: trailers", length=False).send(pieces)
    assert connection.answer()[0] == 200
    assert providers[wire].last.json["messages"]


@pytest.mark.parametrize("wire", ["openai", "azure", "anthropic"])
def test_http2_upload_in_frames_with_trailers(gateway, providers, http2, chat_bytes, wire):
    """No length, the end is told by trailers, the answer is streamed."""
    call = http2(gateway)
    body = chat_bytes(wire, stream=True)
    for start in range(0, len(body), 16):
        call.send(body[start : start + 16])
    call.send_trailers(("x-trailer", "1")).read_until(lambda call: call.over)
    assert call.headers[":status"] == "200"
    assert text_of(chunks_of(call.body)) == providers[wire].text


def test_trailers_and_a_retry(start, mocks, http2, chat_bytes):
    """The next attempt has the whole body too."""
    mock = mocks(OpenAiMock)
    mock.script(mock.error("server"), mock.error("unavailable"))
    models = [deployment("openai", mock.params(), id=str(number)) for number in range(3)]
    gateway = start({"model_list": models, "router_settings": {"num_retries": 2, "disable_cooldowns": True}})
    body = chat_bytes()
    call = http2(gateway).send(body[:10]).send(body[10:]).send_trailers(("x-trailer", "1")).read_until(lambda call: call.over)
    assert call.headers[":status"] == "200" and call.headers["x-litellm-attempted-retries"] == "2"
    assert [request.json["messages"] for request in mock.requests] == [HELLO] * 3


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_http2_streams_are_not_held_back_and_can_be_cancelled(gateway, providers, http2, chat_bytes, wire):
    gate = Gate()
    providers[wire].script(gated(gate, after=5))
    call = http2(gateway).send(chat_bytes(wire, stream=True), end=True)
    call.read_until(lambda call: b"Hell" in call.body)
    gate.wait_reached()
    call.reset()
    providers[wire].last.wait_gone()


@pytest.mark.parametrize("how", [reset("stream", after=5), cut(5)], ids=["reset", "cut short"])
def test_a_broken_stream_is_a_reset_over_http2(gateway, providers, http2, chat_bytes, how):
    providers.openai.script(how)
    call = http2(gateway).send(chat_bytes(stream=True), end=True)
    with pytest.raises(ConnectionResetError):
        call.read_until(lambda call: call.over)
    assert b"Hello" in call.body and b"[DONE]" not in call.body


def test_expect_continue(gateway, providers, raw, chat_bytes):
    body = chat_bytes()
    connection = raw(gateway).post(b"", b"expect: 100-continue", b"content-length: %d" % len(body), length=False)
    status, _, _ = _after_interim(connection, body)
    assert status == 200 and providers.openai.last.json["messages"] == HELLO


def _after_interim(connection, body: bytes):
    """Sends the body once the server asked for it, and reads the answer."""
    interim = b""
    while not interim.endswith(b"\r\n\r\n"):
        interim += connection.socket.recv(1)
    assert interim.startswith(b"HTTP/1.1 100 ")
    return connection.send(body).answer()


def test_expect_continue_still_retries(start, mocks, raw, chat_bytes):
    mock = mocks(OpenAiMock)
    mock.script(mock.error("server"))
    models = [deployment("openai", mock.params(), id="1"), deployment("openai", mock.params(), id="2")]
    gateway = start({"model_list": models, "router_settings": {"num_retries": 1, "disable_cooldowns": True}})
    body = chat_bytes()
    connection = raw(gateway).post(b"", b"expect: 100-continue", b"content-length: %d" % len(body), length=False)
    status, headers, _ = _after_interim(connection, body)
    assert status == 200 and headers["x-litellm-attempted-retries"] == "1"
    assert len(mock.requests) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("wire", ["openai", "azure", "anthropic"])
def test_http2_prior_knowledge(gateway, providers, wire, stream):
    body = {"model": wire, "messages": HELLO, "stream": stream}
    with httpx.Client(http1=False, http2=True, base_url=gateway.url, timeout=30, trust_env=False) as client:
        for _ in range(3):
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200 and answer.http_version == "HTTP/2"
            text = text_of(chunks_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]
            assert text == providers[wire].text


def test_pipelined_requests(gateway, raw, chat_bytes):
    connection = raw(gateway)
    for _ in range(3):
        connection.post(chat_bytes())
    assert [connection.answer()[0] for _ in range(3)] == [200, 200, 200]


def test_http_1_0(gateway, raw, chat_bytes):
    body = chat_bytes()
    head = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert raw(gateway).send(head + body).answer()[0] == 200


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.timeout(120)
def test_a_20_mb_body(gateway, providers, wire):
    content = "0123456789abcdef" * (20 * 1024 * 64) + "end"
    answer = gateway.chat(wire, content)
    assert answer.status_code == 200, answer.text[:300]
    got = providers[wire].last.json["messages"][0]["content"]
    assert (got if isinstance(got, str) else got[0]["text"]) == content


@pytest.mark.timeout(120)
@pytest.mark.parametrize("size", [None, 100 << 20], ids=["default", "100 MiB"])
def test_a_body_of_the_largest_size(start, mocks, size):
    """What just fits the limit (32 MiB unless set) passes; one byte more is refused."""
    openai = mocks(OpenAiMock)
    settings = {"tollgate_settings": {"request_body_buffer_limit_bytes": size}} if size else {}
    gateway = start({"model_list": [deployment("openai", openai.params())], **settings})
    frame = b'{"model": "openai", "messages": [{"role": "user", "content": "%s"}]}'
    room = (size or 32 << 20) - len(frame) + 2
    fits = frame % (b"x" * room)
    headers = {"content-type": "application/json"}
    answer = gateway.client.post("/v1/chat/completions", content=fits, headers=headers)
    assert answer.status_code == 200, answer.text[:300]
    assert len(openai.last.json["messages"][0]["content"]) == room
    openai.clear()
    answer = gateway.client.post("/v1/chat/completions", content=fits + b" ", headers=headers)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "413"
    assert not openai.requests


LIMITS = {
    # LiteLLM's own setting and its status; and what Envoy may buffer, which is Envoy's to refuse.
    400: {"general_settings": {"max_request_size_mb": 1}},
    413: {"tollgate_settings": {"request_body_buffer_limit_bytes": 1 << 20}},
}


@pytest.fixture(scope="module", params=LIMITS, ids=["max_request_size_mb", "buffer limit"])
def narrow(request, session_providers, tmp_path_factory):
    """A gateway that takes bodies of 1 MB at most, and the status it refuses larger ones with."""
    config = {"model_list": [deployment("openai", session_providers.openai.params())]} | LIMITS[request.param]
    gateway = Gateway(tmp_path_factory.mktemp("narrow"), config)
    yield gateway, request.param
    gateway.stop()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_bodies_over_the_limit(narrow, providers, path, chunked):
    narrow, status = narrow
    body = json.dumps({"model": "openai", "max_tokens": 5, "messages": [{"role": "user", "content": "x" * (2 << 20)}]}).encode()
    content = (body[start : start + 65536] for start in range(0, len(body), 65536)) if chunked else body
    answer = narrow.client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    shape = answer.json()
    assert shape["error"]["message"]
    assert shape.get("type") == "error" if path == "/v1/messages" else shape["error"]["code"] == str(status)
    assert not providers.openai.requests
    assert narrow.chat("openai", "x" * 500_000).status_code == 200


def test_an_answer_may_be_larger_than_any_request(start, mocks):
    """What is held of an answer, to translate it, depends neither on what is accepted of a request nor on what is read at once."""
    anthropic = mocks(AnthropicMock)
    anthropic.text = "0123456789abcdef" * (20 << 16)
    config = {
        "model_list": [
            deployment("plain", anthropic.params()),
            deployment("timed", anthropic.params() | {"timeout": 60}),
        ],
        "tollgate_settings": {"request_body_buffer_limit_bytes": 1 << 20},
    }
    gateway = start(config)
    for model in ("plain", "timed"):
        answer = gateway.chat(model)
        assert answer.status_code == 200, answer.text[:300]
        assert answer.json()["choices"][0]["message"]["content"] == anthropic.text


def test_a_client_that_never_finishes_its_body(gateway, providers, raw):
    connection = raw(gateway).post(b"", b"content-length: 100", length=False).send(b'{"model": "open')
    connection.close()
    assert not providers.openai.requests
