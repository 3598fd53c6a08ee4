"""Bodies made to cost a worker's VM more memory than it has: refused with words, while everybody else's streams go on."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import httpx
import pytest

from gateway import WAIT, bearer, deployment
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
    # With limits of its own it would be refused for those before its bodies have come.
    attacker = gateway.new_key(models=["cheap", "claude"])
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


def begun(gateway, key: str, headers: bytes, first: bytes) -> tuple[int, dict, bool]:
    """Sends the beginning of a call and waits for its answer: status, body, whether nothing follows on the connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=WAIT) as connection:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        connection.sendall(head + b"authorization: Bearer " + key.encode() + b"\r\n" + headers + b"\r\n\r\n" + first)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())
        return answer.status, body, connection.recv(1) == b""


@pytest.mark.parametrize(
    ("headers", "first"),
    [
        (b"content-length: 33554432", b""),
        (b"content-length: 33554432", b'{"model": "cheap", "messages": ['),
        (b"transfer-encoding: chunked", b"11000\r\n" + b" " * 0x11000 + b"\r\n"),
    ],
    ids=["nothing yet", "a beginning", "chunks"],
)
def test_a_long_body_is_not_waited_for_without_money_or_places(victims, headers, first):
    gateway, openai = victims
    broke = gateway.new_key(max_budget=0)
    status, body, is_over = begun(gateway, broke, headers, first)
    assert (status, body["error"]["type"], is_over) == (400, "budget_exceeded", True)
    slow = gateway.new_key(rpm_limit=0)
    status, body, is_over = begun(gateway, slow, headers, first)
    assert (status, body["error"]["code"], is_over) == (429, "429", True)
    # Who has both is waited for, and a short body is judged with its model.
    rich = gateway.new_key(max_budget=5, rpm_limit=5)
    assert gateway.chat("cheap", "x" * 1_000_000, headers=bearer(rich)).status_code == 200
    assert gateway.chat("cheap", headers=bearer(broke)).json()["error"]["type"] == "budget_exceeded"
    assert len(openai.requests) == 1
