"""Answers that are not called what they are, are not what was asked for, or are packed although nobody asked for that."""

from __future__ import annotations

import json
import zlib

import pytest

from gateway import Gateway, chunks_of, deployment, events_of, text_of
from mock_provider import (
    AnthropicMock, Gate, OllamaMock, OpenAiMock, chunked, gated, gzip, ok, other_form, packed, split, status, typed,
)

KINDS = ("text/plain", "application/octet-stream", "application/x-ndjson", "application/json", "")
WIRES = {"openai": OpenAiMock, "anthropic": AnthropicMock, "ollama": OllamaMock}
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
TOOL = {"name": "weather", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    mocks = {name: kind() for name, kind in WIRES.items()} | {"good": OpenAiMock(name="good")}
    models = [deployment(name, mock.params()) for name, mock in mocks.items()]
    router = {"num_retries": 0, "disable_cooldowns": True, "fallbacks": [{name: ["good"]} for name in WIRES]}
    gateway = Gateway(tmp_path_factory.mktemp("bodies"), {"model_list": models, "router_settings": router})
    yield gateway, mocks
    gateway.stop()
    for mock in mocks.values():
        mock.stop()


@pytest.fixture
def bodies(world):
    for mock in world[1].values():
        mock.clear()
    return world


def request_of(api: str, model: str, stream: bool, tools: bool = False) -> dict:
    body = {"model": model, "max_tokens": 64, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    if tools and api == "chat":
        function = {"name": TOOL["name"], "parameters": TOOL["schema"]}
        body["tools"] = [{"type": "function", "function": function}]
    elif tools:
        body["tools"] = [{"name": TOOL["name"], "input_schema": TOOL["schema"]}]
    return body


def ask(gateway: Gateway, api: str, model: str, stream: bool, tools: bool = False):
    answer = gateway.client.post(PATHS[api], json=request_of(api, model, stream, tools))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream" if stream else "application/json"), answer.headers
    assert "content-encoding" not in answer.headers
    return answer


def said(answer, api: str, stream: bool) -> tuple[str, list[tuple[str, dict]]]:
    """The text of an answer and its calls."""
    if api == "chat" and not stream:
        message = answer.json()["choices"][0]["message"]
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []]
        return message["content"] or "", [(name, json.loads(arguments)) for name, arguments in calls]
    if api == "chat":
        chunks = chunks_of(answer.content)
        calls: dict[int, list[str]] = {}
        for chunk in chunks:
            for choice in chunk["choices"]:
                for call in choice["delta"].get("tool_calls") or []:
                    known = calls.setdefault(call["index"], ["", ""])
                    known[0] += call["function"].get("name") or ""
                    known[1] += call["function"].get("arguments") or ""
        return text_of(chunks), [(name, json.loads(arguments)) for name, arguments in calls.values()]
    if not stream:
        content = answer.json()["content"]
    else:
        events = [json.loads(data) for _, data in events_of(answer.content)]
        assert [name for name, _ in events_of(answer.content)] == [event["type"] for event in events]
        assert events[0]["type"] == "message_start" and events[-1]["type"] == "message_stop"
        content = []
        for event in events:
            if event["type"] == "content_block_start":
                content.append(event["content_block"] | {"json": ""})
            elif event["type"] == "content_block_delta":
                delta = event["delta"]
                content[-1]["json"] += delta.get("partial_json", "")
                if "text" in delta:
                    content[-1]["text"] += delta["text"]
        for block in content:
            if block["type"] == "tool_use":
                block["input"] = json.loads(block["json"])
    texts = [block["text"] for block in content if block["type"] == "text"]
    return "".join(texts), [(block["name"], block["input"]) for block in content if block["type"] == "tool_use"]


@pytest.mark.parametrize("kind", KINDS, ids=[kind or "none" for kind in KINDS])
@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_is_read_as_one_whatever_it_is_called(bodies, wire, api, kind):
    gateway, mocks = bodies
    mocks[wire].script(typed(kind), typed(kind) | split(1))
    for _ in range(2):
        assert said(ask(gateway, api, wire, True), api, True)[0] == mocks[wire].text


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_by_another_name_is_not_held_back(bodies, wire, api):
    gateway, mocks = bodies
    shows_at_once(gateway, mocks[wire], api, wire, typed("text/plain"))


@pytest.mark.parametrize("codings", [("gzip",), ("deflate",), ("raw deflate",), ("deflate", "gzip")], ids=str)
@pytest.mark.parametrize("wire", WIRES)
def test_each_event_of_a_packed_stream_goes_on_when_it_has_come(bodies, wire, codings):
    gateway, mocks = bodies
    shows_at_once(gateway, mocks[wire], "chat", wire, packed(*codings))


def shows_at_once(gateway, mock, api, wire, how):
    gate = Gate()
    mock.script(how | gated(gate, after=5 if wire == "anthropic" else 3))
    with gateway.client.stream("POST", PATHS[api], json=request_of(api, wire, True)) as answer:
        received = ""
        pieces = answer.iter_text()
        while mock.text[:2] not in received:
            received += next(pieces)
        gate.wait_reached()
        gate.open()
        received += "".join(pieces)
    assert "[DONE]" in received if api == "chat" else "message_stop" in received


@pytest.mark.parametrize("tools", [False, True], ids=["text", "call"])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_in_the_other_form_is_turned_into_what_was_asked_for(bodies, wire, api, stream, tools):
    gateway, mocks = bodies
    right = said(ask(gateway, api, wire, stream, tools), api, stream)
    assert bool(right[1]) == tools
    for kind in (None, "text/event-stream", "application/json", ""):
        how = other_form() if kind is None else other_form() | typed(kind)
        for more in (how, how | split(1), how | chunked(), how | gzip()):
            mocks[wire].script(more)
            assert said(ask(gateway, api, wire, stream, tools), api, stream) == right
    assert not mocks["good"].requests


def test_a_text_completion_comes_in_the_form_that_was_asked_for(bodies):
    gateway, mocks = bodies
    for stream in (False, True):
        mocks["openai"].script(other_form())
        answer = gateway.client.post("/v1/completions", json={"model": "openai", "prompt": "hi", "stream": stream})
        assert answer.status_code == 200, answer.text
        texts = [chunk["choices"][0]["text"] for chunk in (chunks_of(answer.content) if stream else [answer.json()])]
        assert "".join(texts)


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_usage_of_a_whole_answer_is_told_in_the_stream_to_who_asks_for_it(bodies, include_usage):
    gateway, mocks = bodies
    mocks["openai"].script(other_form())
    answer = gateway.chat("openai", stream=True, stream_options={"include_usage": include_usage})
    told = [chunk["usage"]["total_tokens"] for chunk in chunks_of(answer.content) if chunk.get("usage")]
    assert told == ([18] if include_usage else [])


ERROR = {"error": {"message": "out of tokens", "type": "rate_limit", "code": 429}}


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", ""], ids=["json", "sse", "none"])
@pytest.mark.parametrize("api", PATHS)
def test_an_error_in_the_place_of_a_stream_goes_to_the_fallback(bodies, api, kind):
    gateway, mocks = bodies
    mocks["openai"].script(ok(json.dumps(ERROR).encode()) | typed(kind))
    assert said(ask(gateway, api, "openai", True), api, True)[0] == mocks["good"].text
    assert len(mocks["good"].requests) == 1


CUT = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'


@pytest.mark.parametrize(
    "body", [CUT, CUT + b"data: " + json.dumps(ERROR).encode() + b"\n\n", b"<html>maintenance</html>"], ids=["cut", "error", "html"]
)
@pytest.mark.parametrize("api", PATHS)
def test_what_is_no_whole_answer_goes_to_the_fallback(bodies, api, body):
    gateway, mocks = bodies
    mocks["openai"].script(ok(body, [("content-type", "text/event-stream")]))
    assert said(ask(gateway, api, "openai", False), api, False)[0] == mocks["good"].text


@pytest.mark.parametrize("codings", [("gzip",), ("deflate",), ("raw deflate",), ("gzip", "gzip"), ("deflate", "gzip")], ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
def test_packed_answers_are_read(bodies, wire, stream, codings):
    gateway, mocks = bodies
    for how in (packed(*codings), packed(*codings) | split(1)):
        mocks[wire].script(how)
        for api in PATHS:
            assert said(ask(gateway, api, wire, stream), api, stream)[0] == mocks[wire].text
    mocks[wire].script(mocks[wire].error("context_window") | packed(*codings))
    mocks["good"].script(mocks["good"].error("context_window"))
    answer = gateway.chat(wire, stream=stream, disable_fallbacks=True)
    assert "ContextWindowExceededError" in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "compress", "gzip"])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_what_cannot_be_unpacked_goes_to_the_fallback_and_is_told(bodies, stream, coding):
    gateway, mocks = bodies
    unreadable = ok(b"\x0b\x02\x80{}\x03", [("content-encoding", coding), ("content-type", "application/json")])
    mocks["openai"].script(unreadable)
    assert said(ask(gateway, "chat", "openai", stream), "chat", stream)[0] == mocks["good"].text
    mocks["openai"].script(unreadable)
    answer = gateway.chat("openai", stream=stream, disable_fallbacks=True)
    assert answer.status_code == 500 and "content-encoding" in answer.json()["error"]["message"], answer.text


