"""Ollama's own API: an object on each line of a stream, settings under `options`, pictures as base64."""

from __future__ import annotations

import base64
import functools
import json
import operator

from .model import COMPLETION_TOKENS, PROMPT_TOKENS, arguments_for, cut, need, parse_object
from .server import Answer, Mock, Recorded


class OllamaMock(Mock):
    """POST /api/chat, buffered and streamed."""

    wire = "ollama"
    default_key = "ollama-mock-key-77"

    MEMBERS = {"model", "messages", "tools", "format", "options", "stream", "keep_alive", "think", "template"}
    OPTIONS = {
        "min_p", "mirostat", "mirostat_eta", "mirostat_tau", "num_batch", "num_ctx", "num_gpu", "num_keep", "num_predict",
        "num_thread", "repeat_last_n", "repeat_penalty", "seed", "stop", "temperature", "top_k", "top_p", "typical_p",
    }  # fmt: skip

    @property
    def base(self) -> str:
        return self.origin

    def params(self, model: str = "llama3.2") -> dict:
        return {"model": f"ollama_chat/{model}", "api_base": self.base, "api_key": self.key}

    def answer(self, request: Recorded) -> Answer:
        need(request.method == "POST" and request.path == "/api/chat", "404 page not found", 404)
        need(request.header("authorization") == f"Bearer {self.key}", "unauthorized", 401)
        body = parse_object(request)
        extra = body.keys() - self.MEMBERS
        need(not extra, f"unknown members {sorted(extra)}")
        need(isinstance(body.get("model"), str) and body["model"], "model is required")
        extra = body.get("options", {}).keys() - self.OPTIONS
        need(not extra, f"invalid options {sorted(extra)}")
        stop = body.get("options", {}).get("stop", [])
        need(isinstance(stop, list), 'option "stop" must be of type array')
        form = body.get("format", "json")
        need(form == "json" or isinstance(form, dict), "invalid format: expected \"json\" or a JSON Schema")
        need(isinstance(body.get("think", True), bool), "think must be a boolean")
        for message in body.get("messages") or []:
            self.check(message)
        for tool in body.get("tools") or []:
            need(tool.get("type") == "function" and isinstance(tool.get("function"), dict), "invalid tool")
        # Without a word it streams, as the real one.
        lines = self.lines(body)
        if body.get("stream", True):
            return Answer(200, [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines], "application/x-ndjson")
        messages = [line["message"] for line in lines]
        whole = {"role": "assistant", "content": "".join(message["content"] for message in messages)}
        for name in ("tool_calls", "thinking"):
            found = [message[name] for message in messages if name in message]
            if found:
                whole[name] = functools.reduce(operator.add, found)
        answer = lines[-1] | {"message": whole}
        return Answer(200, json.dumps(answer, ensure_ascii=False).encode(), "application/json; charset=utf-8")

    def check(self, message: dict) -> None:
        extra = message.keys() - {"role", "content", "images", "tool_calls", "tool_name", "thinking"}
        need(not extra, f"unknown members of a message {sorted(extra)}")
        need(message.get("role") in ("system", "user", "assistant", "tool"), f"invalid role {message.get('role')}")
        need(isinstance(message.get("content"), str), "json: cannot unmarshal array into Go struct field of type string")
        for image in message.get("images", []):
            base64.b64decode(image, validate=True)
        for call in message.get("tool_calls", []):
            need(isinstance(call["function"]["arguments"], dict), "json: cannot unmarshal string into api.ToolCallFunctionArguments")

    def lines(self, body: dict) -> list[dict]:
        """What the model says, line by line."""
        stamp = {"model": body["model"], "created_at": "2026-01-01T00:00:00.5Z"}
        messages = [{"content": piece} for piece in cut(self.text, 5)]
        if body.get("think"):
            messages.insert(0, {"content": "", "thinking": "Hm."})
        if body.get("tools") and body["messages"][-1]["role"] != "tool":
            functions = [tool["function"] for tool in body["tools"]]
            calls = [
                {"function": {"name": function["name"], "arguments": arguments_for(function.get("parameters"))}}
                for function in functions
            ]
            messages = [{"content": "", "tool_calls": [call]} for call in calls]
        lines = [stamp | {"message": {"role": "assistant"} | message, "done": False} for message in messages]
        counts = {"prompt_eval_count": PROMPT_TOKENS, "eval_count": COMPLETION_TOKENS, "total_duration": 9, "eval_duration": 5}
        end = {"message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": True}
        return [*lines, stamp | end | counts]

    def refusal(self, code: int, message: str) -> dict:
        return {"error": message}

    def error_answer(self, kind: str) -> tuple[int, dict]:
        rows = {
            "bad_request": (400, "invalid options: top_q"),
            "context_window": (400, "the input length exceeds the context length"),
            "auth": (401, "unauthorized"),
            "not_found": (404, "model 'nope' not found"),
            "rate_limit": (429, "too many requests"),
            "server": (500, "model runner has unexpectedly stopped"),
            "unavailable": (503, "server busy, please try again. maximum pending requests exceeded"),
        }
        code, message = rows[kind]
        return code, {"error": message}
