"""Responses with a good status that are none, and streams that fail, end or break before their answer begins: on a real Envoy they are
retried, fall over and are told like failures with a status."""

from __future__ import annotations

import json

import pytest

from gateway import Gateway, chunks_of, deployment, events_of, text_of
from mock_provider import AnthropicMock, Gate, GenerateMock, OpenAiMock, gated, ok, reset
from mock_provider.server import Answer

SSE = "text/event-stream; charset=utf-8"
WORDS = "This model's maximum context length is 4097 tokens"
PROCESSING = ": OPENROUTER PROCESSING\n\n"


def event(data: dict, name: str | None = None) -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


def chunk(delta: dict, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


class _Scripted:
    """A provider whose stream is what the test says, whatever is asked."""

    frames: list[str] | None = None

    def answer(self, request):
        if self.frames is None:
            return super().answer(request)
        return Answer(200, [frame.encode() for frame in self.frames], SSE)


class ChatMock(_Scripted, OpenAiMock):
    pass


class ClaudeMock(_Scripted, AnthropicMock):
    pass


class TextMock(_Scripted, GenerateMock):
    pass


TEMPLATE = {"initial_prompt_value": ">", "eos_token": "</s>"}
"""With one the server is asked in its own format."""


class World:
    """Groups whose provider fails, and those that they fall back to."""

    def __init__(self, directory) -> None:
        self.chat, self.claude, self.generate = ChatMock(name="chat"), ClaudeMock(name="claude"), TextMock(name="generate")
        self.spare, self.long = OpenAiMock(name="spare"), OpenAiMock(name="long")
        self.claude2 = AnthropicMock(name="claude2")
        groups = {
            "s": self.chat, "alone": self.chat, "m": self.claude, "alone-m": self.claude, "g": self.generate, "alone-g": self.generate,
            "s2": self.spare, "m2": self.claude2, "long": self.long,
        }  # fmt: skip
        self.gateway = Gateway(
            directory,
            {
                "model_list": [
                    deployment(name, mock.params() | (TEMPLATE if mock is self.generate else {}), id=name)
                    for name, mock in groups.items()
                ]
                + [deployment("quick", self.chat.params() | {"stream_timeout": 0.6}, id="quick")],
                "litellm_settings": {
                    "num_retries": 0,
                    "fallbacks": [{"s": ["s2"]}, {"m": ["m2"]}, {"g": ["s2"]}, {"quick": ["s2"]}],
                    "context_window_fallbacks": [{"s": ["long"]}, {"m": ["long"]}],
                },
                "router_settings": {"disable_cooldowns": True},
            },
        )

    def mocks(self):
        return [self.chat, self.claude, self.generate, self.spare, self.long, self.claude2]


@pytest.fixture(scope="module")
def module_world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("verdicts"))
    yield world
    world.gateway.stop()
    for mock in world.mocks():
        mock.stop()


@pytest.fixture
def world(module_world):
    for mock in module_world.mocks():
        mock.clear()
        if isinstance(mock, _Scripted):
            mock.frames = None
    return module_world


def ask(world: World, api: str, model: str, **body):
    return world.gateway.chat(model, **body) if api == "chat" else world.gateway.messages(model, **body)


def served_by(answer, model: str) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-litellm-model-group"] == model
    assert answer.headers["x-litellm-attempted-fallbacks"] == "1"
    assert "error" not in answer.text and "PROCESSING" not in answer.text, answer.text


