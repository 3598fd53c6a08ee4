"""One gateway before strict doubles of every format, and the processes of the clients.

The clients that `make test` does not install are run by `make test-clients` alone, which says so in `TOLLGATE_ALL_CLIENTS`.
"""

from __future__ import annotations

import os
from typing import Callable, Iterator

import pytest

from gateway import Gateway, deployment
from mock_provider.strict import (
    Strict,
    StrictAnthropic,
    StrictDeepSeek,
    StrictGemini,
    StrictGroq,
    StrictMistral,
    StrictOllama,
    StrictOpenAi,
    StrictVllm,
)

from clients.catalogue import Client
from clients.environments import Driver
from clients.plays import check, stage

collect_ignore = [] if os.environ.get("TOLLGATE_ALL_CLIENTS") else ["test_libraries.py", "test_node.py", "test_commands.py"]

MODELS = {
    "openai": (StrictOpenAi, "gpt-4o", "gpt-5-mini"),
    "anthropic": (StrictAnthropic, "claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20250929"),
    "ollama": (StrictOllama, "qwen3", "qwen3"),
    "gemini": (StrictGemini, "gemini-3-pro-preview", "gemini-3-pro-preview"),
    "deepseek": (StrictDeepSeek, "deepseek-chat", "deepseek-reasoner"),
    "groq": (StrictGroq, "llama-3.3-70b-versatile", "openai/gpt-oss-120b"),
    "mistral": (StrictMistral, "mistral-large-latest", "magistral-medium-latest"),
    "vllm": (StrictVllm, "qwen3-32b", "qwen3-32b"),
}
"""What is behind each format: the double, its model, and one that thinks."""


@pytest.fixture(scope="session")
def session_doubles() -> Iterator[dict[str, Strict]]:
    doubles = {format: kind() for format, (kind, _, _) in MODELS.items()}
    yield doubles
    for double in doubles.values():
        double.stop()


@pytest.fixture
def doubles(session_doubles: dict[str, Strict]) -> dict[str, Strict]:
    """The doubles behind the gateway, fresh for this test."""
    for double in session_doubles.values():
        double.clear()
    return session_doubles


@pytest.fixture(scope="session")
def clients_gateway(session_doubles: dict[str, Strict], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A group `<format>` and a group `<format>-thinking` of each format."""
    groups = []
    for format, (_, model, thinker) in MODELS.items():
        double = session_doubles[format]
        groups += [deployment(format, double.params(model)), deployment(f"{format}-thinking", double.params(thinker))]
    config = {
        "model_list": groups,
        "litellm_settings": {"drop_params": True},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    gateway = Gateway(tmp_path_factory.mktemp("clients"), config)
    yield gateway
    gateway.stop()


@pytest.fixture(scope="session")
def drivers() -> Iterator[Callable[[str], Driver]]:
    """The driver of an environment, started when it is first asked for, and again when it has died."""
    started: dict[str, Driver] = {}

    def driver(name: str) -> Driver:
        if name not in started or started[name].process.poll() is not None:
            started[name] = Driver(name)
        return started[name]

    yield driver
    for each in started.values():
        each.stop()


@pytest.fixture
def play(
    clients_gateway: Gateway, doubles: dict[str, Strict], drivers: Callable[[str], Driver]
) -> Callable[[Client, str, str], None]:
    """Has a client play a scenario over a format, and looks at what came of it."""

    def run(client: Client, format: str, scenario: str) -> None:
        double = doubles[format]
        stage(double, scenario)
        model = f"{format}-thinking" if scenario.startswith("thinking") else format
        asked = {"client": client.name, "scenario": scenario, "model": model}
        result = drivers(client.environment).ask(**asked, url=clients_gateway.url, key="sk-anything")
        check(double, client, scenario, result)

    return run
