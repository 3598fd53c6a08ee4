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
    forgets_thinking: bool = False
    """It sends no `thinking_blocks` back, so a turn with tools that Anthropic's model has begun thinking goes on without."""
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
    Client("anthropic", "anthropic", "tests", (*EVERYTHING, "count"), "RateLimitError", formats=FORMATS + MORE),
    Client("litellm", "litellm", "python", EVERYTHING, "RateLimitError"),
    Client("langchain_openai", "langchain-openai", "python", EVERYTHING, "OpenAIRateLimitError", hides_reasoning=THINKING),
    Client(
        "langchain_anthropic", "langchain-anthropic", "python", (*TALK, "structured_by_tool", *ERRORS, "count"), "AnthropicRateLimitError"
    ),
    Client(
        "instructor",
        "instructor",
        "instructor",
        ("structured", "structured_by_tool", "structured_by_tool_streamed", "error"),
        "InstructorRetryException",
    ),
    Client(
        "pydantic_ai_openai",
        "pydantic-ai-slim",
        "python",
        (*EVERYTHING, "structured_by_tool"),
        "ModelRateLimitError",
        forgets_thinking=True,
    ),
    Client("pydantic_ai_anthropic", "pydantic-ai-slim", "python", (*TALK, "structured_by_tool", *ERRORS), "ModelRateLimitError"),
    Client("openai_agents", "openai-agents", "python", (*EVERYTHING, "handoff"), "RateLimitError", forgets_thinking=True),
    # Its runner of tools keeps only what it knows of a message.
    Client("openai_node", "openai", "node", EVERYTHING, "RateLimitError", hides_reasoning=THINKING[2:]),
    Client("anthropic_node", "@anthropic-ai/sdk", "node", (*EVERYTHING, "count"), "RateLimitError"),
    Client(
        "ai_openai_compatible",
        "@ai-sdk/openai-compatible",
        "node",
        (*EVERYTHING, "structured_streamed"),
        "APICallError",
        forgets_thinking=True,
    ),
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


KNOWN: tuple[Known, ...] = ()


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
