"""Ollama's own API, as strict as a server of one model that calls tools and one that does not."""

from __future__ import annotations

from typing import Any

from ..model import COMPLETION_TOKENS, PROMPT_TOKENS
from ..ollama_wire import OllamaMock
from .model import Strict, Tools, refuse_unless, rounds_of, torn

THINKERS = ("qwen3", "deepseek-r1", "gpt-oss")
WITHOUT_TOOLS = ("llama2", "gemma2")


class StrictOllama(Strict, OllamaMock):
    """POST /api/chat."""

    def lines(self, body: dict) -> list[dict]:
        model = body["model"]
        if body.get("tools") and model.startswith(WITHOUT_TOOLS):
            refuse_unless(False, 400, f"registry.ollama.ai/library/{model}:latest does not support tools")
        if body.get("think") and not model.startswith(THINKERS):
            refuse_unless(False, 400, f'"{model}" does not support thinking')
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or []}
        answered = rounds_of([bool(message.get("tool_calls")) for message in body["messages"] if message["role"] == "assistant"])
        turn = self.turn(Tools(schemas, answered=answered), schema_of(body), bool(body.get("think")))
        stamp = {"model": model, "created_at": "2026-01-01T00:00:00.5Z"}
        messages: list[dict] = [{"content": "", "thinking": piece} for piece in torn(turn.reasoning, 12) if piece]
        for call in turn.calls:
            # A call comes whole.
            function = {"index": len(messages), "name": call.name, "arguments": call.arguments}
            messages.append({"content": "", "tool_calls": [{"id": call.id, "function": function}]})
        messages += [{"content": piece} for piece in torn(turn.text, 6) if piece]
        lines = [stamp | {"message": {"role": "assistant"} | message, "done": False} for message in messages]
        counts = {"prompt_eval_count": PROMPT_TOKENS, "eval_count": COMPLETION_TOKENS, "total_duration": 9, "eval_duration": 5}
        end = {"message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": True}
        return [*lines, stamp | end | counts]


def schema_of(body: dict) -> Any:
    form = body.get("format")
    return True if form == "json" else form
