"""A chat provider's answers as LiteLLM's clients read them, and conversations that go on elsewhere with what was in them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gateway import Gateway, chunks_of, deployment
from mock_provider import ok
from mock_provider.strict import StrictAnthropic, StrictDeepSeek, StrictGemini, StrictOpenAi

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SIGNED = CALL | {"extra_content": {"google": {"thought_signature": "a+b/c="}}}
KEPT = CALL | {"id": "c1__thought__a+b/c=", "extra_content": SIGNED["extra_content"]}

BUFFERED = [
    pytest.param({"content": "x", "reasoning": "th"}, {"content": "x", "reasoning_content": "th"}, "stop", id="reasoning"),
    pytest.param({"content": "<think>th</think>x"}, {"content": "x", "reasoning_content": "th"}, "stop", id="tags"),
    pytest.param({"content": None, "tool_calls": [CALL]}, {"content": None, "tool_calls": [CALL]}, "tool_calls", id="calls"),
    pytest.param({"tool_calls": [SIGNED]}, {"tool_calls": [KEPT]}, "tool_calls", id="signature"),
]


@pytest.mark.parametrize("message, expected, finish", BUFFERED)
def test_a_buffered_answer_is_as_litellms(gateway, providers, message, expected, finish):
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}
    providers.openai.script(ok({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "x": 1}))
    answer = gateway.chat("openai")
    assert answer.json()["choices"] == [{"index": 0, "message": {"role": "assistant"} | expected, "finish_reason": finish}]
    assert answer.json()["x"] == 1 and int(answer.headers["content-length"]) == len(answer.content)


THOUGHTS = [{"content": "", "reasoning": "th"}, {"content": "x"}]
AS_LITELLM = [{"content": "", "reasoning_content": "th"}, {"content": "x"}]
TAGS = [{"content": "<think>th</think>x"}]
STREAMED = [
    pytest.param(THOUGHTS, AS_LITELLM, "stop", id="reasoning"),
    pytest.param(TAGS, TAGS, "stop", id="tags"),
    pytest.param([{"tool_calls": [CALL]}], [{"tool_calls": [CALL]}], "tool_calls", id="calls"),
    pytest.param([{"tool_calls": [SIGNED]}], [{"tool_calls": [KEPT]}], "tool_calls", id="signature"),
]


@pytest.mark.parametrize("pieces", [None, 7], ids=["whole", "in-pieces"])
@pytest.mark.parametrize("deltas, expected, finish", STREAMED)
def test_a_stream_is_as_litellms(gateway, providers, deltas, expected, finish, pieces):
    def chunk(delta, finish_reason=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}

    chunks = [*(chunk(delta) for delta in deltas), chunk({}, "stop")]
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in chunks) + "data: [DONE]\n\n"
    answer = ok(body.encode(), headers=[("content-type", "text/event-stream")])
    providers.openai.script(dataclasses.replace(answer, split=pieces))
    got = chunks_of(gateway.chat("openai", stream=True).content)
    assert got == [*(chunk(delta) for delta in expected), chunk({}, finish)]


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
MODELS = {
    "gemini": (StrictGemini, "gemini-3-pro-preview"),
    "openai": (StrictOpenAi, "gpt-4o"),
    "anthropic": (StrictAnthropic, "claude-sonnet-4-5-20250929"),
    "deepseek": (StrictDeepSeek, "deepseek-reasoner"),
}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    doubles = {name: kind() for name, (kind, _) in MODELS.items()}
    groups = [deployment(name, double.params(MODELS[name][1])) for name, double in doubles.items()]
    config = {"model_list": groups, "router_settings": {"num_retries": 0, "disable_cooldowns": True}}
    gateway = Gateway(tmp_path_factory.mktemp("shape"), config)
    yield gateway, doubles
    gateway.stop()
    for double in doubles.values():
        double.stop()


@pytest.fixture
def doubles(session):
    for double in session[1].values():
        double.clear()
    return session


def test_a_signed_call_comes_back_from_a_client_that_keeps_ids_alone(doubles):
    gateway, doubles = doubles
    user = {"role": "user", "content": "What is the weather?"}
    said = gateway.chat("gemini", messages=[user], tools=[TOOL]).json()["choices"][0]["message"]
    calls = [{name: call[name] for name in ("id", "type", "function")} for call in said["tool_calls"]]
    assert "__thought__" in calls[0]["id"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "rain"} for call in calls]
    history = [user, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    for name, double in doubles.items():
        answer = gateway.chat(name, messages=history, tools=[TOOL])
        assert answer.status_code == 200 and not double.refused, f"{name}: {answer.text}"
        assert b"__thought__" not in double.last.body, name


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("name", ["anthropic", "deepseek"])
def test_a_turn_goes_on_whose_thinking_has_not_come_back(doubles, name, stream):
    gateway, doubles = doubles
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    answer = gateway.chat(name, messages=history, tools=[TOOL], reasoning_effort="low", stream=stream)
    assert answer.status_code == 200, answer.text
    assert not doubles[name].refused


def test_anthropic_takes_calls_of_the_history_without_tools(doubles):
    gateway, doubles = doubles
    call = {"id": "c1", "type": "function", "function": {"name": "transfer", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    answer = gateway.chat("anthropic", messages=history)
    assert answer.status_code == 200, answer.text
    assert not doubles["anthropic"].refused


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_unsigned_thinking_goes_back_to_its_maker_and_not_to_anthropic(doubles, stream):
    gateway, doubles = doubles
    user = {"role": "user", "content": "hi"}
    tool = {"name": "weather", "input_schema": SCHEMA}
    asked = {"tools": [tool], "thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4000}
    blocks = gateway.messages("deepseek", messages=[user], **asked).json()["content"]
    assert blocks[0]["type"] == "thinking" and blocks[0]["signature"]
    calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call, "content": "rain"} for call in calls]
    history = [user, {"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    for name in ("deepseek", "anthropic"):
        answer = gateway.messages(name, messages=history, stream=stream, **asked)
        assert answer.status_code == 200 and not doubles[name].refused, f"{name}: {answer.text}"
    sent = doubles["deepseek"].last.json["messages"]
    assert [message["reasoning_content"] for message in sent if message.get("tool_calls")] == [blocks[0]["thinking"]]
    assert b"unsigned" not in doubles["anthropic"].last.body
