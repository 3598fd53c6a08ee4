"""The ledger dies and comes back, Envoy dies and comes back, everything stops in order: what is lost, and that nothing fails."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
from typing import Any, Callable

import httpx
import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import OpenAiMock
from mock_provider.fixtures import one_token_each, openai_mock
from traffic import CHAT, pipelined

PICO = 10**12
COST = 3 * 10**6
"""10⁻¹² dollars of one request."""


mock = openai_mock(usage=one_token_each)


def config(mock: OpenAiMock, **general: Any) -> dict:
    prices = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
    return {
        "model_list": [deployment("m", mock.params() | prices)],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY} | general,
    }


def chat(client: httpx.Client, key: str) -> httpx.Response:
    return client.post("/chat/completions", json={"model": "m", "messages": []} | BODY, headers=bearer(key))


BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


class Load:
    """Clients that ask all the time, until told to stop."""

    def __init__(self, gateway: Gateway, key: str, clients: int = 8) -> None:
        self.gateway, self.key = gateway, key
        self.over = threading.Event()
        self.statuses: list[int] = []
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.running = [self.pool.submit(self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with self.gateway.connect() as client:
            while not self.over.is_set():
                try:
                    self.statuses.append(chat(client, self.key).status_code)
                except httpx.TransportError:
                    self.statuses.append(0)

    def wait(self, count: int) -> None:
        """Waits until `count` more have been answered."""
        goal = len(self.statuses) + count
        wait_until(lambda: len(self.statuses) >= goal, f"{count} more answers")

    def stop(self) -> list[int]:
        self.over.set()
        for client in self.running:
            client.result()
        self.pool.shutdown()
        return self.statuses


def charged(gateway: Gateway, key: str) -> int:
    return round(gateway.spend_of(key) * PICO)


def ledger_is_back(gateway: Gateway) -> bool:
    return gateway.manage_raw("/key/list").status_code == 200


@pytest.mark.parametrize("times", [3])
def test_no_completion_fails_when_the_ledger_is_killed(
    start: Callable[..., Gateway], mock: OpenAiMock, database: dict[str, str], times: int
) -> None:
    gateway = start(config(mock), env=database)
    key = gateway.new_key(max_budget=1000)
    acknowledged = []
    load = Load(gateway, key)
    for turn in range(times):
        load.wait(50)
        acknowledged.append(gateway.new_key(key_alias=f"made before kill {turn}"))
        os.kill(gateway.ledger_pid(), signal.SIGKILL)
        load.wait(200)
        wait_until(lambda: ledger_is_back(gateway), "the ledger to be back")
    statuses = load.stop()
    assert set(statuses) == {200}
    # What it had acknowledged is there, and usage catches up to the last unit.
    for made in acknowledged:
        assert gateway.spend_of(made) == 0
    wait_until(lambda: charged(gateway, key) >= len(statuses) * COST, "all usage in the ledger")
    assert charged(gateway, key) == len(statuses) * COST == len(mock.requests) * COST


def test_without_a_ledger_known_keys_go_on_and_unknown_ones_get_503(
    start: Callable[..., Gateway], mock: OpenAiMock
) -> None:
    gateway = start(config(mock), workers=1)
    known, cold = gateway.new_key(), gateway.new_key()
    assert chat(gateway.client, known).status_code == 200
    os.kill(gateway.ledger_pid(), signal.SIGSTOP)
    stopped = gateway.ledger_pid()
    try:
        assert chat(gateway.client, known).status_code == 200
        refused = chat(gateway.client, cold)
        assert refused.status_code == 503 and refused.json()["error"]["type"] == "service_unavailable", refused.text
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: chat(gateway.client, cold).status_code == 200, "the cold key once the ledger is there")


def test_a_killed_envoy_loses_at_most_one_interval(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    gateway = start(config(mock))
    gateway.may_reload = True
    key = gateway.new_key(max_budget=1000)
    load = Load(gateway, key)
    load.wait(300)
    # So much is in the ledger now; what comes until the kill is within an interval or two.
    settled = wait_until(lambda: charged(gateway, key) // COST, "usage in the ledger")
    os.kill(gateway.envoy_pid(), signal.SIGKILL)
    killed = len(mock.requests)
    load.over.set()
    load.stop()
    wait_until(lambda: gateway.serves(), "the new Envoy")
    wait_until(lambda: chat(gateway.client, key).status_code == 200, "an answer of the new Envoy")
    total = charged(gateway, key)
    wait_until(lambda: charged(gateway, key) > total or total // COST == len(mock.requests), "the newest call in the ledger")
    lost = len(mock.requests) - charged(gateway, key) // COST
    print(f"lost with the killed Envoy: {lost} calls of {killed}")
    assert 0 <= lost <= killed - settled + 8


def test_a_clean_stop_loses_nothing(start: Callable[..., Gateway], mock: OpenAiMock, postgres: str) -> None:
    gateway = start(config(mock), env={"DATABASE_URL": postgres})
    key = gateway.new_key()
    load = Load(gateway, key)
    load.wait(300)
    gateway.process.send_signal(signal.SIGTERM)
    statuses = load.stop() if gateway.process.wait(60) == 0 else []
    served = len(mock.requests)
    assert served >= 300 and statuses.count(200) <= served
    after = start(config(mock), env={"DATABASE_URL": postgres})
    assert charged(after, key) == statuses.count(200) * COST


def test_many_unknown_keys_do_not_reach_the_database(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    gateway = start(config(mock), workers=1)
    key = gateway.new_key()
    assert chat(gateway.client, key).status_code == 200

    def memory() -> int:
        with open(f"/proc/{gateway.envoy_pid()}/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))

    def scan(name: str, count: int) -> None:
        assert set(pipelined(gateway, [(f"sk-{name}-{at}", CHAT) for at in range(count)])) == {401}

    scan("few", 2_000)
    before = memory()
    scan("many", 20_000)
    # The negative cache is of a fixed size: ten times as many keys take no more room.
    assert memory() - before < 4_096, "Envoy grew under a scan"
    assert chat(gateway.client, key).status_code == 200


def test_the_ledger_steps_back_for_the_workers(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    gateway = start(config(mock))
    ledger, envoy = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (gateway.ledger_pid(), gateway.envoy_pid()))
    assert ledger > envoy == os.getpriority(os.PRIO_PROCESS, 0)
