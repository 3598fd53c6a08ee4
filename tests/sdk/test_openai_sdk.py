"""The openai SDK through the gateway against every wire format."""

from __future__ import annotations

import asyncio
import json

import openai
import pydantic
import pytest

from gateway import MASTER_KEY
from mock_provider import hang

WIRES = ("openai", "azure", "anthropic")
HELLO = [{"role": "user", "content": "hi"}]


def tool(name: str) -> dict:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": f"The {name} of a city", "parameters": parameters}}


@pytest.mark.parametrize("wire", WIRES)
def test_chat(openai_sdk, providers, wire):
    answer = openai_sdk.chat.completions.create(model=wire, messages=HELLO, temperature=0.5, max_tokens=50)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.content == providers[wire].text
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (11, 7, 18)
    sent = providers[wire].last.json
    assert sent["temperature"] == 0.5 and sent["max_tokens"] == 50


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("wire", WIRES)
def test_streamed_chat(openai_sdk, providers, wire, include_usage):
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = list(openai_sdk.chat.completions.create(model=wire, messages=HELLO, stream=True, **options))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == providers[wire].text
    assert choices[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert len({chunk.id for chunk in chunks if chunk.id}) == 1, "one id on all chunks"
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert [usage.total_tokens for usage in usages] == ([18] if include_usage else [])
    if wire != "anthropic":
        assert providers[wire].last.json["stream_options"] == {"include_usage": True}, "always asked of the provider"


@pytest.mark.parametrize("wire", WIRES)
def test_explicitly_unwanted_usage_stays_hidden(openai_sdk, wire):
    options = {"include_usage": False}
    chunks = list(openai_sdk.chat.completions.create(model=wire, messages=HELLO, stream=True, stream_options=options))
    assert not any(chunk.usage for chunk in chunks)


@pytest.mark.parametrize("wire", WIRES)
def test_tools_in_both_turns(openai_sdk, providers, wire):
    tools = [tool("weather"), tool("time")]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "weather and time in Oslo?"}]
    first = openai_sdk.chat.completions.create(model=wire, messages=messages, tools=tools, tool_choice="auto")
    calls = first.choices[0].message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in calls] == ["weather", "time"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Oslo"}] * 2

    messages.append(first.choices[0].message.model_dump(exclude_none=True))
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "3C"} for call in calls]
    second = openai_sdk.chat.completions.create(model=wire, messages=messages, tools=tools)
    assert second.choices[0].message.content == providers[wire].text
    assert second.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("wire", WIRES)
def test_parallel_tools_streamed(openai_sdk, wire):
    tools = [tool("weather"), tool("time")]
    calls: dict[int, dict] = {}
    finish = None
    for chunk in openai_sdk.chat.completions.create(model=wire, messages=HELLO, tools=tools, stream=True):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": None, "name": None, "arguments": ""})
                call["id"] = part.id or call["id"]
                call["name"] = part.function.name or call["name"]
                call["arguments"] += part.function.arguments or ""
    assert finish == "tool_calls"
    assert [calls[index]["name"] for index in (0, 1)] == ["weather", "time"]
    assert [json.loads(calls[index]["arguments"]) for index in (0, 1)] == [{"city": "Oslo"}] * 2
    assert calls[0]["id"] and calls[1]["id"] and calls[0]["id"] != calls[1]["id"]


@pytest.mark.parametrize("wire", WIRES)
def test_tool_choice_and_parallel_calls_are_kept(openai_sdk, wire):
    tools = [tool("weather"), tool("time")]
    named = {"type": "function", "function": {"name": "time"}}
    answer = openai_sdk.chat.completions.create(model=wire, messages=HELLO, tools=tools, tool_choice=named)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["time"]
    answer = openai_sdk.chat.completions.create(model=wire, messages=HELLO, tools=tools, parallel_tool_calls=False)
    assert len(answer.choices[0].message.tool_calls) == 1
    answer = openai_sdk.chat.completions.create(model=wire, messages=HELLO, tools=tools, tool_choice="none")
    assert not answer.choices[0].message.tool_calls


@pytest.mark.parametrize("model, wire", [("openai-embed", "openai"), ("azure-embed", "azure")])
def test_embeddings(openai_sdk, providers, model, wire):
    answer = openai_sdk.embeddings.create(model=model, input=["a", "b"])
    assert [item.embedding for item in answer.data] == [[0.25, -0.5, 0.125]] * 2
    assert answer.usage.prompt_tokens == 11
    assert providers[wire].last.json["input"] == ["a", "b"]
    floats = openai_sdk.embeddings.create(model=model, input="a", encoding_format="float", dimensions=2)
    assert floats.data[0].embedding == [0.25, -0.5]


