"""A history as clients of each API write it: the same said in many ways, as the turns' styles choose."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Callable

MARK = {"cache_control": {"type": "ephemeral"}}


@dataclasses.dataclass(frozen=True)
class Target:
    """What a request may hold for whom it goes to: what no client sends to such a model is left out."""

    images: str = "any"
    """`any` or `data`, which are no addresses."""
    images_in_results: bool = True
    functions: bool = True
    """It knows calls as OpenAI had them first."""
    efforts: bool = False
    """It can be told to think."""

    def takes(self, part: dict) -> bool:
        return "image" not in part or self.images == "any" or (self.images == "data" and part["image"].startswith("data:"))


class Raw:
    """Numbers and names as they are written, in JSON that is made around them."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def keep(self, text: str) -> str:
        mark = f"raw-{len(self.texts)}-raw"
        self.texts[f'"{mark}"'] = text
        return mark

    def dumps(self, value: Any) -> bytes:
        whole = json.dumps(value)
        for mark, text in self.texts.items():
            whole = whole.replace(mark, text)
        return whole.encode()


def is_object(arguments: str) -> bool:
    """Whether a call's arguments are whole: those of an answer that was cut off are not."""
    try:
        return isinstance(json.loads(arguments), dict)
    except ValueError:
        return False


def completed(history: dict) -> list[dict]:
    """The turns, ended as a request ends: with words of the user or results of tools."""
    turns = list(history["turns"])
    if not turns or (turns[-1]["kind"] != "user" and not turns[-1].get("calls")):
        turns.append({"kind": "user", "parts": [{"text": "Go on."}], "style": 0})
    return turns


def begun(turns: list[dict]) -> list[dict]:
    """The turns as Anthropic's clients begin them: with words of the user."""
    first = next(at for at, turn in enumerate([*turns, {"kind": "user"}]) if turn["kind"] != "system")
    opened = [] if turns[first]["kind"] == "user" else [{"kind": "user", "parts": [{"text": "Hello."}], "style": 0}]
    return [*opened, *turns[first:]]


def shown(parts: list[dict], target: Target) -> list[dict]:
    return [part for part in parts if target.takes(part)]


def names_of(history: dict) -> list[str]:
    """Every tool that is called or offered."""
    called = [call["name"] for turn in history["turns"] for call in turn.get("calls", ())]
    return list(dict.fromkeys([*called, *history["tools"]]))


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


# ------------------------------------------------------------------------------------------------------------------------------ chat


def chat(history: dict, target: Target, model: str, sign: Callable[[str], str]) -> bytes:
    """The body of a request to /v1/chat/completions."""
    marks = _Marks()
    messages = [_system(text, history["style"] >> at, marks) for at, text in enumerate(history["system"])]
    for at, turn in enumerate(completed(history)):
        if turn["kind"] == "system":
            messages.append(_system(turn["text"], turn["style"], marks))
        elif turn["kind"] == "user":
            messages.append({"role": "user", "content": _content(shown(turn["parts"], target), turn["style"], marks)})
        else:
            messages += _said(turn, at, target, marks, sign)
    body = {"model": model, "messages": messages}
    if names := names_of(history):
        tools = [{"type": "function", "function": {"name": short_name(name), "description": "", "parameters": SCHEMA}} for name in names]
        body["tools"] = [tool | (MARK if history["style"] & 4 and marks.left() else {}) for tool in tools]
    elif history["style"] & 8:
        body |= {"tools": None, "tool_choice": None, "response_format": None, "stop": None}
    return json.dumps(body).encode()


class _Marks:
    """Anthropic takes four cache marks in a request."""

    def __init__(self) -> None:
        self.given = 0

    def left(self) -> bool:
        self.given += 1
        return self.given <= 4


def _system(text: str, style: int, marks: _Marks) -> dict:
    role = "developer" if style & 1 else "system"
    content = [{"type": "text", "text": text} | (MARK if style & 4 and marks.left() else {})] if style & 2 else text
    return {"role": role, "content": content}


def _content(parts: list[dict], style: int, marks: _Marks) -> Any:
    if len(parts) <= 1 and style & 1 and "image" not in (parts or [{}])[0]:
        return parts[0]["text"] if parts else ""
    made = []
    for part in parts:
        made.append({"type": "text", "text": part["text"]} if "text" in part else _image(part["image"], style))
        made[-1] |= MARK if style & 2 and marks.left() else {}
    return made


def _image(url: str, style: int) -> dict:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"} if style & 4 else {"url": url}}


def _said(turn: dict, at: int, target: Target, marks: _Marks, sign: Callable[[str], str]) -> list[dict]:
    """A message of the model, and the results of its calls."""
    style = turn["style"]
    texts = [{"text": text} for text in turn["texts"]]
    message: dict = {"role": "assistant", "content": _content(texts, style, marks) if texts else None}
    if not turn["calls"] and not texts:
        message["content"] = ""
    if turn["thoughts"]:
        message["reasoning_content"] = "".join(thought["text"] for thought in turn["thoughts"] if thought["how"] != "redacted")
        if style & 8 or any(thought["how"] != "unsigned" for thought in turn["thoughts"]):
            message["thinking_blocks"] = [block(thought, sign) for thought in turn["thoughts"]]
    if style & 16:
        message |= {"refusal": None, "audio": None, "function_call": None, "annotations": [], "provider_specific_fields": None}
    if style & 32 and not turn["calls"]:
        message["tool_calls"] = None
    calls = turn["calls"]
    if is_old(turn, target):
        [call] = calls
        message["function_call"] = {"name": short(call), "arguments": call["arguments"]}
        results = [{"role": "function", "name": short(call), "content": old_result(call)}]
        return [message, *results]
    if calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": short(call), "arguments": call["arguments"]}}
            | ({"index": at, "provider_specific_fields": None} if style & 128 else {})
            for at, (id, call) in enumerate(zip(ids_of(calls), calls))
        ]
    results = []
    for id, call in zip(ids_of(calls), calls):
        content = _content(result_of(call, target), call["style"], marks)
        results.append({"role": "tool", "tool_call_id": id, "content": content} | ({"name": short(call)} if style & 64 else {}))
    return [message, *results]


