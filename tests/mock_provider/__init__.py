"""Scripted model providers on raw sockets: OpenAI, Azure OpenAI, Anthropic, Ollama and text generation, with exact control of what goes over the wire.

One instance is one provider on its own port of 127.0.0.1. Each request takes the next behaviour of the mock's script, or the
default one when the script is used up, and is recorded. The mocks refuse what the real APIs refuse, so a wrong translation fails
the test that made it.
"""

from .anthropic_wire import AnthropicMock
from .certificates import Authority
from .generate_wire import GenerateMock
from .ollama_wire import OllamaMock
from .openai_wire import AzureMock, OpenAiMock
from .server import (
    WAIT,
    Behaviour,
    Gate,
    Mock,
    Recorded,
    RefusedPort,
    chunked,
    closing,
    cut,
    gated,
    gzip,
    hang,
    ok,
    other_form,
    packed,
    reset,
    split,
    status,
    trailers,
    typed,
)

__all__ = [
    "WAIT",
    "AnthropicMock",
    "Authority",
    "AzureMock",
    "Behaviour",
    "Gate",
    "GenerateMock",
    "Mock",
    "OllamaMock",
    "OpenAiMock",
    "Recorded",
    "RefusedPort",
    "chunked",
    "closing",
    "cut",
    "gated",
    "gzip",
    "hang",
    "ok",
    "other_form",
    "packed",
    "reset",
    "split",
    "status",
    "trailers",
    "typed",
]