def test_providers_are_asked_for_nothing_packed(bodies):
    gateway, mocks = bodies
    answer = gateway.chat("openai", headers={"accept-encoding": "gzip, deflate, br, zstd"})
    assert answer.status_code == 200 and "content-encoding" not in answer.headers
    assert mocks["openai"].last.header("accept-encoding") == "identity"


def test_an_error_that_cannot_be_unpacked_is_told_by_its_status(bodies):
    gateway, mocks = bodies
    mocks["openai"].script(status(429, b"\x0b\x02", [("content-encoding", "br")]))
    answer = gateway.chat("openai", disable_fallbacks=True)
    assert answer.status_code == 429 and "content-encoding `br`" in answer.json()["error"]["message"], answer.text


@pytest.fixture(scope="module")
def embedders(tmp_path_factory):
    mocks = {"tokens": OpenAiMock(name="tokens"), "texts": OpenAiMock(name="texts")}
    # The same wire: what tells them apart is the brand.
    models = [
        deployment("tokens", mocks["tokens"].params()),
        deployment("texts", mocks["texts"].params() | {"model": "voyage/voyage-3"}),
    ]
    gateway = Gateway(tmp_path_factory.mktemp("embedders"), {"model_list": models, "router_settings": {"num_retries": 0}})
    yield gateway, mocks
    gateway.stop()
    for mock in mocks.values():
        mock.stop()


