"""OpenAI's chat completions, as strict as api.openai.com; other brands of the format begin from here."""

from __future__ import annotations

import json
import re
from typing import Any

from ..model import COMPLETION_TOKENS, PROMPT_TOKENS
from ..openai_wire import OpenAiMock
from ..server import Answer
from .model import Refusal, Strict, Tools, Turn, rounds_of, torn

SAMPLING = {"frequency_penalty", "logit_bias", "logprobs", "presence_penalty", "temperature", "top_logprobs", "top_p"}
CORE = {"messages", "model", "response_format", "seed", "stop", "stream", "tool_choice", "tools", "temperature", "top_p"}
OPENAI = CORE | SAMPLING | {
    "audio", "function_call", "functions", "max_completion_tokens", "max_tokens", "metadata", "modalities", "n",
    "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "safety_identifier",
    "service_tier", "store", "stream_options", "user", "verbosity", "web_search_options",
}  # fmt: skip
"""The members of a request that OpenAI documents."""


class StrictOpenAi(Strict, OpenAiMock):
    """api.openai.com."""

    brand = "openai"
    """LiteLLM's prefix."""
    parameters: set[str] | None = OPENAI
    """The members that a request may have; None where others are passed over."""
    roles = ("system", "developer", "user", "assistant", "tool", "function")
    parts = ("text", "image_url", "input_audio", "file", "refusal")
    takes_json_schema = True
    newline = "\n"
    comment: str | None = None
    """A comment that keeps a stream alive before it begins."""
    finish_of_calls = "tool_calls"
    """The finish reason of a stream that calls tools."""
    reasoning_member = "reasoning_content"
    empty_members: dict = {"refusal": None, "annotations": []}
    """What an answer's message has besides, and says nothing by."""
    empty_delta: dict = {"refusal": None}
    """What the first delta of a stream has besides."""

    def params(self, model: str = "gpt-4o") -> dict:
        return {"model": f"{self.brand}/{model}", "api_base": self.base, "api_key": self.key}

    def refuse(self, message: str, code: str | None = None, param: str | None = None, status: int = 400) -> Any:
        """The API's own error."""
        kind = "invalid_request_error"
        raise Refusal(status, message, {"error": {"message": message, "type": kind, "param": param, "code": code}})

    # -- one request

    def chat(self, body: dict) -> Answer:
        model = self.model(body)
        self.check_parameters(body, model)
        self.check_messages(body["messages"])
        self.check_tools(body)
        self.check_history(body, model)
        turn = self.turn(self.tools_of(body), self.schema_of(body), self.thinks(body, model))
        head = {"id": self.new_id("chatcmpl-"), "created": 1754000000, "model": model, "system_fingerprint": "fp_44709d6fcb"}
        usage = self.usage(body) if self.usage else self.usage_of_turn(turn)
        if body.get("stream"):
            return self.stream(head | {"object": "chat.completion.chunk"}, turn, body, usage)
        finish = "tool_calls" if turn.calls else "stop"
        choice = {"index": 0, "message": self.message(turn), "logprobs": None, "finish_reason": finish}
        whole = head | {"object": "chat.completion", "choices": [choice], "usage": usage, "service_tier": "default"}
        return Answer(200, json.dumps(whole, ensure_ascii=False).encode(), headers=(("x-request-id", "req_strict"),))

    # -- what is refused

    def unknown_parameter(self, name: str) -> Any:
        self.refuse(f"Unrecognized request argument supplied: {name}")

    def check_parameters(self, body: dict, model: str) -> None:
        given = {name for name, value in body.items() if value is not None}
        for name in sorted(given - self.parameters if self.parameters is not None else ()):
            self.unknown_parameter(name)
        if given & {"max_tokens"} and given & {"max_completion_tokens"}:
            self.refuse("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
        self.check_model(body, given, model)
        if "stream_options" in given and not body.get("stream"):
            self.refuse("The 'stream_options' parameter is only allowed when 'stream' is enabled.", None, "stream_options")
        for name in ("tool_choice", "parallel_tool_calls"):
            if name in given and not body.get("tools"):
                self.refuse(f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", None, name)
        if not 0 <= (body.get("temperature") or 0) <= 2:
            self.refuse("Invalid 'temperature': decimal above maximum value.", "decimal_above_max_value", "temperature")
        if isinstance(body.get("stop"), list) and len(body["stop"]) > 4:
            self.refuse("Invalid 'stop': array too long. Expected an array with maximum length 4.", "array_above_max_length")
        form = body.get("response_format") or {"type": "text"}
        if form.get("type") == "json_schema":
            self.check_schema(form.get("json_schema") or {}, body)
        elif form.get("type") == "json_object":
            if "json" not in json.dumps(body["messages"]).lower():
                self.refuse(
                    "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
                )
        elif form.get("type") != "text":
            self.refuse(f"Invalid value: '{form.get('type')}'.", "invalid_value", "response_format.type")

    def check_model(self, body: dict, given: set[str], model: str) -> None:
        """What single models refuse."""
        if not reasons(model):
            if "reasoning_effort" in given:
                self.unknown_parameter("reasoning_effort")
            return
        refused = {"max_tokens", "frequency_penalty", "presence_penalty", "top_p", "logprobs", "top_logprobs", "logit_bias"}
        refused |= {"stop"} if model.startswith("gpt-5") else {"parallel_tool_calls"}
        for name in sorted(refused & given):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            message += " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
            self.refuse(message, "unsupported_parameter", name)
        if body.get("temperature", 1) not in (1, None):
            message = f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. "
            self.refuse(message + "Only the default (1) value is supported.", "unsupported_value", "temperature")
        if body.get("reasoning_effort", "low") not in ("none", "minimal", "low", "medium", "high", "xhigh"):
            self.refuse(f"Invalid value: '{body['reasoning_effort']}'.", "invalid_value", "reasoning_effort")

    def check_schema(self, form: dict, body: dict) -> None:
        if not self.takes_json_schema:
            self.refuse("This response_format type is unavailable now")
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", form.get("name") or ""):
            self.refuse("Missing required parameter: 'response_format.json_schema.name'.", "missing_required_parameter")
        schema = form.get("schema") or {}
        if form.get("strict") and schema.get("additionalProperties") is not False:
            message = (
                f"Invalid schema for response_format '{form['name']}': In context=(), 'additionalProperties' is required to be "
            )
            self.refuse(message + "supplied and to be false.", None, "response_format")

    def bad_role(self, index: int, role: Any) -> Any:
        allowed = ", ".join(f"'{name}'" for name in self.roles)
        self.refuse(f"Invalid value: '{role}'. Supported values are: {allowed}.", "invalid_value", f"messages[{index}].role")

    def check_messages(self, messages: Any) -> None:
        if not isinstance(messages, list) or not messages:
            self.refuse("Invalid 'messages': empty array. Expected an array with minimum length 1.", "empty_array", "messages")
        open_calls: list[str] = []
        for index, message in enumerate(messages):
            role = message.get("role")
            if role not in self.roles:
                self.bad_role(index, role)
            if role == "tool":
                if message.get("tool_call_id") not in open_calls:
                    text = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                    self.refuse(f"Invalid parameter: {text}", None, f"messages.[{index}].role")
                open_calls.remove(message["tool_call_id"])
            elif open_calls:
                self.unanswered(open_calls, index)
            self.check_message(index, role, message)
            open_calls += [call["id"] for call in message.get("tool_calls") or []]
        if open_calls:
            self.unanswered(open_calls, len(messages))

    def unanswered(self, calls: list[str], index: int) -> Any:
        message = "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        message += f"The following tool_call_ids did not have response messages: {', '.join(calls)}"
        self.refuse(message, None, f"messages.[{index}].role")

    def check_message(self, index: int, role: str, message: dict) -> None:
        where = f"messages[{index}]"
        calls = message.get("tool_calls")
        if calls is not None and (role != "assistant" or not calls):
            self.refuse(f"Invalid '{where}.tool_calls': empty array. Expected an array with minimum length 1.", "empty_array")
        for call in calls or []:
            self.check_call(where, call)
        content = message.get("content")
        if content is None and (role != "assistant" or not (calls or message.get("function_call") or message.get("refusal"))):
            self.refuse("Invalid value for 'content': expected a string, got null.", None, f"messages.[{index}].content")
        for at, part in enumerate(content if isinstance(content, list) else []):
            self.check_part(f"{where}.content[{at}]", role, part)

    def check_call(self, where: str, call: dict) -> None:
        if call.get("type") != "function" or not call.get("id"):
            self.refuse(f"Missing required parameter: '{where}.tool_calls[0].type'.", "missing_required_parameter")
        if not isinstance(call["function"].get("arguments"), str):
            text = f"Invalid type for '{where}.tool_calls[0].function.arguments': expected a string"
            self.refuse(text, "invalid_type", f"{where}.tool_calls[0].function.arguments")
        self.check_name(f"{where}.tool_calls[0].function.name", call["function"].get("name"))

    def check_part(self, where: str, role: str, part: dict) -> None:
        kind = part.get("type")
        if kind not in self.parts or (role != "user" and kind not in ("text", "refusal")):
            self.refuse(
                f"Invalid value: '{kind}'. Supported values are: {', '.join(map(repr, self.parts))}.", "invalid_value", where
            )
        if kind == "text" and not isinstance(part.get("text"), str):
            self.refuse(f"Missing required parameter: '{where}.text'.", "missing_required_parameter", f"{where}.text")
        if kind == "image_url":
            url = part["image_url"].get("url", "") if isinstance(part["image_url"], dict) else ""
            if not re.match(r"https?://|data:image/(png|jpeg|gif|webp);base64,", url):
                self.refuse("Invalid MIME type. Only image types are supported.", "invalid_image_format")

    def check_name(self, where: str, name: Any) -> None:
        if not isinstance(name, str) or not name:
            self.refuse(f"Missing required parameter: '{where}'.", "missing_required_parameter", where)
        if len(name) > 64:
            text = f"string too long. Expected a string with maximum length 64, but got a string with length {len(name)} instead."
            self.refuse(f"Invalid '{where}': {text}", "string_above_max_length", where)
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", name):
            text = "string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
            self.refuse(f"Invalid '{where}': {text}", "invalid_value", where)

    def check_tools(self, body: dict) -> None:
        if body.get("tools") == []:
            self.refuse("Invalid 'tools': empty array. Expected an array with minimum length 1.", "empty_array", "tools")
        names = []
        for index, tool in enumerate(body.get("tools") or []):
            where = f"tools[{index}]"
            if tool.get("type") != "function":
                self.refuse(
                    f"Invalid value: '{tool.get('type')}'. Supported values are: 'function' and 'custom'.", "invalid_value"
                )
            extra = tool.keys() - {"type", "function", "cache_control"}
            if extra:
                self.refuse(f"Unknown parameter: '{where}.{sorted(extra)[0]}'.", "unknown_parameter", where)
            self.check_name(f"{where}.function.name", tool["function"].get("name"))
            schema = tool["function"].get("parameters", {"type": "object"})
            if schema.get("type") != "object":
                text = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
                self.refuse(
                    f"Invalid schema for function '{tool['function']['name']}': {text}", "invalid_function_parameters", where
                )
            names.append(tool["function"]["name"])
        choice = body.get("tool_choice")
        if isinstance(choice, dict):
            if choice.get("type") != "function" or choice.get("function", {}).get("name") not in names:
                self.refuse("Tool choice 'function' not found in 'tools' parameter.", "invalid_value", "tool_choice")
        elif choice not in (None, *self.choices):
            self.refuse(f"Invalid value: '{choice}'. Supported values are: 'none', 'auto', and 'required'.", "invalid_value")

    choices: tuple[str, ...] = ("none", "auto", "required")

    def check_history(self, body: dict, model: str) -> None:
        """What a brand wants back of its own earlier answers."""

    # -- what the model says

    def thinks(self, body: dict, model: str) -> bool:
        """Whether the answer shows its reasoning. OpenAI's chat never does."""
        return False

    def tools_of(self, body: dict) -> Tools:
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or []}
        choice = body.get("tool_choice") or "auto"
        if isinstance(choice, dict):
            choice = f"[{choice['function']['name']}]"
        choice = "any" if choice == "required" else choice
        answered = rounds_of([bool(message.get("tool_calls")) for message in body["messages"] if message["role"] == "assistant"])
        return Tools(schemas, choice, body.get("parallel_tool_calls") is not False, answered)

    def schema_of(self, body: dict) -> Any:
        form = body.get("response_format") or {}
        return {"json_schema": (form.get("json_schema") or {}).get("schema"), "json_object": True}.get(form.get("type"))

    def usage_of_turn(self, turn: Turn) -> dict:
        return {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 3 if turn.reasoning else 0, "audio_tokens": 0},
        }

    def message(self, turn: Turn) -> dict:
        message: dict = {"role": "assistant", "content": turn.text or None} | self.empty_members
        if turn.reasoning:
            message[self.reasoning_member] = turn.reasoning
        if turn.calls:
            message["tool_calls"] = [self.call(turn, at) for at in range(len(turn.calls))]
        return message

    def call(self, turn: Turn, at: int) -> dict:
        call = turn.calls[at]
        function = {"name": call.name, "arguments": json.dumps(call.arguments)}
        return {"id": call.id, "type": "function", "function": function}

    def stream(self, head: dict, turn: Turn, body: dict, usage: dict) -> Answer:
        tells = (body.get("stream_options") or {}).get("include_usage")
        blank = {"usage": None} if tells else {}

        def chunk(delta: dict, finish: str | None = None) -> dict:
            return head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]} | blank

        chunks = [chunk({"role": "assistant", "content": None if turn.calls else ""} | self.empty_delta)]
        chunks += [chunk({self.reasoning_member: piece}) for piece in torn(turn.reasoning, 12) if piece]
        for at in range(len(turn.calls)):
            chunks += [chunk({"tool_calls": [piece]}) for piece in self.call_pieces(turn, at)]
        chunks += [chunk({"content": piece}) for piece in torn(turn.text, 6) if piece]
        chunks.append(chunk({}, self.finish_of_calls if turn.calls else "stop"))
        if tells:
            chunks.append(head | {"choices": [], "usage": usage})
        frames = [f": {self.comment}{self.newline * 2}"] * 2 if self.comment else []
        frames += [f"data: {json.dumps(each, ensure_ascii=False)}{self.newline * 2}" for each in chunks]
        frames.append(f"data: [DONE]{self.newline * 2}")
        return Answer(200, [frame.encode() for frame in frames], "text/event-stream; charset=utf-8")

    def call_pieces(self, turn: Turn, at: int) -> list[dict]:
        """A tool call as the entries of a stream: its head, then its arguments, torn anywhere."""
        whole = self.call(turn, at)
        arguments = whole["function"].pop("arguments")
        head = whole | {"index": at, "function": whole["function"] | {"arguments": ""}}
        return [head, *({"index": at, "function": {"arguments": piece}} for piece in torn(arguments))]


def reasons(model: str) -> bool:
    """Whether OpenAI's model of this name is one of those that reason."""
    return bool(re.match(r"o[134](-|$)", model)) or (model.startswith("gpt-5") and "chat" not in model)
