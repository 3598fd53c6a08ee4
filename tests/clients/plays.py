"""What each scenario needs of the double, and what must have come of it."""

from __future__ import annotations

from typing import Any

from mock_provider.model import PROMPT_TOKENS
from mock_provider.strict import Strict
from mock_provider.strict.model import REASONING, value_for

from clients.catalogue import Client

PLACE = {"city": value_for({"type": "string"})}
CALLS = [["weather", PLACE], ["time", PLACE], ["weather", PLACE]]
"""Two calls at once, then one more after their results."""
FORECAST = {"city": PLACE["city"], "days": 3, "kinds": [PLACE["city"]]}
SHOW_REASONING = ("anthropic", "ollama", "deepseek", "vllm")
"""Providers that say what they think."""
WITHOUT_SCHEMAS = ("deepseek",)
"""Providers that take no JSON schema, and say so."""


def words_of(error: Any) -> str:
    """The message of a provider's error."""
    error = error[0] if isinstance(error, list) else error
    return error["error"] if isinstance(error["error"], str) else error["error"]["message"]


def stage(double: Strict, scenario: str) -> None:
    """Gets the double ready."""
    double.rounds = 2 if "tools" in scenario else 1
    if scenario == "handoff":
        double.plan = [[("weather", PLACE), ("time", PLACE)], [("transfer_to_second", {})]]
    elif scenario.startswith("error"):
        double.script(double.error("rate_limit"))


def check(double: Strict, client: Client, scenario: str, result: dict) -> None:
    """The client has what the model said, and the provider refused nothing."""
    if scenario in ("structured", "structured_streamed") and double.wire in WITHOUT_SCHEMAS:
        assert "This response_format type is unavailable now" in result["message"], result
        return
    # The SDK's runner of tools asks first for a conversation that the provider keeps, and learns from the refusal to send all of it.
    asks_first = client.name == "anthropic_node" and double.wire == "anthropic" and "tools" in scenario
    expected = ["400 thread: this request cannot be part of a thread"] if asks_first else []
    assert double.refused == expected, f"refused: {double.refused}; the client: {result}"
    if scenario.startswith("error"):
        assert result.get("error") == client.error, result
        said = double.error_answer("rate_limit")[1]
        assert result["status"] in (429, None) and words_of(said) in result["message"], result
        return
    assert "error" not in result, result
    if scenario == "count":
        # Who has no count of its own is not asked.
        exact = double.wire == "anthropic"
        assert result["tokens"] == PROMPT_TOKENS if exact else 60 <= result["tokens"] <= 130, result
        assert len(double.requests) == int(exact)
        return
    if scenario.startswith("structured"):
        assert result["value"] == FORECAST
        return
    assert result["text"] == double.text
    if "streamed" in scenario and "tools" not in scenario:
        assert result["pieces"] > 1
    if "tools" in scenario:
        assert result["calls"] == CALLS
    if scenario == "handoff":
        assert result["calls"] == [*CALLS[:2], ["transfer_to_second", {}]]
    if scenario.startswith("thinking") and scenario not in client.hides_reasoning and double.wire in SHOW_REASONING:
        # Each answer of the conversation thinks anew, as long as what was thought before comes back.
        is_first_alone = client.forgets_thinking and double.wire == "anthropic"
        times = 1 if is_first_alone else len(double.requests) - len(expected)
        assert result["reasoning"] == REASONING * times
