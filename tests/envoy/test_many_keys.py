"""Ten thousand keys in force at once: each is served, and the filter's memory stays within its bound."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any, Callable

import httpx
import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment
from memory import linear_memories, resident_kb
from mock_provider import OpenAiMock
from mock_provider.fixtures import openai_mock

KEYS = 10_000
BOUND_KB = 30 * 1024
"""What they may take over an idle start."""
VM_KB = 16 * 1024
"""What a VM may have asked for that knows all of them: twice what was measured."""


mock = openai_mock()


def in_parallel(gateway: Gateway, work: Callable[[httpx.Client, int], Any], count: int = KEYS, threads: int = 8) -> list[Any]:
    """`work` with a connection of each thread's own, `count` times."""
    local = threading.local()

    def one(turn: int) -> Any:
        if not hasattr(local, "client"):
            local.client = gateway.connect()
        return work(local.client, turn)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.timeout(240)
def test_ten_thousand_keys_in_force_fit_into_thirty_megabytes(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    prices = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
    config = {
        "model_list": [deployment("m", mock.params() | prices)],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
    }
    gateway = start(config, workers=2)

    def make(client: httpx.Client, turn: int) -> str:
        fields = {"rpm_limit": 150, "tpm_limit": 100_000, "max_budget": 10, "models": ["m"], "metadata": {"owner": f"team {turn}"}}
        answer = client.post("/key/generate", json=fields, headers=bearer(MASTER_KEY))
        assert answer.status_code == 200, answer.text
        return answer.json()["key"]

    def chat(client: httpx.Client, key: str) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
        return client.post("/chat/completions", json=body, headers=bearer(key)).status_code

    keys = in_parallel(gateway, make)
    # As it is after a start, but warm: buffers, connections and code that any traffic needs are there.
    assert set(in_parallel(gateway, lambda client, turn: chat(client, keys[turn % 20]), 2_000)) == {200}
    idle = resident_kb(gateway.envoy_pid())
    for _ in range(2):
        assert set(in_parallel(gateway, lambda client, turn: chat(client, keys[turn]))) == {200}
    grown = resident_kb(gateway.envoy_pid()) - idle
    assert grown < BOUND_KB, f"{KEYS} keys take {grown} kB"
    memories = linear_memories(gateway.envoy_pid())
    assert memories[0].committed_kb < VM_KB, memories
    # Among so many a limit still holds: more than two windows can admit.
    statuses = in_parallel(gateway, lambda client, turn: chat(client, keys[KEYS // 2]), 400)
    assert set(statuses) == {200, 429} and statuses.count(200) <= 300
