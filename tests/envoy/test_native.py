"""Anthropic's API before a real Envoy: errors in its shape wherever they come from, and counts of tokens."""

from __future__ import annotations

import json

import pytest

from gateway import MASTER_KEY, bearer, deployment
from mock_provider import AnthropicMock, OpenAiMock, RefusedPort, hang, status

HELLO = [{"role": "user", "content": "hello"}]
COUNT = "/v1/messages/count_tokens"
KEY = b"authorization: Bearer " + MASTER_KEY.encode()


def overloaded(**more: str) -> tuple[int, dict]:
    return 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded", **more}}


@pytest.fixture
def providers(mocks):
    return mocks(AnthropicMock), mocks(OpenAiMock)


@pytest.fixture
def gateway(start, providers):
    claude, gpt = providers
    gone = RefusedPort()
    models = [
        deployment("claude", claude.params()),
        deployment("slow", claude.params() | {"timeout": 0.2}),
        deployment("gpt", gpt.params()),
        deployment("gone", gpt.params() | {"api_base": f"http://127.0.0.1:{gone.port}/v1"}),
    ]
    settings = {"num_retries": 0, "fallbacks": [{"claude": ["gpt"]}]}
    general = {"master_key": MASTER_KEY, "max_request_size_mb": 0.1}
    yield start({"model_list": models, "litellm_settings": settings, "general_settings": general})
    gone.stop()


def post(gateway, path, body, key=MASTER_KEY):
    return gateway.client.post(path, json=body, headers=bearer(key))


def error(answer) -> tuple[int, str]:
    """Status and type of an error in Anthropic's shape, which has an id."""
    body = answer.json()
    assert body["type"] == "error" and body["request_id"] == answer.headers["request-id"], (body, answer.headers)
    return answer.status_code, body["error"]["type"]


def test_errors_below_v1_messages_are_anthropics_whoever_makes_them(gateway, providers):
    claude, _ = providers
    ask = lambda model: {"model": model, "max_tokens": 5, "messages": HELLO}  # noqa: E731
    for path in ("/v1/messages", COUNT):
        assert error(post(gateway, path, ask("claude"), key="sk-nobodys")) == (401, "authentication_error")
        assert error(post(gateway, path, ask("nobody"))) == (400, "invalid_request_error")
        assert error(gateway.client.get(path)) == (405, "invalid_request_error")
        assert error(gateway.client.post(path, content=b"{", headers=bearer(MASTER_KEY))) == (400, "invalid_request_error")
        large = {"model": "claude", "messages": [{"role": "user", "content": "x" * 200_000}]}
        assert error(post(gateway, path, large)) == (400, "invalid_request_error")
    assert error(post(gateway, "/v1/messages/batches", {})) == (404, "not_found_error")
    assert error(post(gateway, "/v1/messages", ask("gone"))) == (500, "api_error")
    claude.script(hang())
    assert error(post(gateway, "/v1/messages", ask("slow"))) == (408, "timeout_error")
    assert "error" in post(gateway, "/v1/chat/completions", ask("nobody")).json()


def test_what_envoy_refuses_by_itself_has_the_shape_of_the_path(gateway, raw):
    upgrade = b"connection: upgrade\r\nupgrade: websocket"
    for path, head, code, kind in (
        (b"/v1/messages", upgrade, 403, "permission_error"),
        (b"/v1/messages/count_tokens?beta=true", upgrade, 403, "permission_error"),
        (b"/v1/chat/completions", upgrade, 403, None),
        (b"/v1/messagesx", upgrade, 403, None),
        # Envoy has read no path yet.
        (b"/v1/messages", b"x-long: " + b"x" * 120_000, 431, None),
    ):
        request = b"GET " + path + b' HTTP/1.1\r\nhost: a\r\nx-request-id: "}{\r\n' + head + b"\r\n\r\n"
        status_code, headers, body = raw(gateway).send(request).answer()
        told = json.loads(body)
        assert status_code == code, told
        if kind:
            assert (told["type"], told["error"]["type"]) == ("error", kind), told
            assert set(told) == {"type", "error", "request_id"} and headers["content-type"] == "application/json"
            assert told["request_id"] == headers["request-id"]
        else:
            assert told["error"]["type"] == "invalid_request_error" and told["error"]["code"] == str(code)


def test_overloaded_stays_529_when_nothing_is_left(gateway, providers):
    claude, gpt = providers
    claude.script(status(*overloaded()), status(*overloaded()))
    gpt.script(gpt.error("server"))
    ask = {"model": "claude", "max_tokens": 5, "messages": HELLO}
    assert error(post(gateway, "/v1/messages", ask)) == (529, "overloaded_error")
    assert post(gateway, "/v1/messages", ask).status_code == 200, "the fallback"


def test_a_count_is_anthropics_and_an_estimate_when_that_fails(gateway, providers):
    claude, gpt = providers
    ask = {"model": "claude", "messages": HELLO}
    counted = post(gateway, f"{COUNT}?beta=true", ask)
    assert (counted.status_code, counted.json()) == (200, {"input_tokens": 11})
    assert counted.headers["request-id"] == "req_mock_1" and "x-litellm-response-cost" not in counted.headers
    assert claude.last.path == COUNT and claude.last.json["model"] == "claude-haiku-4-5-20251001"
    claude.script(status(*overloaded()))
    estimated = post(gateway, COUNT, ask)
    assert (estimated.status_code, estimated.json()) == (200, {"input_tokens": 8})
    assert estimated.headers["x-litellm-attempted-fallbacks"] == "1"
    assert post(gateway, COUNT, ask | {"model": "gpt"}).json() == {"input_tokens": 8}
    assert not gpt.requests
    claude.script(status(404, {"detail": "Not Found"}))
    instead = post(gateway, COUNT, ask)
    assert (instead.status_code, instead.json()) == (200, {"input_tokens": 8}), "an API without a count"
    assert instead.headers["x-litellm-attempted-fallbacks"] == "0"


def test_a_count_is_free_for_a_key_that_has_used_up_its_limits(gateway):
    key = gateway.new_key(models=["claude", "gpt"], rpm_limit=1, max_budget=0)
    for model in ("claude", "gpt", "claude", "gpt"):
        answer = post(gateway, COUNT, {"model": model, "messages": HELLO}, key)
        assert answer.status_code == 200, answer.text
    assert error(post(gateway, COUNT, {"model": "slow", "messages": HELLO}, key)) == (401, "authentication_error")
    assert error(post(gateway, "/v1/messages", {"model": "claude", "max_tokens": 5, "messages": HELLO}, key))[0] in (400, 429)
    only = gateway.new_key(allowed_routes=["/v1/messages"])
    assert error(post(gateway, COUNT, {"model": "claude", "messages": HELLO}, only)) == (401, "authentication_error")
