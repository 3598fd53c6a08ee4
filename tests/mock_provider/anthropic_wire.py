"""Anthropic messages, buffered and streamed."""

from __future__ import annotations

import json
from typing import Any

from .model import COMPLETION_TOKENS, PROMPT_TOKENS, arguments_for, cut, need, parse_object
from .server import Answer, Mock, Recorded


COUNT = "/v1/messages/count_tokens"
COUNTED = {
    "model", "messages", "system", "tools", "tool_choice", "thinking", "context_management", "mcp_servers", "output_format",
    "output_config", "cache_control", "speed",
}  # fmt: skip
"""What a count of tokens may hold."""


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

    USAGE = {
        "input_tokens": PROMPT_TOKENS,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": COMPLETION_TOKENS,
    }

    @property
    def base(self) -> str:
        return self.origin

    def params(self, model: str = "claude-haiku-4-5-20251001") -> dict:
        return {"model": f"anthropic/{model}", "api_base": self.base, "api_key": self.key}

    def answer(self, request: Recorded) -> Answer:
        need(request.path in ("/v1/messages", COUNT), "Not found", 404)
        need(request.method == "POST", "Method Not Allowed", 405)
        keys = [value for name, value in request.headers if name == "x-api-key"]
        tokens = [value for name, value in request.headers if name == "authorization"]
        good = (keys == [self.key] and not tokens) or (self.bearer and not keys and tokens == [f"Bearer {self.key}"])
        need(good, "invalid x-api-key", 401)
        need(request.header("anthropic-version") in self.VERSIONS, "anthropic-version: header is required")
        body = parse_object(request)
        headers = (("request-id", "req_mock_1"), ("anthropic-ratelimit-requests-remaining", "49"))
        if request.path == COUNT:
            extra = sorted(body.keys() - COUNTED)
            need(not extra, f"{extra[0] if extra else ''}: Extra inputs are not permitted")
            return Answer(200, json.dumps({"input_tokens": self.count(body)}).encode(), headers=headers)
        message = self.message(body)
        if body.get("stream"):
            frames = [
                f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in self.events(message)
            ]
            return Answer(200, [frame.encode() for frame in frames], "text/event-stream; charset=utf-8", headers)
        return Answer(200, json.dumps(message, ensure_ascii=False).encode(), headers=headers)

    def count(self, body: dict) -> int:
        """The tokens of a prompt that is in order."""
        check_messages(body | {"max_tokens": 1 << 20}, self.KNOWN)
        return PROMPT_TOKENS

    def message(self, body: dict) -> dict:
        """The answer to a request that is in order."""
        check_messages(body, self.KNOWN)
        blocks, stop = self.say(body)
        return {
            "id": "msg_mock1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": blocks,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": self.usage(body) if self.usage else self.USAGE,
        }

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
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": message["usage"]["output_tokens"]}})
        events.append({"type": "message_stop"})
        return events

    @staticmethod
    def deltas(block: dict) -> list[dict]:
        if block["type"] == "text":
            return [{"type": "text_delta", "text": piece} for piece in cut(block["text"], 5)]
        if block["type"] == "thinking":
            thinking = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"], 2)]
            return [*thinking, {"type": "signature_delta", "signature": block["signature"]}]
        pieces = ["", *cut(json.dumps(block["input"]), 3)]
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
    need(not extra, f"{sorted(extra)[0] if extra else ''}: Extra inputs are not permitted")
    need(isinstance(body.get("model"), str) and body["model"], "model: Field required")
    need(isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 0, "max_tokens: Field required")
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        need(thinking.get("budget_tokens", 0) >= 1024, "thinking.budget_tokens: Input should be greater than or equal to 1024")
        need(body["max_tokens"] > thinking["budget_tokens"], "`max_tokens` must be greater than `thinking.budget_tokens`.")
        forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
        need(not forced, "Thinking may not be enabled when tool_choice forces tool use.")
    need(
        isinstance(body.get("temperature", 1), (int, float)) and 0 <= body.get("temperature", 1) <= 1, "temperature: range: 0..1"
    )
    system = body.get("system", "")
    need(isinstance(system, (str, list)), "system: Input should be a valid string or list")
    for block in system if isinstance(system, list) else []:
        need(block.get("type") == "text" and block.get("text"), "system: text content blocks must be non-empty")
    _check_turns(body.get("messages"))
    _check_tools(body)


