"""Fixtures: the mock providers, the gateway most tests share, and gateways of a test's own."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import uuid
from typing import Any, Callable, Iterator

import pytest

import mock_provider
from gateway import BINARY, FILTER_HOST, MASTER_KEY, Gateway, deployment, envoy_binary
from mock_provider import AnthropicMock, AzureMock, Mock, OpenAiMock


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the command or Envoy are skipped, with the reason, where it is not built."""
    missing = [] if BINARY.exists() else [f"{BINARY} is missing: run `make build`"]
    if not missing and envoy_binary() is None:
        missing = ["no Envoy: run `make envoy`, or name one in TOLLGATE_ENVOY"]
    for item in items:
        if FILTER_HOST == "native" and item.get_closest_marker("wasm"):
            item.add_marker(pytest.mark.skip(reason="about Wasm VMs"))
        if missing and item.path.name not in ("test_mocks.py", "test_strict.py"):
            item.add_marker(pytest.mark.skip(reason=missing[0]))


@dataclasses.dataclass
class Providers:
    """One mock of each wire format."""

    openai: OpenAiMock
    azure: AzureMock
    anthropic: AnthropicMock

    def __getitem__(self, wire: str) -> Mock:
        return getattr(self, wire)

    def all(self) -> list[Mock]:
        return [self.openai, self.azure, self.anthropic]


WIRES = ("openai", "azure", "anthropic")


@pytest.fixture(scope="session")
def session_providers() -> Iterator[Providers]:
    providers = Providers(OpenAiMock(), AzureMock(), AnthropicMock())
    yield providers
    for mock in providers.all():
        mock.stop()


@pytest.fixture
def providers(session_providers: Providers) -> Providers:
    """The mocks behind the shared gateway, fresh for this test."""
    for mock in session_providers.all():
        mock.clear()
    return session_providers


@pytest.fixture
def mocks() -> Iterator[Callable[..., Any]]:
    """Makes mocks of this test's own: `mocks(OpenAiMock, name="b")`."""
    made: list[Any] = []

    def make(kind: type, **arguments: Any) -> Any:
        made.append(kind(**arguments))
        return made[-1]

    yield make
    for mock in made:
        mock.stop()


POSTGRES = os.environ.get("TOLLGATE_TEST_POSTGRES")
"""The URL of a server whose user may make databases; `tests/with-postgres` starts one."""


@pytest.fixture(scope="session")
def new_postgres() -> Callable[[], str]:
    """Makes new databases: their URLs."""

    def make() -> str:
        if not POSTGRES:
            pytest.skip("no Postgres: run the tests under `tests/with-postgres`")
        name = f"e2e_{uuid.uuid4().hex}"
        done = subprocess.run(["psql", "-d", POSTGRES, "-qc", f"CREATE DATABASE {name}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return POSTGRES.rsplit("/", 1)[0] + f"/{name}"

    return make


@pytest.fixture
def postgres(new_postgres: Callable[[], str]) -> str:
    """The URL of a new database."""
    return new_postgres()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment of a gateway whose ledger keeps its books in one database, then in the other."""
    return {} if request.param == "sqlite" else {"DATABASE_URL": request.getfixturevalue("postgres")}


def shared_config(providers: Providers) -> dict:
    """Many groups, no retries, no cooldowns, no master key: one test does not disturb the next."""
    models = []
    for wire in WIRES:
        models.append(deployment(wire, providers[wire].params(), id=f"{wire}-1"))
        models.append(deployment(f"{wire}-slow", providers[wire].params() | {"timeout": 0.3}, id=f"{wire}-slow-1"))
    models += [
        deployment("openai-embed", providers.openai.params("text-embedding-3-small"), id="openai-embed-1"),
        deployment("azure-embed", providers.azure.params("embed"), id="azure-embed-1", base_model="text-embedding-3-small"),
        deployment(
            "openai-text",
            providers.openai.params("gpt-3.5-turbo-instruct") | {"model": "text-completion-openai/gpt-3.5-turbo-instruct"},
            id="openai-text-1",
        ),
        deployment(
            "priced",
            providers.openai.params("no-such-price") | {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01},
            id="priced-1",
        ),
        deployment("from-env", providers.openai.params() | {"api_key": "os.environ/MOCK_KEY_FROM_ENV"}, id="from-env-1"),
        deployment("team/with/slashes", providers.openai.params(), id="slashes-1"),
        deployment("wild/*", providers.openai.params() | {"model": "openai/*"}),
    ]
    return {
        "model_list": models,
        "litellm_settings": {"drop_params": True},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True, "model_group_alias": {"alias-of-openai": "openai"}},
    }


SECRET_FROM_ENV = mock_provider.OpenAiMock.default_key


@pytest.fixture(scope="session")
def session_gateway(session_providers: Providers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    env = {"MOCK_KEY_FROM_ENV": SECRET_FROM_ENV}
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), shared_config(session_providers), env=env)
    yield gateway
    gateway.stop()


@pytest.fixture
def gateway(session_gateway: Gateway, providers: Providers) -> Gateway:
    """The shared gateway, with fresh mocks behind it."""
    return session_gateway


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways of this test's own: `start(config, env=…)`."""
    started: list[Gateway] = []

    def make(config: dict | str | pathlib.Path | None, **arguments: Any) -> Gateway:
        started.append(Gateway(tmp_path / f"gateway-{len(started)}", config, **arguments))
        return started[-1]

    yield make
    for gateway in started:
        gateway.stop()


@pytest.fixture(scope="module")
def locked_gateway(session_providers: Providers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The shared configuration behind a master key."""
    config = shared_config(session_providers) | {"general_settings": {"master_key": MASTER_KEY}}
    gateway = Gateway(tmp_path_factory.mktemp("locked"), config, env={"MOCK_KEY_FROM_ENV": SECRET_FROM_ENV})
    yield gateway
    gateway.stop()