BODIES = [
    ({"error": {"message": "Provider returned error", "code": 429}}, "s2", 429),
    ({"choices": None}, "s2", 500),
    ({}, "s2", 500),
    ({"object": "error", "message": "down", "code": 500}, "s2", 500),
    ({"error": {"message": WORDS, "code": 400}}, "long", 400),
    ({"error": {"message": WORDS, "type": "invalid_request_error", "code": "context_length_exceeded"}}, "long", 400),
]


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("body, place, code", BODIES)
def test_a_body_that_is_no_answer_is_a_failed_attempt(world, api, body, place, code):
    world.chat.script(ok(body))
    served_by(ask(world, api, "s"), place)
    world.chat.script(ok(body, headers=[("retry-after", "7")]))
    answer = ask(world, api, "alone")
    assert answer.status_code == code, answer.text
    assert answer.headers["retry-after"] == "7"
    error = answer.json()["error"]
    assert error["message"].startswith("litellm.")
    assert answer.json().get("type") == ("error" if api == "messages" else None)


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_an_overloaded_anthropic_is_a_failed_attempt(world, api, stream):
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    if stream:
        start = {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
                 "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}}  # fmt: skip
        world.claude.frames = [event(start, "message_start"), event({"type": "ping"}, "ping"), event(overloaded, "error")]
    else:
        world.claude.script(ok(overloaded))
    served_by(ask(world, api, "m", stream=stream), "m2")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
@pytest.mark.parametrize("body", [{"error": {"message": "no", "code": 503}}, {"data": None, "choices": None}])
def test_other_apis_fail_with_a_good_status_too(world, path, body):
    world.chat.script(ok(body))
    answer = world.gateway.client.post(path, json={"model": "s", "input": "hi", "prompt": "hi"})
    world.spare.clear()
    served_by(answer, "s2")


PRELUDES = {
    "nothing": [],
    "comments": [PROCESSING] * 3,
    "retry and id": ["retry: 1000\n\n", "id: 1\n\n"],
    "empty choices": [event({"id": "", "choices": [], "prompt_filter_results": []})],
    "a role": [PROCESSING, chunk({"role": "assistant", "content": ""})],
}
OPENROUTER = {"error": {"code": 502, "message": "boom"}, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}
ENDS = {
    "error": ([event({"error": {"message": "boom", "code": 500}})], "s2"),
    "OpenRouter's": ([event(OPENROUTER)], "s2"),
    "too long": ([event({"error": {"message": WORDS, "type": "invalid_request_error", "code": "context_length_exceeded"}})], "long"),
    "the end": ([], "s2"),
}


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("prelude", PRELUDES.values(), ids=PRELUDES)
@pytest.mark.parametrize("end, place", ENDS.values(), ids=ENDS)
def test_a_stream_that_has_said_nothing_falls_over(world, api, prelude, end, place):
    world.chat.frames = [*prelude, *end]
    served_by(ask(world, api, "s", stream=True), place)
    assert len(world.chat.requests) == 1


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("prelude", list(PRELUDES.values())[1:], ids=list(PRELUDES)[1:])
def test_a_connection_that_breaks_before_the_answer_falls_over(world, api, prelude):
    world.chat.frames = [*prelude, chunk({"content": "hi"})]
    world.chat.script(reset("stream", after=len(prelude)))
    served_by(ask(world, api, "s", stream=True), "s2")


def test_the_client_is_told_what_a_stream_failed_with(world):
    for frames, code in [
        ([PROCESSING, event({"error": {"message": "slow down", "code": 429}})], 429),
        ([event({"error": {"message": WORDS, "code": "context_length_exceeded"}})], 400),
    ]:
        world.chat.frames = frames
        answer = world.gateway.chat("alone", stream=True)
        assert answer.status_code == code, answer.text
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["error"]["code"] == str(code) and answer.json()["error"]["message"].startswith("litellm.")


def test_what_comes_before_the_answer_goes_out_with_it(world):
    stream = [PROCESSING, "retry: 1000\n\n", chunk({"role": "assistant", "content": ""}), PROCESSING]
    stream += [chunk({"content": "hi"}), chunk({}, "stop"), "data: [DONE]\n\n"]
    world.chat.frames = stream
    answer = world.gateway.chat("s", stream=True)
    assert answer.text == "".join(stream) and not world.spare.requests


def test_nothing_of_the_answer_waits(world):
    """Comments after the beginning go out at once too, and the client need not wait for what comes next."""
    stream = [PROCESSING, chunk({"role": "assistant", "content": ""}), chunk({"content": "one"}), PROCESSING]
    for after in (3, 4):
        gate = Gate()
        world.chat.frames = [*stream, chunk({"content": "two"}), chunk({}, "stop"), "data: [DONE]\n\n"]
        world.chat.script(gated(gate, after=after))
        body = {"model": "s", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        with world.gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            pieces, seen = answer.iter_text(), ""
            while seen != "".join(stream[:after]):
                seen += next(pieces)
            gate.wait_reached()
            gate.open()
            seen += "".join(pieces)
        assert text_of(chunks_of(seen)) == "onetwo"


def test_a_provider_that_only_says_that_it_works_runs_out_of_time(world):
    """Comments do not count as the beginning: the attempt ends with its own `stream_timeout`."""
    world.chat.frames = [PROCESSING, PROCESSING, chunk({"content": "late"})]
    gate = Gate()
    world.chat.script(gated(gate, after=1))
    answer = world.gateway.chat("quick", stream=True, num_retries=0, disable_fallbacks=True)
    assert answer.status_code == 408, answer.text
    assert "litellm.Timeout" in answer.json()["error"]["message"]
    gate.open()


@pytest.mark.parametrize("api", ["chat", "messages"])
def test_an_error_after_the_beginning_is_told_once(world, api):
    world.chat.frames = [chunk({"content": "hi"}), event({"error": {"message": "boom", "code": 500}}), "data: [DONE]\n\n"]
    answer = ask(world, api, "s", stream=True)
    assert answer.status_code == 200 and not world.spare.requests
    told(answer.text, api, "boom")


@pytest.mark.parametrize("api", ["chat", "messages"])
def test_anthropics_error_after_the_beginning_is_told_once(world, api):
    start = {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
             "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}}  # fmt: skip
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "boom"}}
    world.claude.frames = [
        event(start, "message_start"),
        event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, "content_block_start"),
        event(delta, "content_block_delta"),
        event(overloaded, "error"),
    ]
    told(ask(world, api, "m", stream=True).text, api, "boom")