@pytest.mark.parametrize("model, wire", [("openai-text", "openai"), ("azure", "azure"), ("anthropic", "anthropic")])
def test_completions(openai_sdk, providers, model, wire):
    answer = openai_sdk.completions.create(model=model, prompt="Say hi", max_tokens=20)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == providers[wire].text and answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == 18


@pytest.mark.parametrize("model, wire", [("openai-text", "openai"), ("azure", "azure"), ("anthropic", "anthropic")])
def test_streamed_completions(openai_sdk, providers, model, wire):
    chunks = list(openai_sdk.completions.create(model=model, prompt="Say hi", max_tokens=20, stream=True))
    assert "".join(chunk.choices[0].text or "" for chunk in chunks if chunk.choices) == providers[wire].text
    assert not any(chunk.usage for chunk in chunks)


def test_models(openai_sdk):
    ids = [model.id for model in openai_sdk.models.list()]
    assert {"openai", "azure", "anthropic", "openai-embed", "alias-of-openai"} <= set(ids)
    assert len(ids) == len(set(ids))


CLASSES = {
    "bad_request": (openai.BadRequestError, 400, "BadRequestError"),
    "context_window": (openai.BadRequestError, 400, "ContextWindowExceededError"),
    "content_policy": (openai.BadRequestError, 400, "ContentPolicyViolationError"),
    "auth": (openai.AuthenticationError, 401, "AuthenticationError"),
    "permission": (openai.PermissionDeniedError, 403, "PermissionDeniedError"),
    "not_found": (openai.NotFoundError, 404, "NotFoundError"),
    "rate_limit": (openai.RateLimitError, 429, "RateLimitError"),
    "server": (openai.InternalServerError, 500, "InternalServerError"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("wire", WIRES)
def test_errors(openai_sdk, providers, wire, kind, stream):
    expected, code, name = CLASSES[kind]
    mock = providers[wire]
    mock.script(mock.error(kind))
    with pytest.raises(expected) as caught:
        openai_sdk.chat.completions.create(model=wire, messages=HELLO, stream=stream)
    error = caught.value
    assert error.status_code == code and error.code == str(code)
    assert f"litellm.{name}" in error.body["message"]
    assert mock.error_answer(kind)[1]["error"]["message"] in error.body["message"]
    assert len(mock.requests) == 1, "no retries are configured"


@pytest.mark.parametrize("wire, code", [("openai", 503), ("azure", 503), ("anthropic", 500)])
def test_overloaded_provider(openai_sdk, providers, wire, code):
    providers[wire].script(providers[wire].error("unavailable"))
    with pytest.raises(openai.InternalServerError) as caught:
        openai_sdk.chat.completions.create(model=wire, messages=HELLO)
    assert caught.value.status_code == code


@pytest.mark.parametrize("wire", WIRES)
def test_timeout_is_408(openai_sdk, providers, wire):
    providers[wire].script(hang())
    with pytest.raises(openai.APIStatusError) as caught:
        openai_sdk.chat.completions.create(model=f"{wire}-slow", messages=HELLO)
    assert caught.value.status_code == 408 and "litellm.Timeout" in caught.value.body["message"]
    providers[wire].wait_requests(1)[0].wait_gone()


def test_unknown_model(openai_sdk):
    with pytest.raises(openai.BadRequestError) as caught:
        openai_sdk.chat.completions.create(model="no-such-model", messages=HELLO)
    assert "Invalid model name passed in model=no-such-model" in caught.value.body["message"]


class Place(pydantic.BaseModel):
    """The schema of the structured answer."""

    city: str
    population: int


@pytest.mark.parametrize("wire", WIRES)
def test_json_schema_output(openai_sdk, wire):
    answer = openai_sdk.chat.completions.parse(model=wire, messages=HELLO, response_format=Place)
    assert answer.choices[0].message.parsed == Place(city="Oslo", population=3)
    assert answer.choices[0].finish_reason == "stop" and not answer.choices[0].message.tool_calls


@pytest.mark.parametrize("wire", WIRES)
def test_json_schema_output_streamed(openai_sdk, wire):
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": Place.model_json_schema()}}
    chunks = list(openai_sdk.chat.completions.create(model=wire, messages=HELLO, response_format=schema, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert json.loads(text) == {"city": "Oslo", "population": 3}
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason] == ["stop"]


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="


@pytest.mark.parametrize("wire", WIRES)
def test_images(openai_sdk, providers, wire):
    data = f"data:image/png;base64,{PIXEL}"
    link = "https://images.example/cat.jpg"
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "image_url", "image_url": {"url": link}},
    ]
    answer = openai_sdk.chat.completions.create(model=wire, messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content == providers[wire].text
    blocks = providers[wire].last.json["messages"][0]["content"]
    if wire == "anthropic":
        assert blocks[1]["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
        assert blocks[2]["source"] == {"type": "url", "url": link}
    else:
        assert [block["image_url"]["url"] for block in blocks[1:]] == [data, link]


def test_thinking_by_reasoning_effort(openai_sdk, providers):
    answer = openai_sdk.chat.completions.create(model="anthropic", messages=HELLO, reasoning_effort="low")
    sent = providers.anthropic.last.json
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 1024} and sent["max_tokens"] > 1024
    message = answer.choices[0].message
    assert message.content == providers.anthropic.text
    assert message.reasoning_content == "The user greets me."
    assert message.thinking_blocks[0]["signature"] == "c2lnbmF0dXJl"


def test_thinking_streamed_and_given_back(openai_sdk, providers):
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    chunks = openai_sdk.chat.completions.create(
        model="anthropic", messages=HELLO, stream=True, max_tokens=4000, extra_body=thinking
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "The user greets me."
    assert "".join(delta.content or "" for delta in deltas) == providers.anthropic.text

    block = {"type": "thinking", "thinking": "The user greets me.", "signature": "c2lnbmF0dXJl"}
    history = [*HELLO, {"role": "assistant", "content": "hello", "thinking_blocks": [block]}, {"role": "user", "content": "more"}]
    openai_sdk.chat.completions.create(model="anthropic", messages=history, max_tokens=4000, extra_body=thinking)
    assert providers.anthropic.last.json["messages"][1]["content"] == [block, {"type": "text", "text": "hello"}]


def test_the_sdk_puts_streamed_thinking_together(openai_sdk, providers):
    with openai_sdk.chat.completions.stream(model="anthropic", messages=HELLO, reasoning_effort="low") as stream:
        message = stream.get_final_completion().choices[0].message
    (block,) = message.thinking_blocks
    assert (block["thinking"], block["signature"]) == ("The user greets me.", "c2lnbmF0dXJl")

    history = [*HELLO, {"role": "assistant", "content": "hello", "thinking_blocks": [block]}, {"role": "user", "content": "more"}]
    openai_sdk.chat.completions.create(model="anthropic", messages=history, reasoning_effort="low")
    sent = providers.anthropic.last.json["messages"][1]["content"][0]
    assert sent == {"type": "thinking", "thinking": "The user greets me.", "signature": "c2lnbmF0dXJl"}


def test_unknown_parameters_reach_the_provider(openai_sdk, providers):
    openai_sdk.chat.completions.create(model="openai", messages=HELLO, extra_body={"brand_new_parameter": {"a": [1, None]}})
    assert providers.openai.last.json["brand_new_parameter"] == {"a": [1, None]}


def test_azure_sdk_paths(gateway, providers):
    with openai.AzureOpenAI(api_key="sk-x", azure_endpoint=gateway.url, api_version="2024-10-21", max_retries=0) as sdk:
        for model in ("azure", "openai", "anthropic"):
            answer = sdk.chat.completions.create(model=model, messages=HELLO)
            assert answer.choices[0].message.content == providers[model].text
    assert providers.azure.last.query == {"api-version": "2024-10-21"}


@pytest.mark.parametrize("wire", WIRES)
def test_async_client_with_many_streams(gateway, providers, wire):
    async def one(sdk: openai.AsyncOpenAI) -> str:
        stream = await sdk.chat.completions.create(model=wire, messages=HELLO, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(api_key="x", base_url=f"{gateway.url}/v1", max_retries=0) as sdk:
            return await asyncio.gather(*(one(sdk) for _ in range(40)))

    assert set(asyncio.run(all_of_them())) == {providers[wire].text}


def test_a_wrong_key_is_an_authentication_error(locked_gateway, providers):
    with openai.OpenAI(api_key="nonsense", base_url=f"{locked_gateway.url}/v1", max_retries=0) as sdk:
        with pytest.raises(openai.AuthenticationError) as caught:
            sdk.chat.completions.create(model="openai", messages=HELLO)
        assert caught.value.type == "auth_error" and caught.value.code == "401"
        with pytest.raises(openai.AuthenticationError):
            list(sdk.chat.completions.create(model="openai", messages=HELLO, stream=True))
        with pytest.raises(openai.AuthenticationError):
            sdk.models.list()
    assert not providers.openai.requests
    with openai.OpenAI(api_key=MASTER_KEY, base_url=f"{locked_gateway.url}/v1", max_retries=0) as sdk:
        assert sdk.chat.completions.create(model="openai", messages=HELLO).choices[0].message.content == providers.openai.text


def test_a_silent_gateway_is_the_sdks_own_timeout(openai_sdk, providers):
    providers.openai.script(hang())
    with pytest.raises(openai.APITimeoutError):
        openai_sdk.chat.completions.create(model="openai", messages=HELLO, timeout=0.3)
    providers.openai.wait_requests(1)[0].wait_gone()