@pytest.mark.parametrize(
    "given, texts",
    [([[15339, 1917]], ["hello world"]), ([15339, 1917], "hello world"), ([[15339], [1917]], ["hello", " world"]), ("hi", "hi")],
    ids=["list", "one", "two", "text"],
)
def test_lists_of_tokens_become_texts_where_none_are_taken(embedders, given, texts):
    gateway, mocks = embedders
    for name, expected in (("tokens", given), ("texts", texts)):
        answer = gateway.client.post("/v1/embeddings", json={"model": name, "input": given})
        assert answer.status_code == 200, answer.text
        assert mocks[name].last.json["input"] == expected


def test_a_token_that_does_not_exist_is_told(embedders):
    gateway, mocks = embedders
    answer = gateway.client.post("/v1/embeddings", json={"model": "texts", "input": [[4294967295]]})
    assert answer.status_code == 400 and "no token 4294967295" in answer.json()["error"]["message"], answer.text


PACKS = {
    "gzip": lambda body: zlib.compress(body, wbits=31),
    "deflate": zlib.compress,
    "deflate, gzip": lambda body: zlib.compress(zlib.compress(body), wbits=31),
}


@pytest.mark.parametrize("coding", PACKS)
@pytest.mark.parametrize("api", PATHS)
def test_a_packed_request_is_read_and_sent_on_unpacked(bodies, api, coding):
    gateway, mocks = bodies
    body = PACKS[coding](json.dumps(request_of(api, "openai", False)).encode())
    headers = {"content-encoding": coding, "content-type": "application/json"}
    mocks["openai"].script(status(500))
    answer = gateway.client.post(PATHS[api], content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    for name in ("openai", "good"):
        assert mocks[name].last.json["messages"] and mocks[name].last.header("content-encoding") is None


@pytest.mark.parametrize("coding, code", [("br", 415), ("zstd", 415), ("gzip", 400)])
@pytest.mark.parametrize("api", PATHS)
def test_a_request_that_cannot_be_unpacked_is_refused(bodies, api, coding, code):
    gateway, _ = bodies
    headers = {"content-encoding": coding, "content-type": "application/json"}
    answer = gateway.client.post(PATHS[api], content=b"\x0b\x02\x80{}\x03", headers=headers)
    assert answer.status_code == code and "content-encoding" in answer.json()["error"]["message"], answer.text
    assert (answer.json().get("type") == "error") == (api == "messages")
