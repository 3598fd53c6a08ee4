"""Routing strategies, limits, tags and budgets of deployments: two workers, real requests, and what the providers saw of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import Gate, OpenAiMock, gated
from mock_provider.fixtures import one_token_each
from traffic import Heard, chat, chats, fire

STRATEGIES = ("least-busy", "usage-based-routing", "usage-based-routing-v2", "latency-based-routing", "cost-based-routing")
RATED = STRATEGIES[1:]
"""Those that mind requests a minute by themselves; least-busy does with `enable_pre_call_checks`."""


def three(mocks: Any) -> list[OpenAiMock]:
    return [mocks(OpenAiMock, name=name) for name in ("a", "b", "c")]


def config(strategy: str, models: list[dict], **router: Any) -> dict:
    settings = {"routing_strategy": strategy, "num_retries": 0, "disable_cooldowns": True}
    return {"model_list": models, "router_settings": settings | router}


def group(providers: list[OpenAiMock], *params: dict) -> list[dict]:
    """A deployment of the group `m` at each provider, with its own parameters."""
    params = params or ({},) * len(providers)
    return [deployment("m", mock.params() | own, id=mock.name) for mock, own in zip(providers, params, strict=True)]


def asked(*mocks: OpenAiMock) -> list[int]:
    return [len(mock.requests) for mock in mocks]


def statuses(answers: list[Heard]) -> Counter:
    return Counter(answer.status for answer in answers)


# ---------------------------------------------------------------------------------------------------------------- distribution


def test_chance_goes_by_weight(start, mocks):
    providers = three(mocks)
    gateway = start(config("simple-shuffle", group(providers, {"weight": 7}, {"weight": 2}, {"weight": 1})))
    assert statuses(chats(gateway, 2_000, 8, "m")) == {200: 2_000}
    # Five standard deviations are 102, 89 and 67.
    for count, expected, most in zip(asked(*providers), (1_400, 400, 200), (102, 89, 67), strict=True):
        assert abs(count - expected) <= most, asked(*providers)


def test_least_busy_goes_round_a_provider_that_is_held_up(start, mocks):
    """One answer is held back: as long as it is, whoever asks alone goes to the others."""
    providers = three(mocks)
    gateway = start(config("least-busy", group(providers)))
    gate = Gate()
    providers[0].script(gated(gate))

    def ask(connection: Any, turn: int) -> Heard:
        if turn:
            gate.wait_reached()
        answer = chat(connection, "m")
        # Nobody is busy: chance decides, so the one that is to be held up may have to be asked for more than once.
        while not turn and not asked(providers[0])[0]:
            answer = chat(connection, "m")
        if turn == 1_999:
            gate.open()
        return answer

    # One holds, one asks: the held one counts 1, the others 0.
    answers = fire(gateway, 2_000, 2, ask)
    gate.open()
    assert statuses(answers) == {200: 2_000}
    held, *others = asked(*providers)
    assert held == 1 and min(others) > 800, (held, others)


def test_least_busy_shares_by_what_is_in_flight(start, mocks):
    providers = three(mocks)
    for mock in providers:
        mock.delay = (0.01, 0.02)
    gateway = start(config("least-busy", group(providers)))
    assert statuses(chats(gateway, 2_000, 12, "m")) == {200: 2_000}
    # 12 at a time on three: never more than four at one, but for workers that count at the same instant.
    assert max(mock.peak for mock in providers) <= 6, [mock.peak for mock in providers]
    assert min(asked(*providers)) > 300


@pytest.mark.parametrize("strategy", ["usage-based-routing", "usage-based-routing-v2"])
def test_usage_is_shared_out(start, mocks, strategy):
    """Tokens count, not requests: who answers with four times as many is asked a quarter as often."""
    providers = three(mocks)
    for mock, tokens in zip(providers, (10, 10, 40), strict=True):
        mock.usage = lambda _, tokens=tokens: {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens}
    gateway = start(config(strategy, group(providers)))
    assert statuses(chats(gateway, 2_000, 4, "m")) == {200: 2_000}
    a, b, c = asked(*providers)
    # 889, 889 and 222 but for the turn of the minute, when all begin anew, and what was in flight.
    assert abs(a - b) <= 60 and 160 < c < 300, (a, b, c)


def test_the_quickest_is_asked(start, mocks):
    """A deployment that answers later by a fifth of a second is asked only until that is known."""
    providers = three(mocks)
    providers[1].delay = providers[2].delay = (0.2, 0.2)
    gateway = start(config("latency-based-routing", group(providers)))
    assert statuses(chats(gateway, 2_000, 4, "m")) == {200: 2_000}
    a, b, c = asked(*providers)
    assert a >= 1_900 and b >= 1 and c >= 1, (a, b, c)


def test_the_cheapest_is_asked_until_its_limit(start, mocks):
    providers = three(mocks)
    prices = [{"input_cost_per_token": price, "output_cost_per_token": price} for price in (3e-6, 1e-6, 2e-6)]
    prices[1] |= {"rpm": 100, "max_parallel_requests": 1000}
    gateway = start(config("cost-based-routing", group(providers, *prices)))
    assert statuses(chats(gateway, 90, 8, "m")) == {200: 90}
    assert asked(*providers) == [0, 90, 0]
    assert statuses(chats(gateway, 1_910, 8, "m")) == {200: 1_910}
    a, b, c = asked(*providers)
    # A new minute may begin on the way, with a hundred more for the cheapest.
    assert a == 0 and 100 <= b <= 200 and c == 2_000 - b, (a, b, c)


# ---------------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_requests_a_minute_are_never_exceeded(start, mocks, strategy):
    providers = three(mocks)
    own = {"rpm": 20, "max_parallel_requests": 1000}
    gateway = start(config(strategy, group(providers, own, own, own), enable_pre_call_checks=True))
    answers = chats(gateway, 200, 40, "m")
    admitted = sum(asked(*providers))
    assert statuses(answers) == {200: admitted, 429: 200 - admitted}
    # One minute's worth, or two when a minute ended under way: exactly, for the last requests find nothing left.
    assert admitted == 60 or (60 < admitted <= 120), admitted
    assert all(count <= (20 if admitted == 60 else 40) for count in asked(*providers))
    for answer in answers:
        if answer.status == 429:
            assert "No deployments available for selected model" in answer.message or "over defined rpm limit=20" in answer.message
            assert int(answer.headers["retry-after"]) >= 1
    if strategy == "usage-based-routing-v2":
        assert any("'rpm_limit': 20" in answer.message for answer in answers if answer.status == 429)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_requests_wait_for_a_place(start, mocks, strategy):
    """Two at a time at each of two: 200 from 20 clients all get in, and afterwards all four places are free."""
    providers = three(mocks)[:2]
    own = {"max_parallel_requests": 2}
    gateway = start(config(strategy, group(providers, own, own)))
    for mock in providers:
        mock.delay = (0.001, 0.02)
    assert statuses(chats(gateway, 200, 20, "m")) == {200: 200}
    assert max(mock.peak for mock in providers) <= 2
    assert sum(asked(*providers)) == 200
    all_places_are_free(gateway, providers)


def all_places_are_free(gateway: Gateway, providers: list[OpenAiMock]) -> None:
    """Four go in at once and are at their providers at the same time, two at each."""
    wait_until(lambda: not any(mock.in_flight for mock in providers), "the providers to be idle")
    gate = Gate()
    for mock in providers:
        mock.clear()
        mock.default = gated(gate)

    def ask(connection: Any, turn: int) -> Heard | None:
        if turn < 4:
            return chat(connection, "m")
        for mock in providers:
            mock.wait_requests(2)
        gate.open()
        return None

    assert [answer.status for answer in fire(gateway, 5, 5, ask)[:4]] == [200] * 4
    assert asked(*providers) == [2, 2]


# ------------------------------------------------------------------------------------------------------------------------ tags


def test_tags(start, mocks):
    """By header, body, key and team; the default for everybody else; nobody when no tag fits."""
    free, paid, other = three(mocks)
    models = group([free, paid, other], {"tags": ["free"]}, {"tags": ["paid"]}, {"tags": ["default"]})
    general = {"general_settings": {"master_key": MASTER_KEY}}
    gateway = start(config("simple-shuffle", models, enable_tag_filtering=True) | general)
    team = gateway.manage("/team/new", {"metadata": {"tags": ["paid"]}})["team_id"]
    plain, of_free = gateway.new_key(), gateway.new_key(metadata={"tags": ["free"]})
    of_team = gateway.new_key(team_id=team)
    rows = [
        (plain, {"x-litellm-tags": "free"}, {}, {"a"}),
        (plain, {"x-litellm-tags": "nothing, paid"}, {}, {"b"}),
        (plain, {}, {"tags": ["paid"]}, {"b"}),
        (plain, {}, {"metadata": {"tags": ["free"]}}, {"a"}),
        (plain, {"x-litellm-tags": "free"}, {"tags": ["paid"]}, {"b"}),
        (plain, {}, {"tags": ["free", "paid"]}, {"a", "b"}),
        (plain, {}, {}, {"c"}),
        (plain, {}, {"tags": ["unheard-of"]}, {"c"}),
        (of_free, {}, {}, {"a"}),
        (of_team, {}, {}, {"b"}),
        (of_free, {}, {"tags": ["paid"]}, {"a", "b"}),
    ]
    for key, headers, body, expected in rows:
        answers = chats(gateway, 40, 4, "m", headers=bearer(key) | headers, **body)
        assert statuses(answers) == {200: 40}, (headers, body, answers[0].body)
        assert {answer.deployment for answer in answers} == expected, (headers, body)
    assert all("tags" not in request.json for mock in (free, paid, other) for request in mock.requests)


def test_no_tag_fits_and_there_is_no_default(start, mocks):
    mock = mocks(OpenAiMock, name="a")
    gateway = start(config("simple-shuffle", group([mock], {"tags": ["free"]}), enable_tag_filtering=True))
    answer = gateway.chat("m", tags=["paid"])
    assert answer.status_code == 401
    assert "Not allowed to access model due to tags configuration" in answer.json()["error"]["message"]
    assert not mock.requests


# --------------------------------------------------------------------------------------------------------------------- budgets

PRICED = {"input_cost_per_token": 0.0005, "output_cost_per_token": 0.0005}
"""A request of one token in and one out costs 0.001 dollars."""


def spend_all(gateway: Gateway, provider: OpenAiMock) -> int:
    """Asks one after the other until somebody else answers or nobody does; how many the provider got."""
    with_budget = provider.name

    def over() -> bool:
        answer = gateway.chat("m", max_tokens=1)
        return answer.status_code != 200 or answer.headers["x-litellm-model-id"] != with_budget

    for _ in range(60):
        if over():
            return len(provider.requests)
    raise AssertionError("the budget is never used up")


def test_a_deployment_has_used_up_its_budget(start, mocks):
    """The cheapest is asked until its 0.02 dollars are gone, then the other; when both are gone, nobody."""
    a, b, _ = three(mocks)
    a.usage = b.usage = one_token_each
    budget = {"max_budget": 0.02, "budget_duration": "1d"}
    dearer = {"input_cost_per_token": 0.00051, "output_cost_per_token": 0.0005}
    gateway = start(config("cost-based-routing", group([a, b], PRICED | budget, dearer | budget)))
    # What is reserved is above the cost, so the end may come a few requests early, never late.
    assert 10 <= spend_all(gateway, a) <= 20
    assert len(b.requests) == 1
    assert 10 <= spend_all(gateway, b) <= 20
    before = asked(a, b)
    for answer in chats(gateway, 20, 4, "m"):
        assert answer.status == 429
        assert "No deployments available - crossed budget" in answer.message
        assert "Exceeded budget for deployment model_name: m" in answer.message
    assert asked(a, b) == before


def test_a_provider_has_used_up_its_budget(start, mocks):
    """All deployments of OpenAI share one budget; the other provider is asked when it is gone."""
    a, b, c = three(mocks)
    for mock in (a, b, c):
        mock.usage = one_token_each
    models = group([a, b, c], PRICED, PRICED, PRICED | {"model": "groq/llama-3.1-8b-instant"})
    budgets = {"provider_budget_config": {"openai": {"budget_limit": 0.03, "time_period": "1d"}}}
    gateway = start(config("simple-shuffle", models, **budgets))
    assert statuses(chats(gateway, 300, 1, "m", messages=[{"role": "user", "content": "hi"}])) == {200: 300}
    spent = sum(asked(a, b))
    assert 20 <= spent <= 30, spent
    assert asked(c) == [300 - spent]


def test_no_provider_has_budget_left(start, mocks):
    a = mocks(OpenAiMock, name="a")
    a.usage = one_token_each
    budgets = {"provider_budget_config": {"openai": {"budget_limit": 0.01, "time_period": "1d"}}}
    gateway = start(config("simple-shuffle", group([a], PRICED), **budgets))
    assert 1 <= spend_all(gateway, a) <= 10
    answer = gateway.chat("m")
    assert answer.status_code == 429
    assert "crossed budget: Exceeded budget for provider openai" in answer.json()["error"]["message"]
