"""What a history says, what a provider was sent, and whether the one arrived in the other: whole, once, in order."""

from __future__ import annotations

import json
import re
from typing import Any

from . import render
from .render import Target

NOTHING_SAID = "[System: Empty message content sanitised to satisfy protocol]"
"""What stands for a turn that says nothing."""
ADDED = re.compile(
    rf"(?:\s|\x1c|{re.escape(NOTHING_SAID)}|Result of tool call [^\n]*?:|The result follows in the next message\.|Error: |Error|\[image\]|Done\.)*"
)
"""What a translation may say of its own."""


class Facts:
    """What a conversation holds, without a format."""

    def __init__(self) -> None:
        self.system: list[str] = []
        self.said: list[tuple[str, str]] = []
        """Who (`user`, `model`) says what."""
        self.images: list[str] = []
        self.calls: list[tuple[str, Any]] = []
        """Names and arguments."""
        self.results: list[list[str]] = []
        """The texts of each call's result."""
        self.thoughts: list[dict] = []
        """Blocks of thinking."""
        self._open: list[tuple[str, int]] = []

    def call(self, id: str, name: str, arguments: Any) -> None:
        self._open.append((id, len(self.calls)))
        self.calls.append((name, arguments))
        self.results.append([])

    def result(self, id: str, texts: list[str]) -> None:
        """The result of the newest open call of this id."""
        at = next((at for at, (open, _) in enumerate(self._open) if open == id), None)
        assert at is not None, f"a result of {id!r}, which nobody has called: {self._open}"
        self.results[self._open.pop(at)[1]] += texts


# ---------------------------------------------------------------------------------------------------------------- what is meant


def meant(history: dict, dialect: str, target: Target, sign: Any) -> Facts:
    """What a request of the history says."""
    facts = Facts()
    facts.system = list(history["system"])
    turns = render.completed(history)
    for turn in turns if dialect == "chat" else render.begun(turns):
        if turn["kind"] == "system":
            facts.system.append(turn["text"])
        elif turn["kind"] == "user":
            parts = render.shown(turn["parts"], target)
            facts.said += [("user", part["text"]) for part in parts if "text" in part]
            facts.images += [part["image"] for part in parts if "image" in part]
        else:
            facts.said += [("model", text) for text in turn["texts"]]
            facts.thoughts += [render.block(thought, sign) for thought in turn["thoughts"] if thought["how"] != "unsigned"]
            old = dialect == "chat" and render.is_old(turn, target)
            for call in turn["calls"]:
                name = render.short(call) if dialect == "chat" else call["name"]
                facts.calls.append((name, _arguments(call["arguments"])))
                parts = [{"text": render.old_result(call)}] if old else render.result_of(call, target)
                facts.results.append([part["text"] for part in parts if "text" in part])
                facts.images += [part["image"] for part in parts if "image" in part]
    return facts


def _arguments(text: str) -> Any:
    if not render.is_object(text):
        text = json.dumps({"arguments": text})
    return exact(text)


class _Number(str):
    """A number as it is written."""


def exact(text: str) -> Any:
    """JSON with the digits of its numbers and the order of its names. A half of a surrogate pair may have become U+FFFD."""
    read = json.loads(text, parse_int=_Number, parse_float=_Number, object_pairs_hook=lambda pairs: ("object", *pairs))
    return _plain(read)


def _plain(value: Any) -> Any:
    if isinstance(value, _Number):
        return ("number", str(value))
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, (list, tuple)):
        return tuple(_plain(inner) for inner in value)
    return value


