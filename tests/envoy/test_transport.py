"""Answers as networks deliver them: cut anywhere, compressed, huge, broken off, or no longer wanted."""

from __future__ import annotations

import json

import httpx
import pytest

from gateway import chunks_of, events_of, text_of
from mock_provider import Gate, chunked, closing, cut, gated, gzip, hang, ok, reset, split, status, trailers

WIRES = ("openai", "azure", "anthropic")
TRANSPORTS = {
    "every byte alone": split(1),
    "every byte alone, chunked": split(1) | chunked(),
    "7 bytes": split(7),
    "gzip": gzip(),
    "gzip, every byte alone": gzip() | split(1),
    "without a length": closing(),
    "chunked": chunked(),
    "trailers": trailers(("x-checksum", "abc")),
}


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("how", TRANSPORTS.values(), ids=TRANSPORTS)
def test_the_answer_is_the_same_however_it_travels(gateway, providers, wire, how, api, stream):
    providers[wire].script(how)
    answer = getattr(gateway, api)(wire, stream=stream)
    assert answer.status_code == 200, answer.text
    if api == "chat":
        text = text_of(chunks_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]
        usage = None if stream else answer.json()["usage"]["total_tokens"]
    else:
        text, usage = message_of(answer, stream)
    assert text == providers[wire].text
    assert usage in (None, 18)


