"""Many clients of every kind at once, some of which leave: nothing is lost, and nothing stays behind."""

from __future__ import annotations

import concurrent.futures
import re

import httpx
import pytest

from gateway import Gateway, chunks_of, deployment, text_of, wait_until
from memory import resident_kb
from mock_provider import AnthropicMock, AzureMock, OpenAiMock, hang, reset, status

WIRES = {"openai": OpenAiMock, "azure": AzureMock, "anthropic": AnthropicMock}
CLIENTS, TURNS = 30, 16


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    good = {wire: kind() for wire, kind in WIRES.items()}
    silent, broken, resetting = OpenAiMock(name="silent"), OpenAiMock(name="broken"), OpenAiMock(name="resetting")
    silent.default, broken.default, resetting.default = hang(), status(500), reset("stream", after=3)
    models = [deployment(wire, mock.params()) for wire, mock in good.items()]
    models += [deployment(mock.name, mock.params()) for mock in (silent, broken, resetting)]
    settings = {"num_retries": 1, "disable_cooldowns": True, "fallbacks": [{"broken": ["anthropic"]}]}
    gateway = Gateway(tmp_path_factory.mktemp("crowd"), {"model_list": models, "router_settings": settings})
    yield gateway, good, silent
    gateway.stop()
    for mock in [*good.values(), silent, broken, resetting]:
        mock.stop()


def buffered(client: httpx.Client, model: str, text: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "x" * 20_000}]}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == text


def streamed(client: httpx.Client, model: str, text: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200 and text_of(chunks_of(answer.content)) == text


def message(client: httpx.Client, model: str, text: str) -> None:
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    answer = client.post("/v1/messages", json=body)
    assert answer.status_code == 200 and answer.json()["content"][0]["text"] == text


def left_in_the_middle(client: httpx.Client, model: str, _: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        pieces = answer.iter_raw()
        assert next(pieces)


def left_before_the_answer(client: httpx.Client, _model: str, _text: str) -> None:
    body = {"model": "silent", "messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=body, timeout=httpx.Timeout(30, read=0.05))


def broken_by_the_provider(client: httpx.Client, _model: str, _text: str) -> None:
    body = {"model": "resetting", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/v1/chat/completions", json=body)


def saved_by_a_fallback(client: httpx.Client, _model: str, _text: str) -> None:
    answer = client.post("/v1/chat/completions", json={"model": "broken", "messages": [{"role": "user", "content": "hi"}]})
    assert answer.status_code == 200 and answer.headers["x-litellm-attempted-fallbacks"] == "1"


def refused(client: httpx.Client, _model: str, _text: str) -> None:
    assert client.post("/v1/chat/completions", content=b"{").status_code == 400


KINDS = [
    buffered,
    streamed,
    message,
    left_in_the_middle,
    left_before_the_answer,
    broken_by_the_provider,
    saved_by_a_fallback,
    refused,
]


@pytest.mark.timeout(180)
def test_nothing_is_lost_and_nothing_stays(crowd):
    gateway, good, silent = crowd
    pid = gateway.envoy_pid()
    texts = {wire: mock.text for wire, mock in good.items()}

    def client(number: int) -> None:
        with httpx.Client(base_url=gateway.url, timeout=30, trust_env=False, http1=number % 3 != 0, http2=number % 3 == 0) as own:
            for turn in range(TURNS):
                wire = list(WIRES)[(number + turn) % 3]
                KINDS[(number + turn) % len(KINDS)](own, wire, texts[wire])

    def one_round() -> int:
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client, range(CLIENTS)))
        for request in silent.requests:
            request.wait_gone()
        for mock in [*good.values(), silent]:
            mock.clear()
        silent.default = hang()
        wait_until(lambda: active(gateway) == 0, "no request under way")
        return resident_kb(pid)

    # The first rounds make connections, caches and the allocators' pools; from then on a round leaves nothing.
    sizes = [one_round() for _ in range(5)]
    assert gateway.wasm_trouble() == {} and gateway.envoy_pid() == pid
    assert sizes[-1] - sizes[1] < 512, f"kB after each of five equal rounds: {sizes}"


def active(gateway: Gateway) -> int:
    """Requests that Envoy holds at this moment."""
    text = gateway.admin("/stats?filter=^http.tollgate.downstream_rq_active$").text
    return int(re.search(r"downstream_rq_active: (\d+)", text)[1])
