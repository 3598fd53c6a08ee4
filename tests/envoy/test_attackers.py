"""Tenants that attack, one after the other, while another tenant works: all of its calls are answered, and no Wasm VM is lost."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import Counter
from typing import Callable

import pytest

from attackers import ATTACKERS, Attacker, attack
from gateway import MASTER_KEY, Gateway, deployment
from mock_provider import OpenAiMock
from mock_provider.fixtures import openai_mock

LOOPS = 2
"""Clients of the attacker at a time."""
CALLS = 150
"""Calls of the others while it attacks."""


mock = openai_mock(delay=(0.005, 0.02))


def config(mock: OpenAiMock) -> dict:
    prices = {"input_cost_per_token": 1e-9, "output_cost_per_token": 1e-9}
    return {
        "model_list": [deployment("m", mock.params() | prices)],
        "litellm_settings": {"max_end_user_budget": 1},
        "general_settings": {"master_key": MASTER_KEY},
    }


def work(gateway: Gateway, key: str, calls: int) -> Counter:
    """Calls of somebody else, for a few end users of its own."""
    others, came = Attacker(gateway, key), Counter()
    for turn in range(calls):
        came[others.chat(user=f"customer-{turn % 7}")] += 1
    others.close()
    return came


@pytest.mark.parametrize("name", ATTACKERS)
def test_others_are_served_while_somebody_attacks(start: Callable[..., Gateway], mock: OpenAiMock, name: str) -> None:
    gateway = start(config(mock), workers=2)
    # One team: what its budget and its rates have left is everybody's.
    team = gateway.manage("/team/new", {"max_budget": 5, "rpm_limit": 1_000_000, "tpm_limit": 100_000_000})["team_id"]
    theirs, ours = (gateway.new_key(team_id=team) for _ in range(2))
    assert work(gateway, ours, 10) == {200: 10}
    over = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(LOOPS) as pool:
        try:
            attacks = [pool.submit(attack, gateway, theirs, name, over.is_set, lane, LOOPS) for lane in range(LOOPS)]
            served = work(gateway, ours, CALLS)
        finally:
            over.set()
        came = sum((each.result() for each in attacks), Counter())
    assert sum(came.values()) > 10, came
    assert served == {200: CALLS}, f"{name}: {served}; the attacker: {came}"
    # `stop` looks that no VM was lost.
