"""OpenAI and Azure OpenAI: chat, text completions, embeddings and models."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from .model import COMPLETION_TOKENS, GATEWAY_ONLY, PROMPT_TOKENS, arguments_for, cut, need, parse_object
from .server import Answer, Mock, Recorded


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

    def usage_of(self, body: dict) -> dict:
        """What the answer to this body is said to have used."""
        return self.usage(body) if self.usage else self.USAGE

    def route(self, request: Recorded) -> str:
        need(request.path.startswith("/v1/"), f"Invalid URL ({request.method} {request.path})", 404)
        return request.path.removeprefix("/v1")

    def authorize(self, request: Recorded) -> None:
        given = [value for name, value in request.headers if name == "authorization"]
        need(given == [f"Bearer {self.key}"], "Incorrect API key provided.", 401)

    def answer(self, request: Recorded) -> Answer:
        route = self.route(request)
        self.authorize(request)
        if route == "/models" and request.method == "GET":
            return _json({"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model", "owned_by": "mock"}]})
        need(request.method == "POST", f"Not allowed to {request.method} on {request.path}.", 405)
        need((request.header("content-type") or "").startswith("application/json"), "Content-Type must be application/json.", 415)
        body = parse_object(request)
        extra = GATEWAY_ONLY & body.keys()
        need(not extra, f"Unrecognized request argument supplied: {', '.join(sorted(extra))}")
        answers = {"/chat/completions": self.chat, "/completions": self.completions, "/embeddings": self.embeddings}
        need(route in answers, f"Invalid URL (POST {request.path})", 404)
        return answers[route](body)

    def model(self, body: dict) -> str:
        need(isinstance(body.get("model"), str) and body["model"], "you must provide a model parameter")
        return body["model"]

    # -- chat

    def chat(self, body: dict) -> Answer:
        model = self.model(body)
        check_chat(body)
        message, finish = self.say(body)
        head = {"id": "chatcmpl-mock1", "created": 1754000000, "model": model, "system_fingerprint": "fp_mock"}
        if body.get("stream"):
            usage = (body.get("stream_options") or {}).get("include_usage")
            usage = usage and self.usage_of(body)
            return _sse(self.chat_chunks(head | {"object": "chat.completion.chunk"}, message, finish, usage))
        need("stream_options" not in body, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return _json(head | {"object": "chat.completion", "choices": [choice], "usage": self.usage_of(body)})

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
            for piece in cut(call["function"]["arguments"], 3):
                chunks.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        if message.get("content"):
            chunks += [chunk({"content": piece}) for piece in cut(message["content"], 5)]
        chunks.append(chunk({}, finish))
        if usage:
            chunks.append(head | {"choices": [], "usage": usage})
        return chunks

    # -- the others

    def completions(self, body: dict) -> Answer:
        model = self.model(body)
        need("messages" not in body, "Unrecognized request argument supplied: messages")
        need(isinstance(body.get("prompt"), (str, list)), "you must provide a prompt")
        head = {"id": "cmpl-mock1", "object": "text_completion", "created": 1754000000, "model": model}

        def choice(text: str, finish: str | None) -> dict:
            return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}

        if body.get("stream"):
            chunks = [head | {"choices": [choice(piece, None)]} for piece in cut(self.text, 4)]
            chunks.append(head | {"choices": [choice("", "stop")]})
            if (body.get("stream_options") or {}).get("include_usage"):
                chunks.append(head | {"choices": [], "usage": self.usage_of(body)})
            return _sse(chunks)
        return _json(head | {"choices": [choice(self.text, "stop")], "usage": self.usage_of(body)})

    def embeddings(self, body: dict) -> Answer:
        model = self.model(body)
        given = body.get("input")
        need(isinstance(given, str) or (isinstance(given, list) and given), "'$.input' is invalid.")
        many = len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1
        encoding = body.get("encoding_format", "float")
        need(encoding in ("float", "base64"), f"Invalid encoding_format: {encoding}")
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
        need(parts[:3] == ["", "openai", "deployments"] and len(parts) == 5 and parts[3], "Resource not found", 404)
        need(request.query.get("api-version"), "Resource not found (api-version is missing)", 404)
        return "/" + parts[4]

    def authorize(self, request: Recorded) -> None:
        keys = [value for name, value in request.headers if name == "api-key"]
        tokens = [value for name, value in request.headers if name == "authorization"]
        good = (keys == [self.key] and not tokens) or (not keys and tokens == [f"Bearer {self.key}"])
        need(good, "Access denied due to invalid subscription key or wrong API endpoint.", 401)

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
    need(not foreign, f"Unrecognized request argument supplied: {', '.join(sorted(foreign))}")
    messages = body.get("messages")
    need(isinstance(messages, list) and messages, "Invalid 'messages': empty array.")
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role")
        need(role in ("system", "developer", "user", "assistant", "tool", "function"), f"Invalid value for {where}.role: {role}")
        if role == "tool":
            need(message.get("tool_call_id") in open_calls, f"{where}: 'tool' must answer a preceding message with 'tool_calls'.")
            open_calls.discard(message["tool_call_id"])
        else:
            need(not open_calls, f"{where}: tool_call_ids without an answer: {sorted(open_calls)}")
        for call in message.get("tool_calls") or []:
            need(role == "assistant" and call.get("type") == "function", f"{where}: bad tool call")
            need(isinstance(call["function"].get("arguments"), str), f"{where}: arguments must be a string")
            json.loads(call["function"]["arguments"])
            open_calls.add(call["id"])
        content = message.get("content")
        need(content is not None or role == "assistant", f"Invalid value for {where}.content: expected a string, got null.")
        for part in content if isinstance(content, list) else []:
            need(part.get("type") in ("text", "image_url", "input_audio", "file", "refusal"), f"{where}: part {part.get('type')}")
            if part["type"] == "image_url":
                need(
                    isinstance(part["image_url"], dict) and part["image_url"].get("url"), f"{where}: image_url must be an object"
                )
    for tool in body.get("tools") or []:
        need(tool.get("type") == "function" and tool.get("function", {}).get("name"), "Invalid tool.")
        need("input_schema" not in tool, "Unknown parameter: tools[0].input_schema")
    choice = body.get("tool_choice")
    if choice is not None:
        named = isinstance(choice, dict) and choice.get("type") == "function" and choice.get("function", {}).get("name")
        need(named or choice in ("none", "auto", "required"), f"Invalid tool_choice: {choice}")
        need(body.get("tools"), "'tool_choice' is only allowed when 'tools' are specified.")


def _json(value: dict) -> Answer:
    return Answer(200, json.dumps(value, ensure_ascii=False).encode(), headers=(("x-request-id", "req-mock-1"),))


def _sse(chunks: list[dict]) -> Answer:
    frames = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks]
    return Answer(200, [*frames, b"data: [DONE]\n\n"], "text/event-stream; charset=utf-8", (("x-request-id", "req-mock-1"),))
