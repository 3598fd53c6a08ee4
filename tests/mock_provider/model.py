"""What the mocks' model says, and how a wire format refuses a request."""

from __future__ import annotations

import json
from typing import Any

from .server import Recorded, Refused


def arguments_for(schema: dict | None) -> dict:
    """A value for every property of an object schema."""
    values = {"string": "Oslo", "integer": 3, "number": 1.5, "boolean": True, "array": [], "object": {}}
    properties = (schema or {}).get("properties", {})
    return {name: values.get(inner.get("type", "string"), "Oslo") for name, inner in properties.items()}


def cut(text: str, count: int) -> list[str]:
    """The text in at most `count` pieces."""
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


def need(condition: Any, message: str, code: int = 400) -> None:
    """Refuses the request unless the condition holds."""
    if not condition:
        raise Refused(code, message)


def parse_object(request: Recorded) -> dict:
    """The body as a JSON object."""
    try:
        body = json.loads(request.body)
    except ValueError:
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    need(isinstance(body, dict), "We expected a JSON object.")
    return body


PROMPT_TOKENS, COMPLETION_TOKENS = 11, 7
"""The usage every mock reports."""

GATEWAY_ONLY = {
    "num_retries", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "disable_fallbacks", "timeout",
    "request_timeout", "stream_timeout", "litellm_metadata", "mock_response", "mock_timeout", "mock_testing_fallbacks",
    "mock_testing_context_fallbacks", "mock_testing_content_policy_fallbacks", "drop_params", "additional_drop_params",
    "allowed_openai_params", "tags", "cache", "api_key", "api_base", "base_url", "extra_body", "extra_headers",
    "model_info", "priority", "rpm", "tpm", "weight", "cooldown_time", "input_cost_per_token", "output_cost_per_token",
}  # fmt: skip
"""Parameters that speak to the gateway and that no provider knows."""