def _check_turns(messages: Any) -> None:
    need(isinstance(messages, list) and messages, "messages: at least one message is required")
    need(messages[0].get("role") == "user", 'messages: first message must use the "user" role')
    pending: set[str] = set()
    previous = None
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        role, content = message.get("role"), message.get("content")
        need(role in ("user", "assistant"), f"{where}.role: Input should be 'user' or 'assistant', not {role}")
        need(not message.keys() - {"role", "content"}, f"{where}: Extra inputs are not permitted: {sorted(message)}")
        # The API merges turns of one role itself; a translation that relies on it would be wrong for tool results.
        need(role != previous, f"{where}: roles must alternate")
        previous = role
        need(isinstance(content, (str, list)) and content, f"{where}: content must be non-empty")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        pending = _check_blocks(where, role, blocks, pending)
    need(not pending, f"`tool_use` ids were found without `tool_result` blocks: {sorted(pending)}")
    last = messages[-1]
    if last["role"] == "assistant" and isinstance(last["content"], str):
        need(last["content"] == last["content"].rstrip(), "final assistant content cannot end with trailing whitespace")


def _check_blocks(where: str, role: str, blocks: list[dict], pending: set[str]) -> set[str]:
    calls: set[str] = set()
    seen_other = False
    for block in blocks:
        kind = block.get("type")
        allowed = {
            "user": ("text", "image", "document", "tool_result"),
            "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
        }[role]
        need(kind in allowed, f"{where}: block type '{kind}' is not allowed for {role}")
        if kind == "text":
            need(block.get("text"), f"{where}: text content blocks must be non-empty")
        if kind == "tool_use":
            need(isinstance(block.get("input"), dict), f"{where}: tool_use.input: Input should be a valid dictionary")
            need(block.get("id") and block.get("name"), f"{where}: tool_use needs id and name")
            calls.add(block["id"])
        if kind == "tool_result":
            need(not seen_other, f"{where}: tool_result blocks must come first")
            need(block.get("tool_use_id") in pending, f"{where}: unexpected `tool_use_id` {block.get('tool_use_id')}")
            pending = pending - {block["tool_use_id"]}
        else:
            seen_other = True
        if kind in ("image", "document"):
            source = block.get("source", {})
            fields = {"base64": {"type", "media_type", "data"}, "url": {"type", "url"}, "text": {"type", "media_type", "data"}}
            need(source.keys() == fields.get(source.get("type")), f"{where}: bad {kind} source {sorted(source)}")
    if role == "user":
        need(not pending, f"{where}: `tool_use` ids were found without `tool_result` blocks: {sorted(pending)}")
    return calls


def _check_tools(body: dict) -> None:
    tools = body.get("tools") or []
    for tool in tools:
        need(
            tool.get("type") != "function",
            "tools: Input tag 'function' found using 'type' does not match any of the expected tags",
        )
        if tool.get("type", "custom") == "custom":
            need(tool.get("name") and "function" not in tool, "tools: name: Field required")
            need(tool.get("input_schema", {}).get("type") == "object", "tools: input_schema.type: Field required")
    choice = body.get("tool_choice")
    if choice is not None:
        need(tools, "tool_choice may only be specified while providing tools.")
        need(isinstance(choice, dict) and choice.get("type") in ("auto", "any", "tool", "none"), "tool_choice: bad type")
        need(choice["type"] != "tool" or choice.get("name") in {tool["name"] for tool in tools}, "tool_choice: no such tool")
    used = any(
        isinstance(message["content"], list) and any(block["type"] in ("tool_use", "tool_result") for block in message["content"])
        for message in body["messages"]
    )
    need(tools or not used, "Requests which include `tool_use` or `tool_result` blocks must define tools")
