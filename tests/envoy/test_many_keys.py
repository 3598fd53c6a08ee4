"""Ten thousand keys in force at once: each is served, and the filter's memory stays within its bound."""

from __future__ import annotations

from typing import Callable, Iterable

import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment
from memory import linear_memories, resident_kb
from mock_provider import OpenAiMock
from mock_provider.fixtures import openai_mock
from traffic import CHAT, chat, fire, pipelined

pytestmark = pytest.mark.wasm

KEYS = 10_000
BOUND_KB = 30 * 1024
"""What they may take over an idle start."""
VM_KB = 16 * 1024
"""What a VM may have asked for that knows all of them: twice what was measured."""


mock = openai_mock()


@pytest.mark.timeout(240)
def test_ten_thousand_keys_in_force_fit_into_thirty_megabytes(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    prices = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
    config = {
        "model_list": [deployment("m", mock.params() | prices)],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
    }
    gateway = start(config, workers=2)

    def made(turn: int) -> dict:
        fields = {"rpm_limit": 150, "tpm_limit": 100_000, "max_budget": 10, "models": ["m"], "metadata": {"owner": f"team {turn}"}}
        return {"key": keys[turn]} | fields

    def chats(turns: Iterable[int]) -> list[int]:
        return pipelined(gateway, [(keys[turn], CHAT) for turn in turns])

    keys = [f"sk-of-team-{turn}" for turn in range(KEYS)]
    assert set(pipelined(gateway, [(MASTER_KEY, made(turn)) for turn in range(KEYS)], "/key/generate")) == {200}
    # As it is after a start, but warm: buffers, connections and code that any traffic needs are there.
    assert set(chats(turn % 20 for turn in range(2_000))) == {200}
    idle = resident_kb(gateway.envoy_pid())
    for _ in range(2):
        assert set(chats(range(KEYS))) == {200}
    grown = resident_kb(gateway.envoy_pid()) - idle
    assert grown < BOUND_KB, f"{KEYS} keys take {grown} kB"
    memories = linear_memories(gateway.envoy_pid())
    assert memories[0].committed_kb < VM_KB, memories
    # Among so many a limit still holds: more than two windows can admit.
    one = bearer(keys[KEYS // 2])
    statuses = [heard.status for heard in fire(gateway, 400, 8, lambda connection, _: chat(connection, "m", one))]
    assert set(statuses) == {200, 429} and statuses.count(200) <= 300
