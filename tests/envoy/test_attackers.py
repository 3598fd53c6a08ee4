"""Tenants that attack, one after the other and together, while another tenant works: all of its calls are answered, its limits hold
exactly, and no Wasm VM is lost."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import Counter
from typing import Callable

import pytest

from attackers import ATTACKERS, FLOODS, HI, Attacker, Flood, attack, load, loaded
from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import OpenAiMock
from mock_provider.fixtures import openai_mock

LOOPS = 2
"""Clients of the attacker at a time."""
CALLS = 150
"""Calls of the others while it attacks."""
FLOOD = 2_000
"""Calls of an attacker that is a flood. The table of limits takes thirty times as many end users, which is a matter of the
core's tests and of `make bench-attackers`."""
RPM = 25
KINDS = ("unknown keys", "tiny time-outs", "end users")


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


def work_on_a_new_connection(gateway: Gateway, key: str) -> int:
    one = Attacker(gateway, key)
    try:
        return one.chat()
    finally:
        one.close()


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


@pytest.mark.parametrize("name", ["a flood of end users", "a flood of unknown keys", "new connections of 1 MB, wrong key"])
def test_limits_of_others_hold_exactly_during_a_flood(start: Callable[..., Gateway], mock: OpenAiMock, name: str) -> None:
    gateway = start(config(mock), workers=2)
    team = gateway.manage("/team/new", {"max_budget": 5})["team_id"]
    theirs, ours = (gateway.new_key(team_id=team) for _ in range(2))
    limited = gateway.new_key(rpm_limit=RPM)
    flood = load(gateway, FLOODS[name], theirs, requests=FLOOD)
    others = load(gateway, Flood(HI, connections=4), ours, requests=CALLS)
    exact = load(gateway, Flood(HI, connections=8), limited, requests=RPM * 2)
    assert loaded(others)["statuses"] == {200: CALLS}
    assert loaded(exact)["statuses"] == {200: RPM, 429: RPM}
    fresh = gateway.new_key()
    assert gateway.chat("m", headers=bearer(fresh)).status_code == 200, "a key that nobody has asked for yet"
    came = loaded(flood)["statuses"]
    assert came == {401 if FLOODS[name].key else 200: FLOOD}, came


@pytest.mark.timeout(240)
def test_others_are_served_and_their_limits_hold_while_many_kinds_attack_at_once(
    start: Callable[..., Gateway], mock: OpenAiMock
) -> None:
    gateway = start(config(mock), workers=2)
    team = gateway.manage("/team/new", {"max_budget": 5})["team_id"]
    theirs, ours = (gateway.new_key(team_id=team) for _ in range(2))
    limited = gateway.new_key(rpm_limit=RPM)
    over, slow = threading.Event(), ["large members", "stalled uploads", "huge claims"]
    # Not as fast as they can: all calls of a test go to one provider that is slower than any gateway.
    floods = [load(gateway, FLOODS[f"a flood of {kind}"], theirs, seconds=600, rate=60) for kind in KINDS]
    with concurrent.futures.ThreadPoolExecutor(len(slow)) as pool:
        try:
            attacks = [pool.submit(attack, gateway, theirs, name, over.is_set, 0, 1) for name in slow]
            exact = load(gateway, Flood(HI, connections=8), limited, requests=RPM * 2)
            served = work(gateway, ours, CALLS // 3)
            admitted = loaded(exact)["statuses"]
        finally:
            over.set()
            for flood in floods:
                flood.kill()
                flood.communicate()
        came = sum((each.result() for each in attacks), Counter())
    assert sum(came.values()) > 10, came
    assert served == {200: CALLS // 3}, f"{served}; the attackers: {came}"
    assert admitted == {200: RPM, 429: RPM}


@pytest.mark.timeout(240)
def test_a_reload_during_an_attack_leaves_no_call_unanswered(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    """Routes, clusters, the policy and the listener are replaced while floods and a tenant's calls go on."""
    before = config(mock)
    gateway = start(before, workers=2)
    theirs, ours = gateway.new_key(), gateway.new_key()
    floods = [load(gateway, FLOODS[f"a flood of {kind}"], theirs, seconds=600, rate=40) for kind in KINDS]
    over, came = threading.Event(), Counter()

    def others() -> None:
        kept = Attacker(gateway, ours)
        while not over.is_set():
            came[kept.chat()] += 1
            came[work_on_a_new_connection(gateway, ours)] += 1
        kept.close()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            working = pool.submit(others)
            for turn in (1, 2):
                name = f"new-{turn}"
                after = before | {
                    "model_list": [*before["model_list"], deployment(name, mock.params())],
                    "tollgate_settings": {"upload_timeout": 60 + turn},
                }
                gateway.write_config(after)
                wait_until(lambda: gateway.chat(name, headers=bearer(ours)).status_code == 200, "the new model")
        finally:
            over.set()
            for flood in floods:
                flood.kill()
                flood.communicate()
        working.result()
    assert came.keys() == {200}, came
