"""Bodies made to cost a worker's VM more memory than it has: refused with words, while everybody else's streams go on."""

from __future__ import annotations

import threading

import httpx
import pytest

from gateway import bearer, deployment
from mock_provider import AnthropicMock, Gate, OpenAiMock, gated

MEMBERS = {
    # Where the values stand, around a list of them.
    "fallbacks": b'"fallbacks":[%s]',
    "group fallbacks": b'"context_window_fallbacks":[{"cheap":[%s]}]',
    "mock_response": b'"mock_response":[%s]',
    "metadata": b'"metadata":{"a":[%s]}',
    "litellm_metadata": b'"litellm_metadata":{"tags":[%s]}',
    "tags": b'"tags":[%s]',
    "stream_options": b'"stream_options":{"a":[%s]}',
    "user": b'"user":[%s]',
    "stop": b'"stop":[%s]',
    "extra_body": b'"extra_body":{"a":[%s]}',
    "content": b'"messages":[{"role":"user","content":[%s]}]',
    "tools": b'"tools":[%s]',
}
VALUES = [b"[],", b"{},", b"0,", b'"",']
SIZES = [13_000_000, 20_000_000, 30_000_000]


@pytest.fixture
def victims(start, mocks):
    """A gateway with an OpenAI and an Anthropic deployment, and the provider whose streams the test holds open."""
    openai, anthropic = mocks(OpenAiMock), mocks(AnthropicMock)
    models = [deployment("cheap", openai.params()), deployment("claude", anthropic.params())]
    settings = {"general_settings": {"master_key": "sk-master-0f4e2d"}, "router_settings": {"num_retries": 0}}
    return start({"model_list": models, **settings}), openai


@pytest.mark.timeout(300)
def test_large_members_are_refused_and_other_streams_go_on(victims):
    gateway, openai = victims
    gate = Gate()
    openai.default = gated(gate, after=3)
    key = gateway.new_key(rpm_limit=1_000_000)
    ends: list[bool] = []

    def listen() -> None:
        body = {"model": "cheap", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        with gateway.connect() as client:
            try:
                ends.append("data: [DONE]" in client.post("/v1/chat/completions", json=body, headers=bearer(key)).text)
            except httpx.RemoteProtocolError:
                ends.append(False)

    listeners = [threading.Thread(target=listen) for _ in range(12)]
    for listener in listeners:
        listener.start()
    openai.wait_requests(12)
    # Rates and budgets are looked at after the body.
    attacker = gateway.new_key(models=["cheap", "claude"], rpm_limit=1, max_budget=0)
    for at, (name, member) in enumerate(MEMBERS.items()):
        values, size = VALUES[at % len(VALUES)], SIZES[at % len(SIZES)]
        body = b'{"model":"%s","max_tokens":5,"messages":[{"role":"user","content":"x"}],%s}'
        list_ = (values * (size // len(values)))[:-1]
        for path, model in [("/v1/chat/completions", b"claude"), ("/v1/messages", b"cheap")]:
            content = body % (model, member % list_)
            answer = gateway.client.post(path, content=content, headers=bearer(attacker))
            assert answer.status_code in (400, 413), f"{name}: {answer.status_code} {answer.text[:300]}"
            shape = answer.json()
            assert "expected at most" in shape["error"]["message"], f"{name}: {shape}"
            assert (shape.get("type") == "error") == (path == "/v1/messages"), f"{name}: {shape}"
    gate.open()
    for listener in listeners:
        listener.join()
    assert ends == [True] * 12
    assert not gateway.wasm_trouble()


def test_the_first_request_of_a_key_may_bring_a_large_body(victims):
    """The key is looked up while the body waits, which is read once the key is known."""
    gateway, openai = victims
    for size in (10, 1_000_000, 20_000_000):
        key = gateway.new_key()
        answer = gateway.chat("cheap", "x" * size, headers=bearer(key), user="somebody")
        assert answer.status_code == 200, answer.text[:300]
        assert len(openai.last.json["messages"][0]["content"]) == size
