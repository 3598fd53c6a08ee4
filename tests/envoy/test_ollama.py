"""Ollama's own chat API behind every client API: lines become events, settings go under `options`, pictures beside the text."""

from __future__ import annotations

import base64
import json

import pytest

from gateway import Gateway, chunks_of, deployment, events_of, text_of
from mock_provider import OllamaMock, ok, split

LINES = [("content-type", "application/x-ndjson")]
PICTURE = base64.b64encode(b"\x89PNG").decode()
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    mock = OllamaMock()
    models = [deployment("llama", mock.params() | {"num_ctx": 4096}, id="llama-1")]
    gateway = Gateway(tmp_path_factory.mktemp("ollama"), {"model_list": models, "router_settings": {"num_retries": 0, "disable_cooldowns": True}})
    yield gateway, mock
    gateway.stop()
    mock.stop()


@pytest.fixture
def ollama(world):
    world[1].clear()
    return world


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_a_chat_goes_in_its_own_words(ollama, stream):
    gateway, mock = ollama
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
    ]
    answer = gateway.chat("llama", content, stream=stream, max_tokens=9, temperature=0.5, stop="END", frequency_penalty=1.5)
    assert answer.status_code == 200, answer.text
    text = text_of(chunks_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]
    assert text == mock.text
    assert answer.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
    assert mock.last.json == {
        "model": "llama3.2",
        "messages": [{"role": "user", "content": "What is this?", "images": [PICTURE]}],
        "stream": stream,
        "options": {"num_predict": 9, "stop": ["END"], "temperature": 0.5, "repeat_penalty": 1.5, "num_ctx": 4096},
    }


def test_usage_and_model_are_told_and_charged(ollama):
    gateway, _ = ollama
    whole = gateway.chat("llama")
    wanted = (11, 7, 18)
    usage = whole.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == wanted
    assert whole.json()["model"] == "ollama_chat/llama3.2"
    answer = gateway.chat("llama", stream=True, stream_options={"include_usage": True})
    chunks = chunks_of(answer.content)
    assert chunks[-1]["usage"]["total_tokens"] == 18
    assert not any("usage" in chunk for chunk in chunks_of(gateway.chat("llama", stream=True).content))
    record = gateway.access_record(answer.headers["x-litellm-call-id"])
    assert record["total_tokens"] == 18, record


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_tools_are_called_and_answered(ollama, stream):
    gateway, mock = ollama
    answer = gateway.chat("llama", "Weather?", tools=[TOOL], tool_choice="auto", stream=stream)
    assert answer.status_code == 200, answer.text
    if stream:
        chunks = chunks_of(answer.content)
        calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls") or []]
        reason = [chunk["choices"][0].get("finish_reason") for chunk in chunks if chunk["choices"][0].get("finish_reason")]
        assert reason == ["tool_calls"]
    else:
        choice = answer.json()["choices"][0]
        calls = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"city": "Oslo"}]
    assert calls[0]["id"] and calls[0]["type"] == "function"
    history = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{k: calls[0][k] for k in ("id", "type", "function")}]},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": "sunny"},
    ]
    answer = gateway.chat("llama", messages=history, tools=[TOOL], stream=stream)
    assert answer.status_code == 200, answer.text
    sent = mock.last.json["messages"]
    assert sent[1]["tool_calls"] == [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]
    assert sent[2] == {"role": "tool", "content": "sunny", "tool_name": "weather"}


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_anthropic_clients_get_there_too(ollama, stream):
    gateway, mock = ollama
    answer = gateway.messages("llama", system="Be brief.", stream=stream)
    assert answer.status_code == 200, answer.text
    if stream:
        events = [json.loads(data) for _, data in events_of(answer.content)]
        text = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
        assert events[-1]["type"] == "message_stop" and events[-2]["usage"]["output_tokens"] == 7
    else:
        text = answer.json()["content"][0]["text"]
        assert answer.json()["usage"] == {"input_tokens": 11, "output_tokens": 7}
    assert text == mock.text
    assert mock.last.json["messages"][0] == {"role": "system", "content": "Be brief."}


def test_lines_in_pieces_are_the_same_stream(ollama):
    gateway, mock = ollama
    for size in (1, 7, 64):
        mock.script(split(size))
        assert text_of(chunks_of(gateway.chat("llama", stream=True).content)) == mock.text


def test_a_stream_that_breaks_off_is_told(ollama):
    gateway, mock = ollama
    mock.script(ok(b'{"message":{"role":"assistant","content":"Hel"},"done":false}\n', headers=LINES))
    events = [json.loads(data) for _, data in events_of(gateway.chat("llama", stream=True).content)]
    assert text_of(events[:1]) == "Hel" and "ended before" in events[-1]["error"]["message"]


@pytest.mark.parametrize(
    "kind, status, error",
    [
        ("bad_request", 400, "BadRequestError"),
        ("context_window", 400, "ContextWindowExceededError"),
        ("auth", 401, "AuthenticationError"),
        ("not_found", 404, "NotFoundError"),
        ("rate_limit", 429, "RateLimitError"),
        ("server", 500, "InternalServerError"),
        ("unavailable", 503, "ServiceUnavailableError"),
    ],
)
def test_its_errors_are_litellms(ollama, kind, status, error):
    gateway, mock = ollama
    mock.script(mock.error(kind))
    answer = gateway.chat("llama")
    told = answer.json()["error"]["message"]
    assert answer.status_code == status and error in told and mock.error_answer(kind)[1]["error"] in told, answer.text


def test_an_error_in_place_of_the_first_line_is_an_error(ollama):
    gateway, mock = ollama
    mock.script(ok(b'{"error":"model runner has unexpectedly stopped"}\n', headers=LINES))
    answer = gateway.chat("llama", stream=True)
    assert answer.status_code == 500 and "model runner has unexpectedly stopped" in answer.text, answer.text


def test_what_it_cannot_take_is_refused_before_it_is_called(ollama):
    gateway, mock = ollama
    picture = [{"type": "image_url", "image_url": {"url": "https://pictures.test/a.png"}}]
    answer = gateway.chat("llama", picture)
    assert answer.status_code == 400 and "messages[0].content[0].image_url.url" in answer.text, answer.text
    answer = gateway.chat("llama", n=2)
    assert answer.status_code == 400 and "ollama_chat does not support parameters: ['n']" in answer.text, answer.text
    assert not mock.requests