def text_of(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


# ------------------------------------------------------------------------------------------------------------- what was received


def of_chat(body: bytes) -> Facts:
    """What a request in OpenAI's format says."""
    facts = Facts()
    for message in json.loads(body)["messages"]:
        texts, images = _parts(message.get("content"))
        role = message["role"]
        if role in ("system", "developer"):
            facts.system += texts
        elif role == "user":
            facts.said += [("user", text) for text in texts]
            facts.images += images
        elif role == "assistant":
            facts.said += [("model", text) for text in texts]
            for call in message.get("tool_calls") or []:
                facts.call(call["id"], call["function"]["name"], _arguments(call["function"]["arguments"]))
            if call := message.get("function_call"):
                facts.call(call["name"], call["name"], _arguments(call["arguments"]))
        else:
            facts.result(message["tool_call_id"] if role == "tool" else message["name"], texts)
            facts.images += images
    return facts


def _parts(content: Any) -> tuple[list[str], list[str]]:
    if content is None or isinstance(content, str):
        return [content or ""], []
    texts = [part["text"] for part in content if part["type"] == "text"]
    return texts, [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


def of_messages(body: bytes) -> Facts:
    """What a request in Anthropic's format says."""
    facts = Facts()
    read = json.loads(body, parse_int=_Number, parse_float=_Number)
    whole = json.loads(body, parse_int=_Number, parse_float=_Number, object_pairs_hook=lambda pairs: ("object", *pairs))
    inputs = iter(_inputs(whole))
    facts.system = _blocks(read.get("system", []))[0]
    for message in read["messages"]:
        role = {"user": "user", "assistant": "model"}.get(message["role"], "system")
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            kind = block["type"]
            if kind == "tool_use":
                facts.call(block["id"], block["name"], _plain(next(inputs)))
            elif kind == "tool_result":
                texts, images = _blocks(block.get("content") or [])
                facts.result(block["tool_use_id"], texts)
                facts.images += images
            elif kind in ("thinking", "redacted_thinking"):
                facts.thoughts.append(block)
            else:
                texts, images = _blocks([block])
                facts.images += images
                facts.system += texts if role == "system" else []
                facts.said += [(role, text) for text in texts] if role != "system" else []
    return facts


def _inputs(whole: Any) -> list[Any]:
    """The inputs of all calls, with their names in order."""
    found = []
    for message in dict(whole[1:])["messages"]:
        content = dict(message[1:])["content"]
        blocks = [dict(block[1:]) for block in content] if isinstance(content, list) else []
        found += [block["input"] for block in blocks if block["type"] == "tool_use"]
    return found


def _blocks(blocks: Any) -> tuple[list[str], list[str]]:
    if isinstance(blocks, str):
        return [blocks], []
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    sources = [block["source"] for block in blocks if block["type"] == "image"]
    return texts, [source.get("url") or f"data:{source['media_type']};base64,{source['data']}" for source in sources]


def of_ollama(body: bytes) -> Facts:
    """What a request in Ollama's format says. Its pictures have no types, its results no ids."""
    facts = Facts()
    read = json.loads(body, parse_int=_Number, parse_float=_Number)
    whole = json.loads(body, parse_int=_Number, parse_float=_Number, object_pairs_hook=lambda pairs: ("object", *pairs))
    exacts = [dict(message[1:]).get("tool_calls", []) for message in dict(whole[1:])["messages"]]
    for message, calls in zip(read["messages"], exacts):
        text, role = message["content"], message["role"]
        facts.images += message.get("images", [])
        if role == "system":
            facts.system.append(text)
        elif role == "tool":
            facts.result(message["tool_name"], [text])
        else:
            facts.said.append(("user" if role == "user" else "model", text))
        for call in calls:
            function = dict(dict(call[1:])["function"][1:])
            facts.call(function["name"], function["name"], _plain(function["arguments"]))
    return facts


# ------------------------------------------------------------------------------------------------------------------- the two beside


def check(wanted: Facts, got: Facts, keeps_thoughts: bool) -> None:
    """Everything that is meant is there, in order, and nothing else but what a translation may add."""
    _same("the system prompt", [("", text) for text in wanted.system], [("", text) for text in got.system])
    _same("what is said", wanted.said, got.said)
    assert got.images == wanted.images, f"pictures: {got.images} for {wanted.images}"
    names = [call[0] for call in wanted.calls]
    assert [call[0] for call in got.calls] == [_cut(name, call[0]) for name, call in zip(names, got.calls)], f"calls: {got.calls} for {names}"
    assert len(got.calls) == len(names), f"calls: {got.calls} for {names}"
    for (name, arguments), (_, came) in zip(wanted.calls, got.calls):
        assert came == arguments, f"arguments of {name}: {came} for {arguments}"
    for (name, _), texts, came in zip(wanted.calls, wanted.results, got.results):
        _same(f"the result of {name}", [("", text) for text in texts], [("", text) for text in came])
    if keeps_thoughts:
        assert got.thoughts == wanted.thoughts, f"thinking: {got.thoughts} for {wanted.thoughts}"


def _cut(name: str, came: str) -> str:
    """A long name may have been shortened, to one that begins as it does."""
    is_short = len(name) > 64 and len(came) == 64 and name.startswith(came[:55])
    return came if is_short else name


def _same(what: str, wanted: list[tuple[str, str]], got: list[tuple[str, str]]) -> None:
    left = [[who, text_of(text)] for who, text in got]
    at = start = 0
    over = []
    for who, text in wanted:
        text = text_of(text).strip()
        if not text.strip("\x1c "):
            continue
        while at < len(left) and (left[at][0] != who or text not in left[at][1][start:]):
            over.append(left[at][1][start:])
            at, start = at + 1, 0
        assert at < len(left), f"{what}: {who} {text!r} is not in {got}"
        found = left[at][1].index(text, start)
        over.append(left[at][1][start:found])
        start = found + len(text)
    over += [left[at][1][start:]] if at < len(left) else []
    over += [text for _, text in left[at + 1 :]]
    added = [text for text in over if not ADDED.fullmatch(text)]
    assert not added, f"{what}: nobody has said {added}"
