"""One request survives four broken deployments, and what reaches the fifth is exactly what the client sent."""

from __future__ import annotations

import json

import pytest

from gateway import chunks_of, deployment, events_of, text_of, wait_until
from mock_provider import AnthropicMock, AzureMock, OpenAiMock, RefusedPort, hang, status

BIG = "\u00e9\U0001f44b" + "0123456789abcdef" * (5 * 1024 * 64) + "\u2013end"
"""5 MB of prompt."""


@pytest.fixture
def chain(mocks):
    """Refused, 500, 429, silent, good; the last one of each wire format in turn."""

    def make(last: type = OpenAiMock):
        refused = mocks(RefusedPort)
        broken, limited, silent = (
            mocks(OpenAiMock, name="broken"),
            mocks(AzureMock, name="limited"),
            mocks(OpenAiMock, name="silent"),
        )
        broken.default = status(500)
        limited.default = limited.error("rate_limit")
        silent.default = hang()
        good = mocks(last, name="good")
        params = [
            {"model": "openai/m1", "api_base": f"{refused.origin}/v1", "api_key": "sk-1"},
            broken.params("m2"),
            limited.params("m3"),
            silent.params("m4") | {"timeout": 0.5, "stream_timeout": 0.5},
            good.params("m5"),
        ]
        return params, [broken, limited, silent], good

    return make


def by_fallbacks(params: list[dict]) -> dict:
    """One deployment in each group, the first group falling back to all others in order."""
    names = ["first", "second", "third", "fourth", "fifth"]
    return {
        "model_list": [deployment(name, each, id=name) for name, each in zip(names, params)],
        "litellm_settings": {"num_retries": 0, "fallbacks": [{"first": names[1:]}]},
    }


def by_retries(params: list[dict]) -> dict:
    """All deployments in one group."""
    return {
        "model_list": [deployment("first", each, id=f"d{index}") for index, each in enumerate(params)],
        "router_settings": {"num_retries": 4},
    }


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("last", [OpenAiMock, AzureMock, AnthropicMock], ids=["openai", "azure", "anthropic"])
def test_a_request_survives_to_the_fifth_deployment(start, chain, last, stream):
    params, others, good = chain(last)
    gateway = start(by_fallbacks(params))
    answer = gateway.chat("first", BIG, stream=stream)
    assert answer.status_code == 200, answer.text
    text = text_of(chunks_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]
    assert text == good.text
    for mock in others:
        assert [request.json["messages"][0]["content"] for request in mock.requests] == [BIG], mock.name
    assert len(good.requests) == 1
    sent = good.last.json
    content = sent["messages"][0]["content"]
    assert (content if isinstance(content, str) else content[0]["text"]) == BIG
    if last is OpenAiMock:
        expected = {"model": "m5", "messages": [{"role": "user", "content": BIG}], "stream": stream}
        assert sent == expected | ({"stream_options": {"include_usage": True}} if stream else {})
    assert answer.headers["x-litellm-model-group"] == "fifth"
    assert answer.headers["x-litellm-model-id"] == "fifth"
    assert int(answer.headers["x-litellm-attempted-fallbacks"]) >= 1
    record = wait_until(
        lambda: next((r for r in gateway.access_log() if str(r.get("attempts")) == "5"), None), "5 attempts logged"
    )
    assert str(record["status"]) == "200"


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_retries_reach_every_deployment_of_a_group(start, chain, stream):
    params, others, good = chain()
    gateway = start(by_retries(params))
    for _ in range(4):
        answer = gateway.chat("first", "x" * 100_000, stream=stream)
        assert answer.status_code == 200, answer.text
        assert "x-litellm-attempted-retries" in answer.headers
    assert len(good.requests) == 4
    assert all(request.json["messages"][0]["content"] == "x" * 100_000 for request in good.requests)


def test_when_all_fail_the_first_failure_is_told(start, mocks):
    first, second = mocks(OpenAiMock, name="a"), mocks(OpenAiMock, name="b")
    first.default, second.default = first.error("rate_limit"), second.error("server")
    config = {
        "model_list": [deployment("a", first.params()), deployment("b", second.params())],
        "litellm_settings": {"num_retries": 0, "fallbacks": [{"a": ["b"]}]},
    }
    gateway = start(config)
    answer = gateway.chat("a")
    assert answer.status_code == 429
    assert "litellm.RateLimitError" in answer.json()["error"]["message"]
    assert len(first.requests) == len(second.requests) == 1


def test_a_refused_port_alone_is_a_connection_error(start, mocks):
    params = {"model": "openai/m", "api_base": f"{mocks(RefusedPort).origin}/v1", "api_key": "k"}
    gateway = start({"model_list": [deployment("a", params)], "router_settings": {"num_retries": 0}})
    answer = gateway.chat("a")
    assert answer.status_code in (500, 503)
    assert answer.json()["error"]["code"] == str(answer.status_code)
    answer = gateway.messages("a")
    assert answer.status_code in (500, 503) and answer.json()["type"] == "error"


def test_a_streamed_messages_request_survives_too(start, chain):
    params, _, good = chain(AnthropicMock)
    gateway = start(by_fallbacks(params))
    answer = gateway.messages("first", BIG, stream=True)
    assert answer.status_code == 200, answer.text
    events = [json.loads(data) for _, data in events_of(answer.content)]
    assert "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta") == good.text
    assert good.last.json == {
        "model": "m5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": BIG}],
        "stream": True,
    }
