"""The clients, what each is asked to do, over which formats, and what is known not to go well yet."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

FORMATS = ("openai", "anthropic", "ollama", "gemini", "deepseek")
"""The formats behind the gateway, by the name of the group."""
MORE = ("groq", "mistral", "vllm")
"""Brands with rules of their own, for the SDKs alone: what these send is what the libraries over them send."""

PLAIN = ("plain", "streamed")
TOOLS = ("tools", "tools_streamed")
THINKING = ("thinking", "thinking_streamed", "thinking_tools", "thinking_tools_streamed")
ERRORS = ("error", "error_streamed")


@dataclasses.dataclass(frozen=True)
class Client:
    """A client library."""

    name: str
    """The driver's module is `with_<name>`."""
    package: str
    """Its name in its registry, which is where its version is looked up."""
    environment: str
    scenarios: tuple[str, ...]
    error: str
    """The class of what it raises when the provider says 429."""
    hides_reasoning: tuple[str, ...] = ()
    """Scenarios in which it does not hand on what a model thought."""
    formats: tuple[str, ...] = FORMATS

    @property
    def title(self) -> str:
        return self.name.replace("_", "-")


TALK = PLAIN + TOOLS + THINKING
EVERYTHING = (*TALK, "structured", *ERRORS)

CLIENTS = (
    Client(
        "openai",
        "openai",
        "tests",
        (*EVERYTHING, "structured_streamed", "developer", "put_back"),
        "RateLimitError",
        formats=FORMATS + MORE,
    ),
    Client("anthropic", "anthropic", "tests", EVERYTHING, "RateLimitError", formats=FORMATS + MORE),
    Client("litellm", "litellm", "python", EVERYTHING, "RateLimitError"),
    Client("langchain_openai", "langchain-openai", "python", EVERYTHING, "OpenAIRateLimitError", hides_reasoning=THINKING),
    Client(
        "langchain_anthropic", "langchain-anthropic", "python", (*TALK, "structured_by_tool", *ERRORS), "AnthropicRateLimitError"
    ),
    Client(
        "instructor",
        "instructor",
        "instructor",
        ("structured", "structured_by_tool", "structured_by_tool_streamed", "error"),
        "InstructorRetryException",
    ),
    Client("pydantic_ai_openai", "pydantic-ai-slim", "python", (*EVERYTHING, "structured_by_tool"), "ModelRateLimitError"),
    Client("pydantic_ai_anthropic", "pydantic-ai-slim", "python", (*TALK, "structured_by_tool", *ERRORS), "ModelRateLimitError"),
    Client("openai_agents", "openai-agents", "python", (*EVERYTHING, "handoff"), "RateLimitError"),
    # Its runner of tools keeps only what it knows of a message.
    Client("openai_node", "openai", "node", EVERYTHING, "RateLimitError", hides_reasoning=THINKING[2:]),
    Client("anthropic_node", "@anthropic-ai/sdk", "node", EVERYTHING, "RateLimitError"),
    Client("ai_openai_compatible", "@ai-sdk/openai-compatible", "node", (*EVERYTHING, "structured_streamed"), "APICallError"),
    Client("ai_openai", "@ai-sdk/openai", "node", (*EVERYTHING, "structured_streamed"), "APICallError", hides_reasoning=THINKING),
    Client("ai_anthropic", "@ai-sdk/anthropic", "node", (*TALK, "structured_by_tool", *ERRORS), "APICallError"),
)
CLAUDE_CODE = Client("claude_code", "@anthropic-ai/claude-code", "node", ("tools", "thinking_tools"), "")
AIDER = Client("aider", "aider-chat", "aider", PLAIN, "")
"""Those that are commands."""


@dataclasses.dataclass(frozen=True)
class Known:
    """What does not go well yet. The mark is strict: who mends it takes the row out."""

    why: str
    clients: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()

    def is_about(self, client: str, format: str, scenario: str) -> bool:
        rows = ((self.clients, client), (self.formats, format), (self.scenarios, scenario))
        return all(not listed or one in listed for listed, one in rows)


ROUNDS = ("tools", "tools_streamed", "thinking_tools", "thinking_tools_streamed")
STREAMED = ("tools_streamed", "thinking_tools_streamed")
THOUGHTFUL = ("thinking_tools", "thinking_tools_streamed")

KNOWN: tuple[Known, ...] = (
    Known(
        "`reasoning` of an answer is not called `reasoning_content`",
        clients=("openai",),
        formats=("vllm",),
        scenarios=THINKING,
    ),
    Known(
        "`reasoning_effort`, made from `thinking`, is sent to a model that does not reason, with `drop_params` too",
        clients=("claude_code",),
        formats=("openai",),
        scenarios=("tools",),
    ),
    Known(
        "calls in the history of an agent without tools are refused without `modify_params`, as by LiteLLM",
        clients=("openai_agents",),
        formats=("anthropic",),
        scenarios=("handoff",),
    ),
    Known(
        "`thread`, which the SDK's runner of tools sends, is passed on, and the refusal loses the `details` that make it send "
        "the whole conversation instead",
        clients=("anthropic_node",),
        scenarios=ROUNDS,
    ),
    Known(
        "Gemini's thought signature is not part of the call's id, and these clients keep nothing of a call that they do not know",
        clients=("langchain_openai", "openai_node", "ai_openai"),
        formats=("gemini",),
        scenarios=ROUNDS,
    ),
    Known(
        "Gemini's thought signature is not part of the call's id, and LiteLLM's builder of streams keeps nothing else of it",
        clients=("litellm",),
        formats=("gemini",),
        scenarios=STREAMED,
    ),
    Known(
        "a stream of Gemini's that calls tools ends with `stop`, and the client takes that as the end of the conversation",
        clients=("openai",),
        formats=("gemini",),
        scenarios=STREAMED,
    ),
    Known(
        "thinking without a signature, as DeepSeek's is, comes back from the client as a text of the user",
        clients=("pydantic_ai_anthropic",),
        formats=("deepseek",),
        scenarios=THOUGHTFUL,
    ),
    Known(
        "a stream of thinking without a signature has no `signature_delta`, without which the client sends no thinking back",
        clients=("ai_anthropic",),
        formats=("deepseek",),
        scenarios=("thinking_tools_streamed",),
    ),
    Known(
        "the client does not send `reasoning_content` back, and nothing stands in for it",
        clients=("langchain_openai", "openai_node", "ai_openai"),
        formats=("deepseek",),
        scenarios=THOUGHTFUL,
    ),
    Known(
        "the client does not send `thinking_blocks` back, and thinking stays on in the middle of a turn with tools (LiteLLM turns "
        "it off there with `modify_params` alone)",
        clients=(
            *("langchain_openai", "pydantic_ai_openai", "openai_agents", "openai_node", "ai_openai_compatible", "ai_openai"),
        ),
        formats=("anthropic",),
        scenarios=THOUGHTFUL,
    ),
)


def marks_of(client: str, format: str, scenario: str) -> list[pytest.MarkDecorator]:
    """The mark of a case that does not go well yet."""
    reasons = [known.why for known in KNOWN if known.is_about(client, format, scenario)]
    return [pytest.mark.xfail(strict=True, reason=reasons[0])] if reasons else []


def cases(*environments: str) -> list[Any]:
    """Every scenario of the clients in these environments over every format."""
    return [
        pytest.param(
            client, format, scenario, marks=marks_of(client.name, format, scenario), id=f"{client.title}-{format}-{scenario}"
        )
        for client in CLIENTS
        if client.environment in environments
        for format in client.formats
        for scenario in client.scenarios
    ]
