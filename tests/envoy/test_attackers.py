"""Tenants that attack, one after the other, while another tenant works: all of its calls are answered, and no Wasm VM is lost.

A further attacker is one more row of `ATTACKERS`: a function that is called again and again, with a number that grows."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import Counter
from typing import Any, Callable, Iterator

import httpx
import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment
from mock_provider import OpenAiMock

LOOPS = 2
"""Clients of the attacker at a time."""
CALLS = 150
"""Calls of the others while it attacks."""


class Attacker:
    """What an attacker has: a key, and a client of its own."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.key = key
        self.client = httpx.Client(base_url=gateway.url, timeout=60, trust_env=False)

    def chat(self, key: str | None = None, **body: Any) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | body
        return self.client.post("/chat/completions", json=body, headers=bearer(key or self.key)).status_code


def unknown_keys(attacker: Attacker, turn: int) -> int:
    return attacker.chat(key=f"sk-nobody-{turn}")


def unknown_managers(attacker: Attacker, turn: int) -> int:
    answer = attacker.client.post("/key/generate", json={"key_alias": "x" * 250}, headers=bearer(f"sk-nobody-{turn}"))
    return answer.status_code


def tiny_timeouts(attacker: Attacker, turn: int) -> int:
    return attacker.chat(timeout=0.001)


def many_end_users(attacker: Attacker, turn: int) -> int:
    return attacker.chat(user=f"user-{turn}", max_tokens=1)


def huge_claims(attacker: Attacker, turn: int) -> int:
    return attacker.chat(max_tokens=10**12, n=1_000_000)


ATTACKERS: dict[str, Callable[[Attacker, int], int]] = {
    "unknown keys": unknown_keys,
    "management without a key": unknown_managers,
    "tiny time-outs": tiny_timeouts,
    "many end users": many_end_users,
    "huge claims": huge_claims,
}


@pytest.fixture
def mock() -> Iterator[OpenAiMock]:
    mock = OpenAiMock()
    mock.delay = (0.005, 0.02)
    yield mock
    mock.stop()


def config(mock: OpenAiMock) -> dict:
    prices = {"input_cost_per_token": 1e-9, "output_cost_per_token": 1e-9}
    return {
        "model_list": [deployment("m", mock.params() | prices)],
        "litellm_settings": {"max_end_user_budget": 1},
        "general_settings": {"master_key": MASTER_KEY},
    }


def attack(gateway: Gateway, key: str, once: Callable[[Attacker, int], int], over: threading.Event, lane: int) -> Counter:
    """Attacks until it is over: statuses and how often."""
    attacker, came, turn = Attacker(gateway, key), Counter(), lane
    while not over.is_set():
        came[once(attacker, turn)] += 1
        turn += LOOPS
    attacker.client.close()
    return came


def work(gateway: Gateway, key: str, calls: int) -> Counter:
    """Calls of somebody else, for a few end users of its own."""
    others, came = Attacker(gateway, key), Counter()
    for turn in range(calls):
        came[others.chat(user=f"customer-{turn % 7}")] += 1
    others.client.close()
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
            attacks = [pool.submit(attack, gateway, theirs, ATTACKERS[name], over, lane) for lane in range(LOOPS)]
            served = work(gateway, ours, CALLS)
        finally:
            over.set()
        came = sum((each.result() for each in attacks), Counter())
    assert sum(came.values()) > 10, came
    assert served == {200: CALLS}, f"{name}: {served}; the attacker: {came}"
    # `stop` looks that no VM was lost.