def is_old(turn: dict, target: Target) -> bool:
    """Whether the turn is written with `function_call`, as it was before there were tools."""
    return target.functions and turn["style"] & 0x300 == 0x300 and len(turn["calls"]) == 1


def short(call: dict) -> str:
    """The name as a client of OpenAI's has it."""
    return short_name(call["name"])


def short_name(name: str) -> str:
    return name if len(name) <= 64 else f"{name[:60]}-{name[-3:]}"


def ids_of(calls: list[dict]) -> list[str]:
    """The ids of one answer's calls: no server gives one twice there."""
    ids: list[str] = []
    for call in calls:
        ids.append(call["id"] if call["id"] not in ids else f"{call['id']}x{len(ids)}")
    return ids


def result_of(call: dict, target: Target) -> list[dict]:
    """The parts of a call's result that a client sends there."""
    return [part for part in shown(call["result"], target) if "text" in part or target.images_in_results]


def old_result(call: dict) -> str:
    """A result as it was before there were tools: a text."""
    return "".join(part["text"] for part in call["result"] if "text" in part)


def block(thought: dict, sign: Callable[[str], str]) -> dict:
    """A thought as Anthropic's block."""
    if thought["how"] == "redacted":
        return {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va"}
    return {"type": "thinking", "thinking": thought["text"], "signature": sign(thought["text"]) if thought["how"] == "signed" else ""}


# -------------------------------------------------------------------------------------------------------------------------- messages


def messages(history: dict, target: Target, model: str, sign: Callable[[str], str]) -> bytes:
    """The body of a request to /v1/messages."""
    raw, marks = Raw(), _Marks()
    made: list[dict] = []
    results: list[dict] = []
    for turn in begun(completed(history)):
        if turn["kind"] == "model":
            if results:
                made.append({"role": "user", "content": results})
            content, results = _blocks_said(turn, raw, sign), _results(turn, target, marks)
            made.append({"role": "assistant", "content": content})
            continue
        if turn["kind"] == "system":
            if results:
                made.append({"role": "user", "content": results})
                results = []
            text = turn["text"]
            made.append({"role": "system", "content": text if turn["style"] & 1 else [{"type": "text", "text": text}]})
            continue
        content = _blocks(shown(turn["parts"], target), turn["style"], marks)
        if results and (turn["style"] & 4 or isinstance(content, str)):
            made.append({"role": "user", "content": results})
            results = []
        made.append({"role": "user", "content": [*results, *content] if isinstance(content, list) else content})
        results = []
    if results:
        made.append({"role": "user", "content": results})
    body: dict = {"model": model, "max_tokens": 4000, "messages": made}
    if history["system"]:
        blocks = [{"type": "text", "text": text} | (MARK if history["style"] & 4 and marks.left() else {}) for text in history["system"]]
        body["system"] = "\n".join(history["system"]) if history["style"] & 2 else blocks
    if names := names_of(history):
        tools = [{"name": name, "description": "", "input_schema": SCHEMA} for name in names]
        body["tools"] = [tool | ({"type": "custom"} if history["style"] & 1 else {}) for tool in tools]
    if history["thinks"] and target.efforts:
        body["thinking"] = {"type": "enabled", "budget_tokens": 2000}
    return raw.dumps(body)


def _blocks(parts: list[dict], style: int, marks: _Marks) -> Any:
    if len(parts) == 1 and style & 1 and "text" in parts[0]:
        return parts[0]["text"]
    made = []
    for part in parts:
        made.append({"type": "text", "text": part["text"]} if "text" in part else {"type": "image", "source": _source(part["image"])})
        made[-1] |= MARK if style & 2 and marks.left() else {}
    return made or [{"type": "text", "text": ""}]


def _source(url: str) -> dict:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    kind, data = url.removeprefix("data:").split(";base64,")
    return {"type": "base64", "media_type": kind, "data": data}


def _blocks_said(turn: dict, raw: Raw, sign: Callable[[str], str]) -> list[dict]:
    blocks = [block(thought, sign) for thought in turn["thoughts"]]
    blocks += [{"type": "text", "text": text} for text in turn["texts"]]
    for id, call in zip(ids_of(turn["calls"]), turn["calls"]):
        # Torn arguments come to a client of this API as an object, and go back so.
        given = call["arguments"] if is_object(call["arguments"]) else json.dumps({"arguments": call["arguments"]})
        blocks.append({"type": "tool_use", "id": id, "name": call["name"], "input": raw.keep(given)})
    return blocks or [{"type": "text", "text": ""}]


def _results(turn: dict, target: Target, marks: _Marks) -> list[dict]:
    made = []
    for id, call in zip(ids_of(turn["calls"]), turn["calls"]):
        parts = result_of(call, target)
        result: dict = {"type": "tool_result", "tool_use_id": id}
        if parts or call["style"] & 8:
            result["content"] = _blocks(parts, call["style"], marks) if parts else []
        made.append(result | ({"is_error": True} if call["failed"] else {}))
    return made
