"""The largest answers and events, the longest silence, the most streams at once: none is cut, changed or mixed up with another."""

from __future__ import annotations

import concurrent.futures
import json
from typing import Any, Iterator

import httpx
import pytest
import yaml

from gateway import Gateway, chunks_of, command, deployment, events_of, text_of
from mock_provider import OpenAiMock, ok, split

STREAM = (("content-type", "text/event-stream"),)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_40_mb_answer_passes(gateway, providers, wire):
    providers[wire].text = "0123456789abcdef" * (40 << 16)
    if wire == "openai":
        said = gateway.chat(wire).json()["choices"][0]["message"]["content"]
    else:
        said = gateway.messages(wire).json()["content"][0]["text"]
    assert said == providers[wire].text


@pytest.mark.timeout(120)
@pytest.mark.parametrize("api", ["chat", "messages"])
def test_an_event_of_31_mb_goes_through(gateway, providers, api):
    """As an image in a stream has it; passed to the one client, translated for the other."""
    text = "0123456789abcdef" * (31 << 16)
    chunks: list[dict[str, Any]] = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        for choice in (
            {"index": 0, "delta": {"role": "assistant", "content": text[:-200]}, "finish_reason": None},
            {"index": 0, "delta": {}, "finish_reason": "stop"},
        )
    ]
    frames = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    providers.openai.script(ok("".join([*frames, "data: [DONE]\n\n"]).encode(), STREAM) | split(1 << 16))
    answer = getattr(gateway, api)("openai", stream=True)
    if api == "chat":
        assert text_of(chunks_of(answer.content)) == text[:-200]
        return
    events = [json.loads(data) for _, data in events_of(answer.content)]
    assert "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta") == text[:-200]


def members(rendered: Any, name: str) -> Iterator[Any]:
    """The values of every member of that name."""
    for key, value in rendered.items() if isinstance(rendered, dict) else enumerate(rendered) if isinstance(rendered, list) else ():
        if key == name:
            yield value
        yield from members(value, name)


@pytest.mark.parametrize("timeout", [None, 20_000], ids=["default", "20000 s"])
def test_no_part_of_envoy_is_less_patient_than_the_configuration(tmp_path, timeout):
    """A model may say nothing for long, and everything between it and the client has to bear it."""
    entry = {"model": "openai/m", "api_base": "http://127.0.0.1:9/v1", "api_key": "k"} | ({"timeout": timeout} if timeout else {})
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"model_list": [deployment("a", entry)]}))
    done = command("render", "--config", str(config))
    assert done.returncode == 0, done.stderr
    rendered = yaml.safe_load(done.stdout)
    # LiteLLM's default: 6000 s. 0 is no limit.
    wanted = timeout or 6000
    routes = [route for route in members(rendered, "route") if "cluster_header" in route]
    limits = [*members(rendered, "stream_idle_timeout"), *(route["timeout"] for route in routes)]
    assert len(routes) > 0 and len(limits) > len(routes)
    limits += [limit for route in routes for name in ("idle_timeout", "max_stream_duration") for limit in members(route, name)]
    seconds = [float(limit.removesuffix("s")) for limit in limits]
    assert all(limit == 0 or limit >= wanted for limit in seconds), limits


class Echo(OpenAiMock):
    """A model that says what it is told."""

    def say(self, body: dict) -> tuple[dict, str]:
        return {"role": "assistant", "content": body["messages"][-1]["content"], "refusal": None}, "stop"

    def chat_chunks(self, head: dict, message: dict, finish: str, usage: Any) -> list[dict]:
        first, *rest = super().chat_chunks(head, message | {"content": ""}, finish, usage)
        texts = [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None} for word in message["content"].split(" ")]
        return [first, *(head | {"choices": [text]} for text in texts), *rest]


STREAMS = 120


@pytest.fixture(scope="module")
def echoing(tmp_path_factory) -> Iterator[tuple[Gateway, Echo]]:
    echo = Echo(name="echo")
    gateway = Gateway(tmp_path_factory.mktemp("echo"), {"model_list": [deployment("echo", echo.params())]})
    yield gateway, echo
    gateway.stop()
    echo.stop()


@pytest.mark.timeout(120)
def test_120_streams_at_once_each_get_their_own_events(echoing):
    """Half of the clients speak another API, a third HTTP/2; the pieces come cut anywhere, in turns."""
    gateway, echo = echoing
    echo.default = split(61)

    def stream(number: int) -> None:
        said = " ".join(f"{number}-{word}" for word in range(60))
        messages = [{"role": "user", "content": said}]
        path = "/v1/messages" if number % 2 else "/v1/chat/completions"
        body = {"model": "echo", "messages": messages, "max_tokens": 100, "stream": True}
        with httpx.Client(base_url=gateway.url, timeout=60, trust_env=False, http1=number % 3 != 0, http2=number % 3 == 0) as own:
            answer = own.post(path, json=body)
        if number % 2:
            events = [json.loads(data) for _, data in events_of(answer.content)]
            heard = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        else:
            heard = text_of(chunks_of(answer.content))
        assert heard == f"{said} "

    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(stream, range(STREAMS)))
    assert echo.peak > 10, "they were not there at once"
