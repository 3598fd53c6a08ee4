"""Budgets of deployments and providers: used up they are passed over, whoever used them, and after a restart too."""

from __future__ import annotations

import signal
from typing import Callable, Iterator

import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import WAIT, OpenAiMock

COST = 0.5
"""Dollars of one call."""


@pytest.fixture
def mocks_of_two(mocks) -> Iterator[tuple[OpenAiMock, OpenAiMock]]:
    both = mocks(OpenAiMock, name="dear"), mocks(OpenAiMock, name="free")
    for mock in both:
        mock.usage = lambda _: {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    yield both


def config(dear: OpenAiMock, free: OpenAiMock, budget: int = 2, **router: object) -> dict:
    prices = {"input_cost_per_token": COST / 2, "output_cost_per_token": COST / 2}
    nothing = {"input_cost_per_token": 0, "output_cost_per_token": 0}
    # A weight of nothing: the second is for when the first is out.
    models = [
        deployment("m", dear.params() | prices | {"max_budget": budget * COST, "budget_duration": "30d", "weight": 1}, id="dear"),
        deployment("m", free.params() | nothing | {"weight": 0}, id="free"),
    ]
    return {
        "model_list": models,
        "router_settings": {"num_retries": 0, "disable_cooldowns": True} | router,
        "general_settings": {"master_key": MASTER_KEY},
    }


def served_by(gateway: Gateway) -> str:
    answer = gateway.chat("m", headers=bearer(MASTER_KEY), max_tokens=1)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-litellm-model-id"]


def test_a_budget_outlives_its_gateway(start: Callable[..., Gateway], mocks_of_two, database) -> None:
    dear, _ = mocks_of_two
    gateway = start(config(*mocks_of_two, budget=100), env=database)
    # One call that takes all of it.
    dear.usage = lambda _: {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400}
    assert [served_by(gateway) for _ in range(3)] == ["dear", "free", "free"]
    wait_until(lambda: gateway.manage("/global/spend")["spend"] >= 100 * COST, "the call in the ledger")
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(WAIT) == 0
    # Without what the ledger knows, a hundred of these would be let in.
    dear.usage = lambda _: {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    again = start(config(*mocks_of_two, budget=100), env=database, state=gateway.state, port=gateway.port)
    wait_until(lambda: served_by(again) == "free", "the ledger's total")
    assert [served_by(again) for _ in range(4)] == ["free"] * 4
    assert len(dear.requests) < 50
    # Before the first one takes the folder of both away.
    again.stop()


def test_a_budget_counts_on_all_gateways(start: Callable[..., Gateway], mocks_of_two, postgres: str) -> None:
    nodes = [start(config(*mocks_of_two), env={"DATABASE_URL": postgres}) for _ in range(2)]
    assert [served_by(nodes[0]) for _ in range(3)] == ["dear", "dear", "free"]
    wait_until(lambda: served_by(nodes[1]) == "free", "the other gateway's spend")


def test_a_providers_budget_is_shown(start: Callable[..., Gateway], mocks_of_two) -> None:
    dear, free = mocks_of_two
    gateway = start(config(dear, free, provider_budget_config={"openai": {"budget_limit": 3 * COST, "time_period": "1d"}}))
    assert [served_by(gateway) for _ in range(3)] == ["dear", "dear", "free"]
    shown = wait_until(
        lambda: (b := gateway.manage("/provider/budgets")["providers"]["openai"])["spend"] > COST and b, "the provider's spend"
    )
    assert (shown["budget_limit"], shown["time_period"], shown["spend"]) == (3 * COST, "1d", 2 * COST)