def message_of(answer: httpx.Response, stream: bool) -> tuple[str, int | None]:
    if not stream:
        body = answer.json()
        return body["content"][0]["text"], body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    events = events_of(answer.content)
    parsed = [json.loads(data) for _, data in events]
    assert [name for name, _ in events] == [event["type"] for event in parsed]
    return "".join(event["delta"].get("text", "") for event in parsed if event["type"] == "content_block_delta"), None


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
def test_tool_calls_cut_at_every_byte(gateway, providers, wire, stream):
    tools = [
        {
            "type": "function",
            "function": {"name": name, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
        }
        for name in ("weather", "time")
    ]
    providers[wire].script(split(1))
    answer = gateway.chat(wire, stream=stream, tools=tools)
    found: dict[int, str] = {}
    if stream:
        parts = [
            part
            for chunk in chunks_of(answer.content)
            for choice in chunk["choices"]
            for part in choice["delta"].get("tool_calls") or []
        ]
        for part in parts:
            found[part["index"]] = found.get(part["index"], "") + (part["function"].get("arguments") or "")
    else:
        found = dict(enumerate(call["function"]["arguments"] for call in answer.json()["choices"][0]["message"]["tool_calls"]))
    assert [json.loads(arguments) for arguments in found.values()] == [{"city": "Oslo"}] * 2


@pytest.mark.parametrize("wire", WIRES)
def test_errors_cut_at_every_byte_are_still_understood(gateway, providers, wire):
    mock = providers[wire]
    mock.script(mock.error("context_window") | split(1), mock.error("rate_limit") | gzip())
    assert "ContextWindowExceededError" in gateway.chat(wire).json()["error"]["message"]
    answer = gateway.chat(wire)
    assert answer.status_code == 429 and mock.error_answer("rate_limit")[1]["error"]["message"] in answer.text


@pytest.mark.parametrize("how", [split(65536), split(65536) | chunked(), gzip()], ids=["length", "chunked", "gzip"])
@pytest.mark.parametrize("wire", WIRES)
def test_a_10_mb_answer(gateway, providers, wire, how):
    providers[wire].text = "0123456789abcdef" * (10 * 1024 * 64) + "end"
    providers[wire].script(how)
    answer = gateway.chat(wire)
    assert answer.status_code == 200, answer.text[:300]
    assert answer.json()["choices"][0]["message"]["content"] == providers[wire].text


@pytest.mark.parametrize("wire", WIRES)
def test_a_10_mb_stream(gateway, providers, wire):
    providers[wire].text = "0123456789abcdef" * (10 * 1024 * 64) + "end"
    providers[wire].script(split(65536))
    answer = gateway.chat(wire, stream=True)
    assert text_of(chunks_of(answer.content)) == providers[wire].text


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("wire", WIRES)
def test_the_first_chunk_is_not_held_back(gateway, providers, wire, api):
    """Everything the provider has sent is at the client while the provider waits."""
    gate = Gate()
    # Five frames: in every format some text is among them.
    providers[wire].script(gated(gate, after=5))
    path, body = request_of(api, wire)
    with gateway.client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        received = ""
        pieces = answer.iter_text()
        while "Hello" not in received and "Hell" not in received:
            received += next(pieces)
        gate.wait_reached()
        gate.open()
        received += "".join(pieces)
    assert "[DONE]" in received if api == "chat" else "message_stop" in received


def request_of(api: str, model: str) -> tuple[str, dict]:
    body = {"model": model, "max_tokens": 50, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    return ("/v1/chat/completions", body) if api == "chat" else ("/v1/messages", body)


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("wire", WIRES)
def test_the_provider_notices_that_the_client_left(gateway, providers, wire, api):
    gate = Gate()
    providers[wire].script(gated(gate, after=5))
    path, body = request_of(api, wire)
    with gateway.client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        # Kept: an iterator that is dropped closes the connection, maybe before the mock is at the gate.
        pieces = answer.iter_raw()
        next(pieces)
        gate.wait_reached()
    providers[wire].last.wait_gone()


def test_the_provider_notices_that_the_client_left_before_the_answer(gateway, providers, raw, chat_bytes):
    providers.openai.script(hang())
    connection = raw(gateway).post(chat_bytes())
    request = providers.openai.wait_requests(1)[0]
    connection.close()
    request.wait_gone()


BREAKS = {"reset": reset("stream", after=5), "cut short": cut(5)}


@pytest.mark.parametrize("how", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_that_breaks_never_looks_whole(gateway, providers, wire, api, how):
    """No error event can be added here: once the answer has begun, Envoy meets a provider's reset (or an end inside HTTP's own
    framing) by resetting the client's stream, and the last that a Wasm filter hears of it is that its context is gone. So the
    connection breaks, which every client takes for an error, after everything that had come."""
    providers[wire].script(how)
    path, body = request_of(api, wire)
    received = b""
    with pytest.raises(httpx.RemoteProtocolError), gateway.client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        call_id = answer.headers["x-litellm-call-id"]
        for piece in answer.iter_raw():
            received += piece
    assert said(received, api) and providers[wire].text.startswith(said(received, api)), "what came before the break is there"
    assert b"[DONE]" not in received and b"message_stop" not in received
    record = gateway.access_record(call_id)
    assert record["code_details"].startswith("upstream_reset_after_response_started"), record
    assert gateway.chat(wire).status_code == 200


@pytest.mark.parametrize("how", [reset("stream", after=1), cut(1)], ids=["reset", "cut short"])
def test_a_stream_that_breaks_before_its_first_words_can_still_be_told(gateway, providers, how):
    """Nothing of Anthropic's first event is worth a chunk to an OpenAI client: the headers have waited."""
    providers.anthropic.script(how)
    answer = gateway.chat("anthropic", stream=True)
    assert answer.status_code == 500 and "litellm.APIConnectionError" in answer.json()["error"]["message"]


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_that_ends_early_ends_with_an_error_event_for_openai_clients(gateway, providers, wire):
    """Where the connection's end is the body's, HTTP cannot tell a whole stream from half of one: its own end mark can."""
    providers[wire].script(closing() | cut(5))
    answer = gateway.chat(wire, stream=True)
    if answer.status_code == 200:
        data = [data for _, data in events_of(answer.content)]
        assert len(data) > 1 and "[DONE]" not in data, "what came before the end is delivered, and not as if it were all"
        error = json.loads(data[-1])["error"]
        assert error["message"] and error["code"] == "500"
    else:
        # Nothing had gone out yet.
        assert answer.status_code == 500 and answer.json()["error"]["message"]


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_that_ends_early_ends_with_an_error_event_for_anthropic_clients(gateway, providers, wire):
    providers[wire].script(closing() | cut(5))
    answer = gateway.messages(wire, stream=True)
    assert answer.status_code == 200
    names = [name for name, _ in events_of(answer.content)]
    assert "message_stop" not in names
    name, data = events_of(answer.content)[-1]
    assert name == "error"
    assert json.loads(data)["type"] == "error" and json.loads(data)["error"]["message"]


def said(stream: bytes, api: str) -> str:
    """The text in a stream of which the end is missing."""
    events = [json.loads(data) for _, data in events_of(stream) if data]
    if api == "chat":
        return text_of(events)
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


def test_an_error_inside_a_stream_is_translated(gateway, providers):
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "stop_reason": None}
    events = [
        {"type": "message_start", "message": message | {"stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    providers.anthropic.script(ok(body, headers=[("content-type", "text/event-stream")]))
    answer = gateway.chat("anthropic", stream=True)
    data = [data for _, data in events_of(answer.content)]
    assert "[DONE]" not in data
    assert "Overloaded" in json.loads(data[-1])["error"]["message"]


@pytest.mark.parametrize("when", ["request", "headers"])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
def test_a_provider_that_resets_is_survived(gateway, providers, wire, stream, when):
    providers[wire].script(reset(when))
    try:
        answer = gateway.chat(wire, stream=stream)
    except httpx.RemoteProtocolError:
        # Headers of a large or streamed answer may be out already: then all that is left is to break off.
        assert when == "headers"
    else:
        assert answer.status_code >= 500 or (when == "headers" and "error" in answer.text)
    assert gateway.chat(wire).status_code == 200


GARBAGE = {
    "not JSON": b"<html>bad gateway</html>",
    "empty": b"",
    "array": b"[]",
    "null choices": b'{"choices": null, "usage": null}',
    "numbers": b'{"choices": [1], "content": [2], "usage": 3}',
    "deep": b"[" * 100_000,
    "not utf-8": b'{"choices": [{"message": {"content": "\xff"}}]}',
}


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("wire", WIRES)
def test_garbage_from_a_provider_breaks_nothing(gateway, providers, wire, body, stream):
    kind = "text/event-stream" if stream else "application/json"
    frame = b"data: " + body + b"\n\n" if stream else body
    providers[wire].script(ok(frame, headers=[("content-type", kind)]), status(500, body), status(400, body))
    for api in (gateway.chat, gateway.messages, gateway.chat):
        api(wire, stream=stream)
    assert gateway.chat(wire).status_code == 200
