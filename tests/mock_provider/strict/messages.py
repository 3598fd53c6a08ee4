"""Anthropic's messages, as strict as api.anthropic.com."""

from __future__ import annotations

import json
import re
from typing import Any

from ..anthropic_wire import AnthropicMock
from ..model import COMPLETION_TOKENS, PROMPT_TOKENS
from .model import Refusal, Strict, Tools, Turn, refuse_unless, rounds_of, torn

BLOCKS = {
    "user": {"text", "image", "document", "tool_result", "search_result"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking"},
}
MEMBERS = {
    "text": {"type", "text", "cache_control", "citations"},
    "image": {"type", "source", "cache_control"},
    "document": {"type", "source", "title", "context", "citations", "cache_control"},
    "search_result": {"type", "source", "title", "content", "citations", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
    "tool_use": {"type", "id", "name", "input", "cache_control", "caller"},
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
}
NAME = r"[a-zA-Z0-9_-]{1,128}"
IN_RESULTS = {"text", "image", "document", "search_result", "tool_reference"}


class StrictAnthropic(Strict, AnthropicMock):
    """api.anthropic.com. Thinking blocks are signed, and taken back only with the signature of their text."""

    call_prefix = "toolu_01"

    def params(self, model: str = "claude-sonnet-4-5-20250929") -> dict:
        return super().params(model)

    def count(self, body: dict) -> int:
        check(self, body | {"max_tokens": 1 << 20})
        return PROMPT_TOKENS

    def message(self, body: dict) -> dict:
        check(self, body)
        turn = self.turn(tools_of(body), schema_of(body), thinks(body))
        usage = {
            "input_tokens": PROMPT_TOKENS,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": COMPLETION_TOKENS,
            "service_tier": "standard",
        }
        return {
            "id": self.new_id("msg_01"),
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": self.blocks(turn),
            "stop_reason": "tool_use" if turn.calls else "end_turn",
            "stop_sequence": None,
            "usage": self.usage(body) if self.usage else usage,
        }

    def blocks(self, turn: Turn) -> list[dict]:
        blocks: list[dict] = []
        if turn.reasoning:
            blocks.append({"type": "thinking", "thinking": turn.reasoning, "signature": self.sign(turn.reasoning)})
        if turn.text:
            blocks.append({"type": "text", "text": turn.text})
        return blocks + [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in turn.calls]

    @staticmethod
    def deltas(block: dict) -> list[dict]:
        if block["type"] == "tool_use":
            pieces = ["", *torn(json.dumps(block["input"]))] if block["input"] else [""]
            return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        return AnthropicMock.deltas(block)


def thinks(body: dict) -> bool:
    return (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")


def schema_of(body: dict) -> Any:
    form = body.get("output_format") or (body.get("output_config") or {}).get("format") or {}
    return form.get("schema")


def tools_of(body: dict) -> Tools:
    schemas = {tool["name"]: tool["input_schema"] for tool in body.get("tools") or [] if "input_schema" in tool}
    choice = body.get("tool_choice") or {"type": "auto"}
    said = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
    answered = rounds_of([any(block["type"] == "tool_use" for block in blocks if isinstance(block, dict)) for blocks in said])
    kind = f"[{choice['name']}]" if choice["type"] == "tool" else choice["type"]
    return Tools(schemas, kind, not choice.get("disable_parallel_tool_use"), answered)


# ---------------------------------------------------------------------------------------------------------- what is refused


def check(mock: StrictAnthropic, body: dict) -> None:
    """Refuses a messages request that Anthropic refuses."""
    check_parameters(body)
    check_tools(body)
    check_turns(mock, body)
    found = json.dumps(body).count('"cache_control": {')
    refuse_unless(found <= 4, 400, f"A maximum of 4 blocks with cache_control may be provided. Found {found}.")


def check_parameters(body: dict) -> None:
    if body.get("thread"):
        # Conversations that the API keeps: what it says where it does not.
        message = "thread: this request cannot be part of a thread"
        details = {"error_code": "thread_unsupported_request", "unsupported": None}
        error = {"type": "invalid_request_error", "message": message, "details": details}
        raise Refusal(400, message, {"type": "error", "error": error, "request_id": "req_strict"})
    extra = sorted(body.keys() - AnthropicMock.KNOWN)
    refuse_unless(not extra, 400, f"{extra[0] if extra else ''}: Extra inputs are not permitted")
    refuse_unless(isinstance(body.get("model"), str) and body["model"], 400, "model: Field required")
    limit = body.get("max_tokens")
    refuse_unless(limit is not None, 400, "max_tokens: Field required")
    refuse_unless(isinstance(limit, int) and limit > 0, 400, "max_tokens: Input should be greater than or equal to 1")
    refuse_unless(not body.get("metadata", {}).keys() - {"user_id"}, 400, "metadata: Extra inputs are not permitted")
    for name in ("temperature", "top_p"):
        value = body.get(name, 1)
        refuse_unless(isinstance(value, (int, float)), 400, f"{name}: Input should be a valid number")
        refuse_unless(0 <= value <= 1, 400, f"{name}: Input should be less than or equal to 1")
    stops = body.get("stop_sequences", [])
    refuse_unless(isinstance(stops, list), 400, "stop_sequences: Input should be a valid list")
    refuse_unless(all(stop.strip() for stop in stops), 400, "stop_sequences: each stop sequence must contain non-whitespace")
    system = body.get("system", "")
    refuse_unless(isinstance(system, (str, list)), 400, "system: Input should be a valid string")
    for at, block in enumerate(system if isinstance(system, list) else []):
        refuse_unless(block.get("type") == "text", 400, f"system.{at}.type: Input should be 'text'")
        check_text(f"system.{at}", block)
    if thinks(body):
        check_thinking(body)


def check_thinking(body: dict) -> None:
    """What may not stand beside thinking."""
    thinking = body["thinking"]
    budget = thinking.get("budget_tokens", 1024)
    refuse_unless(budget >= 1024, 400, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    if thinking["type"] == "enabled":
        refuse_unless(body["max_tokens"] > budget, 400, "`max_tokens` must be greater than `thinking.budget_tokens`.")
    only = "`temperature` may only be set to 1 when thinking is enabled."
    refuse_unless(body.get("temperature", 1) == 1, 400, only)
    refuse_unless(
        body.get("top_p", 1) >= 0.95, 400, "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled."
    )
    refuse_unless("top_k" not in body, 400, "`top_k` must be unset when thinking is enabled.")
    forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    refuse_unless(not forced, 400, "Thinking may not be enabled when tool_choice forces tool use.")


def check_tools(body: dict) -> None:
    names = []
    for at, tool in enumerate(body.get("tools") or []):
        kind = tool.get("type", "custom")
        expected = f"tools.{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
        refuse_unless(kind != "function" and "function" not in tool, 400, expected)
        names.append(tool.get("name"))
        if kind != "custom":
            continue
        refuse_unless(
            re.fullmatch(NAME, tool.get("name") or ""), 400, f"tools.{at}.custom.name: String should match pattern '^{NAME}$'"
        )
        extra = tool.keys() - {"type", "name", "description", "input_schema", "cache_control", "strict", "defer_loading",
                               "eager_input_streaming", "input_examples", "allowed_callers"}  # fmt: skip
        refuse_unless(not extra, 400, f"tools.{at}.custom.{sorted(extra)[0] if extra else ''}: Extra inputs are not permitted")
        schema = tool.get("input_schema") or {}
        refuse_unless(schema.get("type") == "object", 400, f"tools.{at}.custom.input_schema.type: Field required")
        several = {"oneOf", "allOf", "anyOf"} & schema.keys()
        top = f"tools.{at}.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level"
        refuse_unless(not several, 400, top)
    refuse_unless(len(set(names)) == len(names), 400, "tools: Tool names must be unique.")
    choice = body.get("tool_choice")
    if choice is not None:
        refuse_unless(names, 400, "tool_choice may only be specified while providing tools.")
        known = isinstance(choice, dict) and choice.get("type") in ("auto", "any", "tool", "none")
        refuse_unless(known, 400, "tool_choice: Input should be a valid dictionary or object to extract fields from")
        named = choice["type"] != "tool" or choice.get("name") in names
        refuse_unless(named, 400, f"Tool '{choice.get('name')}' not found in provided tools")


def check_turns(mock: StrictAnthropic, body: dict) -> None:
    messages = body.get("messages")
    refuse_unless(isinstance(messages, list) and messages, 400, "messages: at least one message is required")
    turns: list[tuple[str, str, list[dict]]] = []
    for at, message in enumerate(messages):
        where, role, content = f"messages.{at}", message.get("role"), message.get("content")
        if role == "system":
            check_system_turn(where, message, turns)
            continue
        refuse_unless(role in BLOCKS, 400, f"{where}.role: Input should be 'user' or 'assistant'")
        extra = sorted(message.keys() - {"role", "content"})
        refuse_unless(not extra, 400, f"{where}.{extra[0] if extra else ''}: Extra inputs are not permitted")
        refuse_unless(isinstance(content, (str, list)), 400, f"{where}.content: Input should be a valid list")
        final = at == len(messages) - 1 and role == "assistant"
        wanted = "all messages must have non-empty content except for the optional final assistant message"
        refuse_unless(content or final, 400, f"{where}: {wanted}")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for index, block in enumerate(blocks):
            check_block(mock, f"{where}.content.{index}", role, block)
        # Turns of one role that follow each other are one turn to the API.
        if turns and turns[-1][0] == role:
            turns[-1][2].extend(blocks)
        else:
            turns.append((role, where, list(blocks)))
    refuse_unless(turns[0][0] == "user", 400, 'messages: first message must use the "user" role')
    check_pairs(turns)
    last_role, where, blocks = turns[-1]
    if last_role == "assistant" and blocks and blocks[-1].get("type") == "text":
        refuse_unless(
            blocks[-1]["text"] == blocks[-1]["text"].rstrip(),
            400,
            "messages: final assistant content cannot end with trailing whitespace",
        )
    used = any(block["type"] in ("tool_use", "tool_result") for _, _, blocks in turns for block in blocks)
    refuse_unless(
        body.get("tools") or not used, 400, "Requests which include `tool_use` or `tool_result` blocks must define tools"
    )
    if thinks(body) and body["thinking"]["type"] == "enabled":
        check_thinking_of_history(turns)


def check_system_turn(where: str, message: dict, turns: list) -> None:
    """Instructions in the middle of a conversation: texts alone, and never its beginning."""
    first = 'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter.'
    refuse_unless(turns, 400, first)
    content = message.get("content")
    refuse_unless(content and isinstance(content, (str, list)), 400, f"{where}.content: Input should be a valid list")
    for at, block in enumerate(content if isinstance(content, list) else []):
        refuse_unless(block.get("type") == "text", 400, f"{where}.content.{at}: Input should be 'text'")
        check_text(f"{where}.content.{at}", block)


def check_block(mock: StrictAnthropic, where: str, role: str, block: dict) -> None:
    kind = block.get("type")
    tags = ", ".join(f"'{name}'" for name in sorted(BLOCKS[role]))
    wrong = f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags: {tags}"
    refuse_unless(kind in BLOCKS[role], 400, wrong)
    extra = sorted(block.keys() - MEMBERS[kind])
    refuse_unless(not extra, 400, f"{where}.{kind}.{extra[0] if extra else ''}: Extra inputs are not permitted")
    if kind == "text":
        check_text(where, block)
    elif kind in ("image", "document"):
        check_source(where, kind, block.get("source") or {})
    elif kind == "thinking":
        good = block.get("signature") == mock.sign(block.get("thinking", ""))
        refuse_unless(good, 400, f"{where}: Invalid `signature` in `thinking` block")
    elif kind == "tool_use":
        refuse_unless(isinstance(block.get("input"), dict), 400, f"{where}.tool_use.input: Input should be a valid dictionary")
        refuse_unless(
            re.fullmatch(r"[a-zA-Z0-9_-]+", block.get("id") or ""),
            400,
            f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
        )
        refuse_unless(
            re.fullmatch(NAME, block.get("name") or ""), 400, f"{where}.tool_use.name: String should match pattern '^{NAME}$'"
        )
    elif kind == "tool_result":
        content = block.get("content") or []
        for at, part in enumerate(content if isinstance(content, list) else []):
            refuse_unless(
                part.get("type") in IN_RESULTS, 400, f"{where}.tool_result.content.{at}: Input tag '{part.get('type')}' found"
            )
            if part["type"] == "text":
                check_text(f"{where}.tool_result.content.{at}", part)


def check_text(where: str, block: dict) -> None:
    refuse_unless(isinstance(block.get("text"), str), 400, f"{where}.text: Input should be a valid string")
    refuse_unless(block["text"], 400, "messages: text content blocks must be non-empty")
    refuse_unless(block["text"].strip(), 400, "messages: text content blocks must contain non-whitespace text")


def check_source(where: str, kind: str, source: dict) -> None:
    fields = {"base64": {"type", "media_type", "data"}, "url": {"type", "url"}, "text": {"type", "media_type", "data"}}
    fields |= {"file": {"type", "file_id"}, "content": {"type", "content"}}
    refuse_unless(source.keys() == fields.get(source.get("type")), 400, f"{where}.{kind}.source: Field required")


def check_pairs(turns: list[tuple[str, str, list[dict]]]) -> None:
    """Every call has its result in the very next turn, before anything else there; every result has its call."""
    calls: list[str] = []
    seen: set[str] = set()
    for role, where, blocks in turns:
        results = [block.get("tool_use_id") for block in blocks if block["type"] == "tool_result"]
        missing = [call for call in calls if call not in results]
        text = f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}."
        refuse_unless(not missing, 400, text)
        for result in results:
            text = f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {result}."
            refuse_unless(result in calls, 400, f"{text} Each `tool_result` block must have a corresponding `tool_use` block.")
            refuse_unless(
                results.count(result) == 1, 400, f"{where}: each tool_use must have a single result. Found multiple for {result}"
            )
        order = [block["type"] == "tool_result" for block in blocks]
        text = f"{where}: `tool_result` blocks must come before any other content"
        refuse_unless(order == sorted(order, reverse=True), 400, text)
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"] if role == "assistant" else []
        refuse_unless(len({*calls} - seen) == len(calls), 400, f"{where}: `tool_use` ids must be unique")
        seen |= {*calls}
    refuse_unless(
        not calls, 400, f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(calls)}."
    )


def check_thinking_of_history(turns: list[tuple[str, str, list[dict]]]) -> None:
    """The turn that is on, from the last words of the user, must begin with what the model thought."""
    for role, where, blocks in reversed(turns):
        if role == "user" and not any(block["type"] == "tool_result" for block in blocks):
            return
        if role == "assistant" and any(block["type"] == "tool_use" for block in blocks):
            text = f"{where}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{blocks[0]['type']}`. When "
            text += "`thinking` is enabled, a final `assistant` message must start with a thinking block."
            refuse_unless(blocks[0]["type"] in ("thinking", "redacted_thinking"), 400, text)
