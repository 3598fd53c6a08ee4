"""The mocks themselves: the real SDKs straight at them, every behaviour, and the refusals that make them strict."""

from __future__ import annotations

import socket

import anthropic
import httpx
import openai
import pytest

from gateway import chunks_of, events_of, text_of
from mock_provider import (
    AnthropicMock,
    AzureMock,
    Behaviour,
    Gate,
    OpenAiMock,
    RefusedPort,
    chunked,
    closing,
    gated,
    gzip,
    hang,
    ok,
    reset,
    split,
    status,
    trailers,
)

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
    for name in ("weather", "time")
]
HELLO = [{"role": "user", "content": "hi"}]


def ask(mock: OpenAiMock, **body: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {mock.key}"}
    body = {"model": "m", "messages": HELLO} | body
    return httpx.post(f"{mock.base}/chat/completions", json=body, headers=headers, trust_env=False)


@pytest.fixture
def openai_mock(mocks):
    return mocks(OpenAiMock)


def openai_sdk(mock: OpenAiMock) -> openai.OpenAI:
    if isinstance(mock, AzureMock):
        return openai.AzureOpenAI(api_key=mock.key, azure_endpoint=mock.origin, api_version="2024-10-21", max_retries=0)
    return openai.OpenAI(api_key=mock.key, base_url=mock.base, max_retries=0)


@pytest.mark.parametrize("kind", [OpenAiMock, AzureMock])
def test_openai_sdk_gets_what_it_expects(mocks, kind):
    mock = mocks(kind)
    with openai_sdk(mock) as sdk:
        assert sdk.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == mock.text
        stream = sdk.chat.completions.create(model="m", messages=HELLO, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == mock.text
        assert chunks[-1].usage.total_tokens == 18
        calls = sdk.chat.completions.create(model="m", messages=HELLO, tools=TOOLS).choices[0].message.tool_calls
        assert [call.function.name for call in calls] == ["weather", "time"]
        assert sdk.embeddings.create(model="m", input=["a", "b"]).data[1].embedding == [0.25, -0.5, 0.125]
        assert sdk.completions.create(model="m", prompt="a").choices[0].text == mock.text


def test_anthropic_sdk_gets_what_it_expects(mocks):
    mock = mocks(AnthropicMock)
    mock.bearer = True
    tools = [{"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in TOOLS]
    with anthropic.Anthropic(api_key=mock.key, base_url=mock.base, max_retries=0) as sdk:
        assert sdk.messages.create(model="m", max_tokens=9, messages=HELLO).content[0].text == mock.text
        with sdk.messages.stream(model="m", max_tokens=9, messages=HELLO, tools=tools) as stream:
            message = stream.get_final_message()
        assert [block.input for block in message.content if block.type == "tool_use"] == [{"city": "Oslo"}] * 2
        assert message.stop_reason == "tool_use" and message.usage.output_tokens == 7
        thinking = {"type": "enabled", "budget_tokens": 1024}
        message = sdk.messages.create(model="m", max_tokens=2048, messages=HELLO, thinking=thinking)
        assert [block.type for block in message.content] == ["thinking", "text"]


ERRORS = [
    ("bad_request", openai.BadRequestError, anthropic.BadRequestError),
    ("context_window", openai.BadRequestError, anthropic.BadRequestError),
    ("content_policy", openai.BadRequestError, anthropic.BadRequestError),
    ("auth", openai.AuthenticationError, anthropic.AuthenticationError),
    ("permission", openai.PermissionDeniedError, anthropic.PermissionDeniedError),
    ("not_found", openai.NotFoundError, anthropic.NotFoundError),
    ("rate_limit", openai.RateLimitError, anthropic.RateLimitError),
    ("server", openai.InternalServerError, anthropic.InternalServerError),
    ("unavailable", openai.InternalServerError, anthropic.APIStatusError),
]


@pytest.mark.parametrize("kind, of_openai, of_anthropic", ERRORS)
def test_errors_are_the_sdks_exceptions(mocks, kind, of_openai, of_anthropic):
    for mock in (mocks(OpenAiMock), mocks(AzureMock)):
        mock.script(mock.error(kind))
        with openai_sdk(mock) as sdk, pytest.raises(of_openai):
            sdk.chat.completions.create(model="m", messages=HELLO)
    mock = mocks(AnthropicMock)
    mock.script(mock.error(kind))
    with anthropic.Anthropic(api_key=mock.key, base_url=mock.base, max_retries=0) as sdk, pytest.raises(of_anthropic):
        sdk.messages.create(model="m", max_tokens=9, messages=HELLO)


@pytest.mark.parametrize("kind", [OpenAiMock, AzureMock])
def test_wrong_key_is_refused(mocks, kind):
    mock = mocks(kind)
    real, mock.key = mock.key, "other"
    with openai_sdk(mock) as sdk:
        mock.key = real
        with pytest.raises(openai.AuthenticationError):
            sdk.chat.completions.create(model="m", messages=HELLO)


@pytest.mark.parametrize(
    "how",
    [
        ok(),
        split(1),
        gzip(),
        chunked(),
        closing(),
        split(1) | gzip(),
        split(3) | chunked(),
        trailers(("x-trailer", "1")),
    ],
    ids=["ok", "split", "gzip", "chunked", "closing", "split gzip", "split chunked", "trailers"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_transports_carry_the_same_answer(openai_mock, how, stream):
    openai_mock.script(how)
    answer = ask(openai_mock, stream=stream)
    assert answer.status_code == 200
    text = text_of(chunks_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]
    assert text == openai_mock.text


@pytest.mark.parametrize(
    "how", [reset("request"), reset("headers"), reset("stream", after=2)], ids=["request", "headers", "stream"]
)
def test_resets_break_the_connection(openai_mock, how):
    openai_mock.script(how)
    with pytest.raises(httpx.TransportError):
        ask(openai_mock, stream=True)
    assert ask(openai_mock).status_code == 200, "the next request is served"


def test_hanging_ends_when_the_client_goes(openai_mock):
    openai_mock.script(hang())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{openai_mock.base}/chat/completions", json={}, timeout=0.1, trust_env=False)
    openai_mock.wait_requests(1)[0].wait_gone()


def test_a_gate_holds_the_answer_until_it_is_opened(openai_mock):
    gate = Gate()
    openai_mock.script(gated(gate, after=2))
    headers = {"authorization": f"Bearer {openai_mock.key}"}
    body = {"model": "m", "messages": HELLO, "stream": True}
    with httpx.stream("POST", f"{openai_mock.base}/chat/completions", json=body, headers=headers, trust_env=False) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data:")
        gate.wait_reached()
        gate.open()
        assert list(lines)[-2] == "data: [DONE]"


def test_scripts_are_used_up_in_order(openai_mock):
    openai_mock.script(status(500), openai_mock.error("rate_limit"), ok(headers=[("x-a", "b")]))
    assert [ask(openai_mock).status_code for _ in range(4)] == [500, 429, 200, 200]
    assert len(openai_mock.requests) == 4 and openai_mock.last.json["messages"] == HELLO


def test_chunked_uploads_and_expect_are_read(openai_mock):
    with socket.create_connection(("127.0.0.1", openai_mock.port), timeout=5) as sock:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {openai_mock.key}\r\n"
        head += "content-type: application/json\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(b'6\r\n{"mode\r\n3\r\nl":\r\n3\r\n"m"\r\n1\r\n}\r\n0\r\n\r\n')
        assert sock.recv(1000).startswith(b"HTTP/1.1 400"), "messages are missing"
    assert openai_mock.last.json == {"model": "m"}


def test_a_refused_port_refuses():
    port = RefusedPort()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port.port), timeout=5)
    port.stop()


def test_behaviours_combine():
    both = status(500) | gzip() | split(2)
    assert both == Behaviour(status=500, body=both.body, gzip=True, split=2)


CALL = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "3C"}
WEATHER = [{"name": "weather", "input_schema": {"type": "object"}}]


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


REFUSED_BY_ANTHROPIC = {
    "max_tokens missing": {"max_tokens": None},
    "system role": {"messages": [{"role": "system", "content": "a"}, user("b")]},
    "first is assistant": {"messages": [assistant("a"), user("b")]},
    "two users": {"messages": [user("a"), user("b")]},
    "empty text": {"messages": [user([{"type": "text", "text": ""}])]},
    "openai part": {"messages": [user([{"type": "image_url", "image_url": {"url": "a"}}])]},
    "openai tools": {"tools": TOOLS},
    "openai parameter": {"n": 2},
    "openai stop": {"stop": ["a"]},
    "no result": {"messages": [user("a"), assistant([CALL]), user("b")], "tools": WEATHER},
    "no call": {"messages": [user("a"), assistant("b"), user([RESULT])], "tools": WEATHER},
    "result after text": {
        "messages": [user("a"), assistant([CALL]), user([{"type": "text", "text": "b"}, RESULT])],
        "tools": WEATHER,
    },
    "tools missing": {"messages": [user("a"), assistant([CALL]), user([RESULT])]},
    "choice as text": {"tools": WEATHER, "tool_choice": "auto"},
    "thinking too large": {"thinking": {"type": "enabled", "budget_tokens": 4096}},
    "tool call ends it": {"messages": [user("a"), assistant([CALL])], "tools": WEATHER},
}


@pytest.mark.parametrize("change", REFUSED_BY_ANTHROPIC.values(), ids=REFUSED_BY_ANTHROPIC.keys())
def test_anthropic_mock_is_strict(mocks, change):
    mock = mocks(AnthropicMock)
    body = {"model": "m", "max_tokens": 64, "messages": HELLO} | change
    body = {name: value for name, value in body.items() if value is not None}
    headers = {"x-api-key": mock.key, "anthropic-version": "2023-06-01"}
    answer = httpx.post(f"{mock.base}/v1/messages", json=body, headers=headers, trust_env=False)
    assert answer.status_code == 400 and answer.json()["type"] == "error"


REFUSED_BY_OPENAI = {
    "anthropic system": {"system": "a"},
    "gateway parameter": {"num_retries": 1},
    "anthropic tools": {"tools": WEATHER},
    "tool without call": {"messages": [*HELLO, {"role": "tool", "tool_call_id": "x", "content": "a"}]},
    "null content": {"messages": [{"role": "user", "content": None}]},
    "anthropic part": {"messages": [user([{"type": "image", "source": {}}])]},
    "messages of numbers": {"messages": [1]},
    "usage without stream": {"stream_options": {"include_usage": True}},
}


@pytest.mark.parametrize("change", REFUSED_BY_OPENAI.values(), ids=REFUSED_BY_OPENAI.keys())
def test_openai_mock_is_strict(openai_mock, change):
    assert ask(openai_mock, **change).status_code == 400


def test_azure_wants_its_path_and_version(mocks):
    mock = mocks(AzureMock)
    headers = {"api-key": mock.key}
    path = f"{mock.origin}/openai/deployments/d/chat/completions"
    body = {"messages": HELLO, "stream": True}
    assert httpx.post(path, json=body, headers=headers, trust_env=False).status_code == 404
    answer = httpx.post(f"{path}?api-version=1", json=body, headers=headers, trust_env=False)
    first = chunks_of(answer.content)[0]
    assert first["choices"] == [] and first["prompt_filter_results"]


def test_events_are_read_with_their_names():
    assert events_of(b": ping\n\nevent: a\ndata: 1\ndata: 2\n\ndata: [DONE]\n\n") == [("a", "1\n2"), (None, "[DONE]")]
