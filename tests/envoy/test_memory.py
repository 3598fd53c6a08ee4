"""What the filter holds of memory: a VM at rest, open streams, large requests; and that all of it is used again.

`test_many_keys.py` has what ten thousand keys take. The caps are about twice what was measured."""

from __future__ import annotations

import concurrent.futures
from typing import Iterator

import httpx
import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, events_of, wait_until
from memory import linear_memories, resident_kb
from mock_provider import WAIT, AnthropicMock, Gate, Mock, OpenAiMock, gated

pytestmark = pytest.mark.wasm

WORKERS = 2
VMS = WORKERS + 2
"""One for each worker, the sync role's, and the one they are all copied from."""
IDLE_KB = 3 << 10
STREAMS = 200
STREAM_KB = 13
AGAIN_KB = 512
ENVOY_STREAM_KB = 160
"""What Envoy holds of a stream beside that: two connections with their buffers, and the request in case it is to be repeated."""
LARGE = 1 << 20
LARGE_KB = 16 << 10
RESIDENT_KB = 200 << 10

KINDS = {
    "chat": ("openai", "/v1/chat/completions"),
    "chat by Anthropic": ("anthropic", "/v1/chat/completions"),
    "messages": ("anthropic", "/v1/messages"),
    "messages by OpenAI": ("openai", "/v1/messages"),
}


@pytest.fixture(scope="module")
def mocks() -> Iterator[dict[str, Mock]]:
    mocks = {"openai": OpenAiMock(), "anthropic": AnthropicMock()}
    yield mocks
    for mock in mocks.values():
        mock.stop()


@pytest.fixture(scope="module")
def gateway(mocks: dict[str, Mock], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    prices = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
    config = {
        "model_list": [deployment(name, mock.params() | prices) for name, mock in mocks.items()],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
    }
    gateway = Gateway(tmp_path_factory.mktemp("memory"), config, workers=WORKERS)
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    return gateway.new_key(rpm_limit=1_000_000, tpm_limit=1_000_000_000, max_budget=1_000, max_parallel_requests=1_000)


@pytest.fixture(scope="module")
def rest_kb(gateway: Gateway, key: str) -> int:
    """What all VMs have asked for before there are streams."""
    return committed_kb(gateway)


def committed_kb(gateway: Gateway) -> int:
    """What all VMs together have asked for."""
    return sum(memory.committed_kb for memory in linear_memories(gateway.envoy_pid()))


def allocated_kb(gateway: Gateway) -> int:
    """What Envoy itself has allocated and not freed."""
    return int(gateway.admin("/memory").json()["allocated"]) >> 10


def test_a_vm_at_rest_is_small(gateway: Gateway) -> None:
    memories = linear_memories(gateway.envoy_pid())
    assert len(memories) == VMS, memories
    assert memories[0].committed_kb <= IDLE_KB, memories


class Held:
    """Streams that the provider stops in the middle, and the clients that read them."""

    def __init__(self, gateway: Gateway, key: str, mock: Mock, model: str, path: str) -> None:
        self.gate = Gate()
        mock.default = gated(self.gate, after=4)
        self.client = httpx.Client(
            base_url=gateway.url, headers=bearer(key), timeout=WAIT, trust_env=False, limits=httpx.Limits(max_connections=None)
        )
        self.body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 50}
        self.path = path
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            self.answers = list(pool.map(self.begin, range(STREAMS)))

    def begin(self, _: int) -> tuple[httpx.Response, Iterator[bytes], bytes]:
        answer = self.client.send(self.client.build_request("POST", self.path, json=self.body), stream=True)
        assert answer.status_code == 200, answer.read()
        pieces = answer.iter_raw()
        return answer, pieces, next(pieces)

    def end(self) -> list[bytes]:
        """Lets all of them come to their end, and gives what they were."""
        self.gate.open()
        whole = [first + b"".join(pieces) for _, pieces, first in self.answers]
        self.client.close()
        return whole


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_holds_little_and_leaves_nothing(
    gateway: Gateway, mocks: dict[str, Mock], key: str, rest_kb: int, kind: str
) -> None:
    model, path = KINDS[kind]

    def one_round() -> tuple[int, int]:
        before = allocated_kb(gateway)
        held = Held(gateway, key, mocks[model], model, path)
        taken = committed_kb(gateway) - rest_kb, allocated_kb(gateway) - before
        for body in held.end():
            assert len(events_of(body)) > 5
        mocks[model].clear()
        return taken

    rounds = [one_round() for _ in range(6)]
    vms, envoy = [vms for vms, _ in rounds], [envoy for _, envoy in rounds]
    assert vms[0] <= STREAMS * STREAM_KB, f"{STREAMS} streams take {vms[0]} kB of the VMs"
    assert envoy[0] <= STREAMS * ENVOY_STREAM_KB, f"{STREAMS} streams take {envoy[0]} kB of Envoy"
    # The sync role takes some when the first round is accounted for, and a worker may get more of them than before: each has
    # had its most after a few.
    assert vms[5] - vms[3] <= AGAIN_KB, f"VMs have {vms} kB more than at rest in six equal rounds"


def test_large_requests_use_the_same_memory_again(gateway: Gateway, key: str) -> None:
    text = "x" * LARGE

    def ask(turn: int) -> int:
        # Each on a connection of its own, so that every worker gets some.
        with gateway.connect() as client:
            model, path = list(KINDS.values())[turn % len(KINDS)]
            body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 50}
            return client.post(path, json=body, headers=bearer(key)).status_code

    assert {ask(turn) for turn in range(48)} == {200}
    memories = linear_memories(gateway.envoy_pid())
    assert memories[0].committed_kb <= LARGE_KB, memories


def test_what_envoy_has_no_more_use_for_goes_back_to_the_system(gateway: Gateway, key: str) -> None:
    wait_until(lambda: resident_kb(gateway.envoy_pid()) <= RESIDENT_KB, f"Envoy holds less than {RESIDENT_KB} kB", 90)
