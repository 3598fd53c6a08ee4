"""What a client got, read as strictly as the strictest client reads it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from gateway import events_of

from .facts import exact, text_of


@dataclasses.dataclass
class Said:
    """An answer without its format."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, Any]] = dataclasses.field(default_factory=list)
    """Ids, names and arguments."""
    stopped: str = ""


def of_chat(body: bytes) -> Said:
    """A buffered answer of /v1/chat/completions."""
    whole = json.loads(body)
    assert whole["object"] == "chat.completion" and whole["id"] and isinstance(whole["created"], int) and whole["model"], whole
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"] > 0, whole
    [choice] = whole["choices"]
    message = choice["message"]
    assert choice["index"] == 0 and message["role"] == "assistant" and "content" in message, whole
    calls = message.get("tool_calls") or []
    assert all(call["type"] == "function" and call["id"] for call in calls), calls
    said = Said(message["content"] or "", message.get("reasoning_content") or "", stopped=choice["finish_reason"])
    said.calls = [(call["id"], call["function"]["name"], exact(call["function"]["arguments"])) for call in calls]
    return said


def of_chat_stream(body: bytes) -> Said:
    """A streamed answer of /v1/chat/completions."""
    assert body.endswith(b"data: [DONE]\n\n") or body.endswith(b"data: [DONE]\r\n\r\n"), body[-200:]
    assert body.count(b"\ndata: [DONE]") == 1, body[-200:]
    said, calls, ids = Said(), {}, set()
    for _, data in events_of(body):
        if data == "[DONE]":
            continue
        chunk = data if isinstance(data, dict) else json.loads(data)
        assert "error" not in chunk, chunk
        assert chunk["object"] == "chat.completion.chunk" and isinstance(chunk["created"], int), chunk
        ids.add(chunk["id"])
        for choice in chunk["choices"]:
            assert choice["index"] == 0 and not said.stopped, chunk
            _delta(choice["delta"], said, calls)
            said.stopped = choice.get("finish_reason") or ""
    assert len(ids) == 1, ids
    assert list(calls) == list(range(len(calls))), calls
    said.calls = [(call["id"], call["name"], exact(call["arguments"] or "{}")) for call in calls.values()]
    return said


def _delta(delta: dict, said: Said, calls: dict[int, dict]) -> None:
    said.text += delta.get("content") or ""
    said.reasoning += delta.get("reasoning_content") or ""
    for piece in delta.get("tool_calls") or []:
        function = piece.get("function") or {}
        if piece["index"] not in calls:
            assert piece["id"] and function["name"] and piece.get("type") == "function", piece
            calls[piece["index"]] = {"id": piece["id"], "name": function["name"], "arguments": ""}
        else:
            assert piece.get("id") in (None, calls[piece["index"]]["id"]) and not function.get("name"), piece
        calls[piece["index"]]["arguments"] += function.get("arguments") or ""


STOPS = {"end_turn": "stop", "tool_use": "tool_calls"}


def of_messages(body: bytes) -> Said:
    """A buffered answer of /v1/messages."""
    whole = json.loads(body)
    assert whole["type"] == "message" and whole["role"] == "assistant" and whole["id"] and whole["model"], whole
    assert whole["usage"]["input_tokens"] > 0 and whole["usage"]["output_tokens"] > 0, whole
    said = Said(stopped=STOPS[whole["stop_reason"]])
    inputs = _inputs(body)
    for block in whole["content"]:
        _block(block, said, inputs.pop(0) if block["type"] == "tool_use" else None)
    return said


def _inputs(body: bytes) -> list[Any]:
    whole = exact(body.decode())
    content = dict(whole[1:])["content"]
    blocks = [dict(block[1:]) for block in content]
    return [block["input"] for block in blocks if block["type"] == "tool_use"]


def _block(block: dict, said: Said, arguments: Any) -> None:
    if block["type"] == "text":
        assert block["text"], "an empty text, which Anthropic refuses when it comes back"
        said.text += block["text"]
    elif block["type"] == "thinking":
        assert "signature" in block, block
        said.reasoning += block["thinking"]
    else:
        assert block["type"] == "tool_use" and block["id"], block
        said.calls.append((block["id"], block["name"], arguments))


KINDS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json", "signature_delta": "signature"}


def of_messages_stream(body: bytes) -> Said:
    """A streamed answer of /v1/messages: blocks one after the other, each opened and closed once."""
    said, blocks, at = Said(), [], None
    events = list(events_of(body))
    assert events[0][0] == "message_start" and events[-1][0] == "message_stop", body[-300:]
    assert [name for name, _ in events].count("message_start") == 1, body[:300]
    for name, data in events[1:-1]:
        event = data if isinstance(data, dict) else json.loads(data)
        assert event["type"] == name, event
        if name == "content_block_start":
            assert at is None and event["index"] == len(blocks), event
            at = event["index"]
            blocks.append([event["content_block"], ""])
        elif name == "content_block_delta":
            assert at == event["index"], event
            kind = KINDS[event["delta"]["type"]]
            if kind != "signature":
                blocks[at][1] += event["delta"][kind]
        elif name == "content_block_stop":
            assert at == event["index"], event
            at = None
        elif name == "message_delta":
            assert at is None and not said.stopped, event
            assert event["usage"]["output_tokens"] > 0, event
            said.stopped = STOPS[event["delta"]["stop_reason"]]
        else:
            assert name == "ping", event
    assert said.stopped, body[-300:]
    for block, text in blocks:
        if block["type"] == "tool_use":
            assert block["input"] == {}, block
            said.calls.append((block["id"], block["name"], exact(text or "{}")))
        else:
            said.text += text if block["type"] == "text" else ""
            said.reasoning += text if block["type"] == "thinking" else ""
    return said


def check(answer: Said, turn: Any, shows_reasoning: bool) -> None:
    """The answer says what the model said."""
    assert answer.text == text_of(turn.text), f"{answer.text!r} for {turn.text!r}"
    if shows_reasoning:
        assert answer.reasoning == turn.reasoning, f"{answer.reasoning!r} for {turn.reasoning!r}"
    assert answer.stopped == ("tool_calls" if turn.calls else "stop"), answer.stopped
    wanted = [(call.name, exact(json.dumps(call.arguments))) for call in turn.calls]
    assert [call[1:] for call in answer.calls] == wanted, f"{answer.calls} for {wanted}"
    ids = [call[0] for call in answer.calls]
    assert len(set(ids)) == len(ids), ids