def told(text: str, api: str, words: str) -> None:
    """The stream ends with one error event in the client's format."""
    events = events_of(text)
    errors = [(name, json.loads(data)) for name, data in events if data != "[DONE]" and "error" in json.loads(data)]
    assert len(errors) == 1 and "hi" in text and "[DONE]" not in text, text
    name, error = errors[0]
    assert events[-1][1] == json.dumps(error) or json.loads(events[-1][1]) == error
    assert words in error["error"]["message"]
    assert (name, error.get("type")) == (("error", "error") if api == "messages" else (None, None))
    if api == "chat":
        assert error["error"]["code"] == "500"


@pytest.mark.parametrize("api", ["chat", "messages"])
def test_the_words_of_a_text_generation_server_are_told(world, api):
    failure = event({"error": "CUDA out of memory", "error_type": "generation"})
    world.generate.frames = [failure]
    served_by(ask(world, api, "g", stream=True), "s2")
    assert "inputs" in world.generate.last.json
    answer = ask(world, api, "alone-g", stream=True)
    assert answer.status_code == 500 and "CUDA out of memory" in answer.json()["error"]["message"]
    # Longer than any end mark that is held back: something of it is shown.
    token = {"index": 1, "token": {"id": 5, "text": "hi " * 50, "logprob": -0.1, "special": False}, "generated_text": None}
    world.generate.frames = [event(token), failure]
    told(ask(world, api, "g", stream=True).text, api, "CUDA out of memory")


def test_a_stream_that_ended_well_gets_its_last_line(world):
    world.chat.frames = [chunk({"content": "hi"}), chunk({}, "stop")]
    answer = world.gateway.chat("s", stream=True)
    assert answer.text == "".join(world.chat.frames) + "data: [DONE]\n\n"
    assert text_of(chunks_of(answer.content)) == "hi"


def test_a_large_body_that_begins_with_an_error_is_a_failed_attempt(world):
    world.chat.script(ok({"error": {"message": "slow down", "code": 429}, "more": "x" * 2_000_000}))
    served_by(world.gateway.chat("s"), "s2")
