"""What the providers served and what the ledger has charged: equal to the last unit."""

from __future__ import annotations

import concurrent.futures
import random
import threading
from fractions import Fraction
from typing import Callable

import httpx
import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import AnthropicMock, OpenAiMock, status

REQUESTS = 10_000
PICO = 10**12
PRICES = {
    "openai": {"input_cost_per_token": "0.00000015", "cache_read_input_token_cost": "0.000000075", "output_cost_per_token": "0.0000006"},
    "anthropic": {
        "input_cost_per_token": "0.000001",
        "cache_read_input_token_cost": "0.0000001",
        "cache_creation_input_token_cost": "0.00000125",
        "output_cost_per_token": "0.000005",
    },
}


class Served:
    """What the mocks said that they used, in 10⁻¹² dollars."""

    def __init__(self) -> None:
        self.lock, self.chance, self.total, self.tokens = threading.Lock(), random.Random(11), 0, 0

    def openai(self, _: dict) -> dict:
        with self.lock:
            prompt, output = self.chance.randrange(1, 5000), self.chance.randrange(1, 800)
            cached = self.chance.choice([0, 0, prompt // 2])
            price = PRICES["openai"]
            self._add(prompt - cached, price["input_cost_per_token"])
            self._add(cached, price["cache_read_input_token_cost"])
            self._add(output, price["output_cost_per_token"])
            self.tokens += prompt + output
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def anthropic(self, _: dict) -> dict:
        with self.lock:
            fresh, output = self.chance.randrange(1, 5000), self.chance.randrange(1, 800)
            read, written = self.chance.choice([(0, 0), (100, 0), (0, 200), (1000, 50)])
            price = PRICES["anthropic"]
            self._add(fresh, price["input_cost_per_token"])
            self._add(read, price["cache_read_input_token_cost"])
            self._add(written, price["cache_creation_input_token_cost"])
            self._add(output, price["output_cost_per_token"])
            self.tokens += fresh + read + written + output
        return {
            "input_tokens": fresh,
            "output_tokens": output,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
        }

    def _add(self, count: int, price: str) -> None:
        amount = Fraction(price) * PICO * count
        assert amount.denominator == 1
        self.total += int(amount)


@pytest.mark.timeout(300)
def test_ten_thousand_mixed_requests_are_charged_to_the_last_unit(start: Callable[..., Gateway], mocks, database) -> None:
    served = Served()
    openai, anthropic, broken = mocks(OpenAiMock), mocks(AnthropicMock), mocks(OpenAiMock, name="broken")
    openai.usage, anthropic.usage, broken.default = served.openai, served.anthropic, status(500)
    models = [
        deployment("openai", openai.params() | PRICES["openai"]),
        deployment("anthropic", anthropic.params() | PRICES["anthropic"]),
        # Two, so that no retry waits.
        *(deployment("broken", broken.params() | PRICES["openai"], id=f"broken-{turn}") for turn in range(2)),
    ]
    settings = {"num_retries": 1, "disable_cooldowns": True, "fallbacks": [{"broken": ["anthropic"]}]}
    general = {"master_key": MASTER_KEY}
    gateway = start({"model_list": models, "router_settings": settings, "general_settings": general}, env=database)
    keys = [gateway.new_key(max_budget=1_000_000) for _ in range(3)]
    local = threading.local()

    def one(turn: int) -> int:
        if not hasattr(local, "client"):
            local.client = gateway.connect()
        client: httpx.Client = local.client
        chat = {"model": ["openai", "anthropic", "broken"][turn % 3], "messages": [{"role": "user", "content": "hi"}]}
        headers = bearer(keys[turn % len(keys)])
        match turn % 5:
            case 0 | 1:
                return client.post("/chat/completions", json=chat, headers=headers).status_code
            case 2:
                body = chat | {"stream": True, "stream_options": {"include_usage": turn % 2 == 0}}
                return client.post("/chat/completions", json=body, headers=headers).status_code
            case 3:
                return client.post("/v1/messages", json=chat | {"max_tokens": 9, "stream": turn % 2 == 0}, headers=headers).status_code
            case _:
                body = {"model": "openai", "prompt": "hi", "stream": turn % 2 == 0}
                return client.post("/v1/completions", json=body, headers=headers).status_code

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        statuses = list(pool.map(one, range(REQUESTS)))
    assert set(statuses) == {200}

    def charged() -> int:
        return sum(round(gateway.spend_of(key) * PICO) for key in keys)

    wait_until(lambda: charged() >= served.total, "everything that was served in the ledger", timeout=60)
    assert charged() == served.total
    rows = gateway.manage("/spend/keys")
    assert sum(round(row["spend"] * PICO) for row in rows) == served.total
