"""The anthropic SDK through the gateway against every wire format."""

from __future__ import annotations

import re

import anthropic
import pytest

from gateway import MASTER_KEY
from mock_provider import hang, status

WIRES = ("openai", "azure", "anthropic")
HELLO = [{"role": "user", "content": "hi"}]
TOOLS = [
    {
        "name": name,
        "description": f"The {name} of a city",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    for name in ("weather", "time")
]


@pytest.mark.parametrize("wire", WIRES)
def test_message(anthropic_sdk, providers, wire):
    message = anthropic_sdk.messages.create(
        model=wire, max_tokens=50, system="Be brief.", messages=HELLO, stop_sequences=["END"], extra_body={"temperature": 0.5}
    )
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == providers[wire].text
    assert (message.usage.input_tokens, message.usage.output_tokens) == (11, 7)
    sent = providers[wire].last.json
    assert sent["max_tokens"] == 50 and sent["temperature"] == 0.5
    if wire == "anthropic":
        assert sent["system"] == "Be brief." and sent["stop_sequences"] == ["END"]
    else:
        assert sent["messages"][0] == {"role": "system", "content": "Be brief."} and sent["stop"] == ["END"]


@pytest.mark.parametrize("wire", WIRES)
def test_streamed_message(anthropic_sdk, providers, wire):
    with anthropic_sdk.messages.stream(model=wire, max_tokens=50, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == providers[wire].text == message.content[0].text
    assert message.stop_reason == "end_turn" and message.role == "assistant"
    assert message.usage.output_tokens == 7
    assert len(message.content) == 1


@pytest.mark.parametrize("wire", WIRES)
def test_event_order(anthropic_sdk, wire):
    events = list(anthropic_sdk.messages.create(model=wire, max_tokens=50, messages=HELLO, stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    assert "message_delta" not in kinds[:-2]


@pytest.mark.parametrize("streamed", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
def test_tools_in_both_turns(anthropic_sdk, providers, wire, streamed):
    def ask(messages: list[dict]) -> anthropic.types.Message:
        arguments = {"model": wire, "max_tokens": 200, "messages": messages, "tools": TOOLS}
        if not streamed:
            return anthropic_sdk.messages.create(**arguments)
        with anthropic_sdk.messages.stream(**arguments) as stream:
            return stream.get_final_message()

    first = ask(HELLO)
    calls = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use"
    assert [(call.name, call.input) for call in calls] == [("weather", {"city": "Oslo"}), ("time", {"city": "Oslo"})]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "3C"} for call in calls]
    said = [block.model_dump(include={"type", "text", "id", "name", "input"}) for block in first.content]
    history = [*HELLO, {"role": "assistant", "content": said}, {"role": "user", "content": results}]
    second = ask(history)
    assert second.content[0].text == providers[wire].text and second.stop_reason == "end_turn"
    if wire != "anthropic":
        assert [message["role"] for message in providers[wire].last.json["messages"]] == ["user", "assistant", "tool", "tool"]


@pytest.mark.parametrize("wire", WIRES)
def test_tool_choice(anthropic_sdk, wire):
    choice = {"type": "tool", "name": "time"}
    message = anthropic_sdk.messages.create(model=wire, max_tokens=200, messages=HELLO, tools=TOOLS, tool_choice=choice)
    assert [block.name for block in message.content if block.type == "tool_use"] == ["time"]
    message = anthropic_sdk.messages.create(model=wire, max_tokens=200, messages=HELLO, tools=TOOLS, tool_choice={"type": "none"})
    assert [block.type for block in message.content] == ["text"]


CALL = re.compile("^[0-9a-f-]{36}$")
"""The gateway's own name for a call."""

KINDS = {
    "bad_request": (anthropic.BadRequestError, 400, "invalid_request_error"),
    "context_window": (anthropic.BadRequestError, 400, "invalid_request_error"),
    "auth": (anthropic.AuthenticationError, 401, "authentication_error"),
    "permission": (anthropic.PermissionDeniedError, 403, "permission_error"),
    "not_found": (anthropic.NotFoundError, 404, "not_found_error"),
    "rate_limit": (anthropic.RateLimitError, 429, "rate_limit_error"),
    "server": (anthropic.InternalServerError, 500, "api_error"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wire", WIRES)
def test_errors_are_anthropic_shaped(anthropic_sdk, providers, wire, kind, stream):
    expected, code, name = KINDS[kind]
    mock = providers[wire]
    mock.script(mock.error(kind))
    with pytest.raises(expected) as caught:
        anthropic_sdk.messages.create(model=wire, max_tokens=50, messages=HELLO, stream=stream)
    assert caught.value.status_code == code
    body = caught.value.body
    assert body["type"] == "error" and body["error"]["type"] == name
    assert mock.error_answer(kind)[1]["error"]["message"] in body["error"]["message"]
    assert body["request_id"] == caught.value.request_id == ("req_mock_1" if wire == "anthropic" else CALL.search(body["request_id"])[0])


@pytest.mark.parametrize("wire", WIRES)
def test_timeout_is_408(anthropic_sdk, providers, wire):
    providers[wire].script(hang())
    with pytest.raises(anthropic.APIStatusError) as caught:
        anthropic_sdk.messages.create(model=f"{wire}-slow", max_tokens=50, messages=HELLO)
    assert caught.value.status_code == 408
    assert caught.value.body["error"]["type"] == "timeout_error"


def test_unknown_model(anthropic_sdk):
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_sdk.messages.create(model="no-such-model", max_tokens=5, messages=HELLO)
    assert "no-such-model" in caught.value.body["error"]["message"]


def test_same_format_is_passed_untouched(anthropic_sdk, providers):
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    anthropic_sdk.messages.create(
        model="anthropic",
        max_tokens=3000,
        messages=HELLO,
        system=system,
        metadata={"user_id": "u-1"},
        thinking={"type": "enabled", "budget_tokens": 2000},
        extra_body={"context_management": {"edits": []}},
        extra_headers={"anthropic-beta": "context-management-2025-06-27"},
    )
    request = providers.anthropic.last
    assert request.json == {
        "model": "claude-haiku-4-5-20251001",
        "max_tokens": 3000,
        "messages": HELLO,
        "system": system,
        "metadata": {"user_id": "u-1"},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "context_management": {"edits": []},
    }
    assert "context-management-2025-06-27" in request.header("anthropic-beta")
    assert request.header("authorization") is None, "the client's own key must not travel on"


def test_thinking_passes(anthropic_sdk):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with anthropic_sdk.messages.stream(model="anthropic", max_tokens=2048, messages=HELLO, thinking=thinking) as stream:
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].signature == "c2lnbmF0dXJl"


@pytest.mark.parametrize("wire", ["openai", "azure"])
def test_images_become_image_urls(anthropic_sdk, providers, wire):
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://images.example/cat.jpg"}},
        {"type": "text", "text": "what is this?"},
    ]
    anthropic_sdk.messages.create(model=wire, max_tokens=50, messages=[{"role": "user", "content": content}])
    parts = providers[wire].last.json["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert urls == ["data:image/png;base64,aGk=", "https://images.example/cat.jpg"]


def test_a_wrong_key_is_an_authentication_error(locked_gateway, providers):
    with anthropic.Anthropic(api_key="nonsense", base_url=locked_gateway.url, max_retries=0) as sdk:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            sdk.messages.create(model="anthropic", max_tokens=5, messages=HELLO)
        assert caught.value.body["error"]["type"] == "authentication_error"
    assert not providers.anthropic.requests
    with anthropic.Anthropic(api_key=MASTER_KEY, base_url=locked_gateway.url, max_retries=0) as sdk:
        assert sdk.messages.create(model="anthropic", max_tokens=5, messages=HELLO).content[0].text == providers.anthropic.text
    sent = providers.anthropic.last
    assert sent.header("x-api-key") == providers.anthropic.key and MASTER_KEY not in str(sent.headers)


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_an_overloaded_anthropic_is_529_and_its_details_are_kept(anthropic_sdk, providers, stream):
    def failing(code, kind, **more):
        providers.anthropic.script(status(code, {"type": "error", "error": {"type": kind, "message": "m", **more}}))
        with pytest.raises(anthropic.APIStatusError) as caught:
            anthropic_sdk.messages.create(model="anthropic", max_tokens=50, messages=HELLO, stream=stream)
        return caught.value

    overloaded = failing(529, "overloaded_error")
    assert (type(overloaded).__name__, overloaded.type) == ("OverloadedError", "overloaded_error")
    too_large = failing(413, "request_too_large")
    assert (type(too_large).__name__, too_large.type) == ("ContentTooLargeError", "request_too_large")
    details = {"error_code": "thread_not_found"}
    assert failing(400, "invalid_request_error", details=details).error_code == "thread_not_found"


@pytest.mark.parametrize("wire", WIRES)
def test_every_answer_has_the_id_of_its_request(anthropic_sdk, wire):
    message = anthropic_sdk.messages.create(model=wire, max_tokens=50, messages=HELLO)
    assert message._request_id == "req_mock_1" if wire == "anthropic" else CALL.match(message._request_id)
    with anthropic_sdk.messages.stream(model=wire, max_tokens=50, messages=HELLO) as stream:
        assert stream.request_id == "req_mock_1" if wire == "anthropic" else CALL.match(stream.request_id)


@pytest.mark.parametrize("wire", ["openai", "azure"])
def test_a_thread_is_refused_as_the_sdk_understands(anthropic_sdk, providers, wire):
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_sdk.messages.create(model=wire, max_tokens=50, messages=HELLO, extra_body={"thread": {"type": "create"}})
    assert caught.value.error_code == "thread_unsupported_request"
    assert not providers[wire].requests


@pytest.mark.parametrize("wire", WIRES)
def test_tokens_are_counted(anthropic_sdk, providers, wire):
    count = anthropic_sdk.messages.count_tokens(model=wire, messages=HELLO, system="Be brief.", tools=TOOLS)
    assert count._request_id
    if wire == "anthropic":
        assert count.input_tokens == 11
        assert providers.anthropic.last.path == "/v1/messages/count_tokens"
        sent = {"model": "claude-haiku-4-5-20251001", "messages": HELLO, "system": "Be brief.", "tools": TOOLS}
        assert providers.anthropic.last.json == sent
    else:
        assert 60 <= count.input_tokens <= 120
        assert not providers[wire].requests
        longer = anthropic_sdk.messages.count_tokens(model=wire, messages=[{"role": "user", "content": "hi there " * 100}])
        assert 200 <= longer.input_tokens <= 220
    beta = anthropic_sdk.beta.messages.count_tokens(model=wire, messages=HELLO, betas=["token-counting-2024-11-01"])
    assert beta.input_tokens == (11 if wire == "anthropic" else 8)
    if wire == "anthropic":
        assert "token-counting-2024-11-01" in providers.anthropic.last.header("anthropic-beta")
