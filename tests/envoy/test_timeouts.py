"""Time-outs of single deployments: each attempt has its own, whatever else is in the plan of its request."""

from __future__ import annotations

import dataclasses
import functools
import time

import pytest

from gateway import chunks_of, deployment, text_of
from mock_provider import AnthropicMock, AzureMock, Gate, OpenAiMock, RefusedPort, chunked, gated, hang, reset, split, status

BODIES = pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])


@pytest.fixture
def pair(start, mocks):
    """Two deployments, the first one silent, tried in this order; each with its own settings."""

    def make(first: dict, second: dict, kind: type = OpenAiMock, **router):
        silent, good = mocks(kind, name="silent"), mocks(kind, name="good")
        silent.default = hang()
        config = {
            "model_list": [
                deployment("a", silent.params() | first, id="a"),
                deployment("b", good.params() | second, id="b"),
            ],
            "router_settings": {"num_retries": 0, "fallbacks": [{"a": ["b"]}], "disable_cooldowns": True} | router,
        }
        return start(config), silent, good

    return make


def took(ask, low: float, high: float = 15.0):
    """The answer, if it came within these seconds. Envoy counts from when its loop woke, which may be a moment before the request was sent on."""
    begun = time.monotonic()
    answer = ask()
    seconds = time.monotonic() - begun
    assert low - 0.02 <= seconds < high, f"{seconds} s"
    return answer


def text_in(answer, stream: bool) -> str:
    assert answer.status_code == 200, answer.text
    return text_of(chunks_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]


ORDERS = {
    "short before long": ({"timeout": 0.4}, {"timeout": 60}),
    "short before the default": ({"timeout": 0.4}, {}),
    "long before short": ({"timeout": 1.2}, {"timeout": 0.3}),
    "streams apart": ({"timeout": 60, "stream_timeout": 0.4}, {}),
}


@BODIES
@pytest.mark.parametrize("first, second", ORDERS.values(), ids=ORDERS)
def test_a_silent_deployment_is_left_after_its_own_timeout(pair, first, second, stream):
    if not stream and "stream_timeout" in first:
        first = {"timeout": 0.4}
    gateway, silent, good = pair(first, second)
    own = first["stream_timeout"] if stream and "stream_timeout" in first else first["timeout"]
    for _ in range(2):
        answer = took(lambda: gateway.chat("a", stream=stream), own, own + 3)
        assert text_in(answer, stream) == good.text
        assert answer.headers["x-litellm-model-id"] == "b"
    assert len(silent.requests) == len(good.requests) == 2


@BODIES
def test_two_deployments_of_one_group_keep_their_own(start, mocks, stream):
    """Whichever comes first: both are silent, and both are left in time."""
    quick, slow = mocks(OpenAiMock, name="quick"), mocks(OpenAiMock, name="slow")
    quick.default = slow.default = hang()
    config = {
        "model_list": [
            deployment("a", quick.params() | {"timeout": 0.3}, id="quick"),
            deployment("a", slow.params() | {"timeout": 1.0}, id="slow"),
        ],
        "router_settings": {"num_retries": 1, "disable_cooldowns": True},
    }
    gateway = start(config)
    for _ in range(3):
        answer = took(lambda: gateway.chat("a", stream=stream), 1.3, 5)
        assert answer.status_code == 408
        assert "litellm.Timeout" in answer.json()["error"]["message"]
        assert "x-litellm-timeout" in answer.headers
    assert len(quick.requests) == len(slow.requests) == 3


@BODIES
def test_a_default_shorter_than_a_deployments_own_is_kept(pair, stream):
    gateway, _, good = pair({}, {"timeout": 60}, timeout=0.5)
    answer = took(lambda: gateway.chat("a", stream=stream), 0.5, 5)
    assert text_in(answer, stream) == good.text


@BODIES
def test_the_requests_own_timeout_wins_both_ways(pair, stream):
    gateway, _, good = pair({"timeout": 60}, {"timeout": 50})
    answer = took(lambda: gateway.chat("a", stream=stream, timeout=0.4), 0.4, 5)
    assert text_in(answer, stream) == good.text
    gateway, _, good = pair({"timeout": 0.2}, {"timeout": 0.3})
    answer = took(lambda: gateway.chat("a", stream=stream, timeout=1.5), 1.5, 6)
    assert text_in(answer, stream) == good.text
    answer = took(lambda: gateway.chat("a", stream=stream, headers={"x-litellm-timeout": "1"}), 1.0, 6)
    assert text_in(answer, stream) == good.text


def test_the_requests_stream_timeout_wins_for_streams(pair):
    gateway, _, good = pair({"timeout": 60, "stream_timeout": 50}, {})
    answer = took(lambda: gateway.chat("a", stream=True, stream_timeout=0.4), 0.4, 5)
    assert text_in(answer, True) == good.text


def test_the_requests_timeout_does_not_shorten_a_deployments_stream_timeout(pair):
    """LiteLLM's order for streams: the deployment's `stream_timeout` comes before the request's `timeout`."""
    gateway, _, good = pair({"stream_timeout": 1.0}, {})
    answer = took(lambda: gateway.chat("a", stream=True, timeout=0.3), 1.0, 5)
    assert text_in(answer, True) == good.text


@pytest.mark.parametrize("wire", [OpenAiMock, AnthropicMock])
def test_a_stream_that_has_begun_is_not_cut(pair, wire):
    gateway, silent, _ = pair({"timeout": 0.3}, {}, wire)
    gate = Gate()
    # Five frames: in every format some text is among them.
    silent.script(gated(gate, after=5))
    body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        pieces = answer.iter_text()
        received = next(pieces)
        gate.wait_reached()
        time.sleep(1)
        gate.open()
        received += "".join(pieces)
    assert text_of(chunks_of(received)) == silent.text
    assert answer.headers["x-litellm-model-id"] == "a"


class HalfMock(OpenAiMock):
    """Writes a buffered answer in two pieces, and can wait between them."""

    def answer(self, request):
        answer = super().answer(request)
        return dataclasses.replace(answer, body=[answer.body[:50], answer.body[50:]])


def test_a_buffered_answer_must_be_whole_in_time(start, mocks):
    """Half of it is no answer: the next deployment is asked. Envoy can tell this from a broken connection only by its time."""
    half, good = mocks(HalfMock, name="half"), mocks(OpenAiMock, name="good")
    half.default = gated(Gate(), after=1)
    models = [
        deployment("a", half.params() | {"timeout": 0.5}),
        deployment("b", good.params()),
        deployment("halves", half.params() | {"timeout": 0.4}),
        deployment("other half", half.params() | {"timeout": 0.8}),
    ]
    router = {"num_retries": 0, "fallbacks": [{"a": ["b"]}, {"halves": ["other half"]}], "disable_cooldowns": True}
    gateway = start({"model_list": models, "router_settings": router})
    assert text_in(took(lambda: gateway.chat("a"), 0.5, 5), False) == good.text
    for model, low in (("halves", 1.2), ("other half", 0.8)):
        answer = took(functools.partial(gateway.chat, model), low, 5)
        assert answer.status_code == 408 and "litellm.Timeout" in answer.json()["error"]["message"]


FAILURES = {
    "refused": (None, 500, "Connection error."),
    "reset": (reset("request"), 500, "Connection error."),
    "silent": (hang(), 408, "litellm.Timeout"),
    "rate limit": ("rate_limit", 429, "litellm.RateLimitError"),
}


@BODIES
@pytest.mark.parametrize("how, code, words", FAILURES.values(), ids=FAILURES)
def test_failures_behind_a_timeout_keep_their_class(start, mocks, how, code, words, stream):
    """The first failure is what the client reads in the end."""
    first, second = mocks(RefusedPort if how is None else OpenAiMock), mocks(OpenAiMock, name="b")
    second.default = status(503)
    if how is None:
        params = {"model": "openai/m", "api_base": f"{first.origin}/v1", "api_key": "k"}
    else:
        first.default = first.error(how) if isinstance(how, str) else how
        params = first.params()
    config = {
        "model_list": [deployment("a", params | {"timeout": 0.7}), deployment("b", second.params())],
        "router_settings": {"num_retries": 0, "fallbacks": [{"a": ["b"]}], "disable_cooldowns": True},
    }
    answer = start(config).chat("a", stream=stream)
    assert answer.status_code == code, answer.text
    assert words in answer.json()["error"]["message"]
    assert not [name for name in answer.headers if "x-tollgate" in name or "x-envoy" in name]


@pytest.mark.parametrize("kind", [OpenAiMock, AzureMock, AnthropicMock])
@BODIES
def test_the_provider_sees_the_same_request_either_way(start, mocks, kind, stream):
    """Byte for byte: through the listener inside, and straight."""
    mock, other = mocks(kind), mocks(kind, name="other")
    params = mock.params() | {"headers": {"x-mine": "1", "x-request-id": "own"}}
    config = {
        "model_list": [
            deployment("straight", params | {"timeout": 60}),
            deployment("inside", params | {"timeout": 30}),
            deployment("other", other.params() | {"timeout": 60}),
        ],
        "router_settings": {"num_retries": 0, "fallbacks": [{"inside": ["other"]}], "disable_cooldowns": True},
    }
    gateway = start(config)
    answers = [gateway.chat(model, "x" * 1000, stream=stream) for model in ("straight", "inside")]
    texts = [text_in(answer, stream) for answer in answers]
    assert texts == [mock.text] * 2 and not other.requests
    straight, inside = mock.requests
    assert (straight.method, straight.target, straight.body) == (inside.method, inside.target, inside.body)
    assert sorted(straight.headers) == sorted(inside.headers)
    volatile = ("x-litellm-call-id", "x-litellm-model-group", "x-litellm-model-id", "date", "llm_provider-date")
    shown = [sorted((n, v) for n, v in answer.headers.items() if n not in volatile) for answer in answers]
    assert [name for name, _ in shown[0]] == [name for name, _ in shown[1]]
    # It did go through it.
    stats = gateway.admin("/stats?filter=http.tollgate_timed.downstream_rq_total").text
    assert stats.strip().endswith(": 1"), stats


@pytest.fixture
def inside(start, mocks):
    """A deployment behind the listener inside."""
    mock, other = mocks(OpenAiMock), mocks(OpenAiMock, name="other")
    config = {
        "model_list": [deployment("a", mock.params() | {"timeout": 20}), deployment("b", other.params())],
        "router_settings": {"num_retries": 0, "fallbacks": [{"a": ["b"]}], "disable_cooldowns": True},
    }
    return start(config), mock, other


@pytest.mark.timeout(120)
def test_large_bodies_pass(inside):
    gateway, mock, _ = inside
    content = "0123456789abcdef" * (20 * 1024 * 64) + "end"
    assert text_in(gateway.chat("a", content), False) == mock.text
    assert mock.last.json["messages"][0]["content"] == content
    mock.text = content
    for stream, how in ((False, split(65536)), (True, split(65536)), (False, split(65536) | chunked())):
        mock.script(how)
        assert text_in(gateway.chat("a", stream=stream), stream) == content


def test_the_provider_notices_that_the_client_left(inside, raw, chat_bytes):
    gateway, mock, other = inside
    mock.script(hang())
    connection = raw(gateway).post(chat_bytes("a"))
    request = mock.wait_requests(1)[0]
    connection.close()
    request.wait_gone()
    gate = Gate()
    mock.script(gated(gate, after=5))
    body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200 and not other.requests
        # httpx closes the connection when the iterator goes.
        pieces = answer.iter_raw()
        next(pieces)
        gate.wait_reached()
    mock.last.wait_gone()


def test_a_reload_can_set_and_remove_timeouts(start, mocks):
    mock, good = mocks(OpenAiMock), mocks(OpenAiMock, name="good")
    mock.default = hang()

    def config(**own):
        models = [deployment("a", mock.params() | own, id="a"), deployment("b", good.params(), id="b")]
        router = {"num_retries": 0, "fallbacks": [{"a": ["b"]}], "disable_cooldowns": True, "timeout": 2}
        return {"model_list": models, "router_settings": router}

    gateway = start(config())
    took(lambda: gateway.chat("a"), 2, 5)
    for own, low, high in (({"timeout": 0.3}, 0.3, 1.9), ({"timeout": 0.8}, 0.8, 1.9), ({}, 2, 5)):
        count = gateway.everything_printed().count("configuration reloaded")
        gateway.write_config(config(**own))
        end = time.monotonic() + 20
        while gateway.everything_printed().count("configuration reloaded") == count and time.monotonic() < end:
            time.sleep(0.05)
        # A connection that was there before serves one more request by the old configuration.
        gateway.chat("b")
        assert text_in(took(lambda: gateway.chat("a"), low, high), False) == good.text


@pytest.mark.parametrize("seconds", [0.0001, 1e-9])
def test_tiny_timeouts_are_timeouts(pair, seconds):
    gateway, _, good = pair({"timeout": seconds}, {})
    assert text_in(took(lambda: gateway.chat("a"), 0, 5), False) == good.text


@pytest.mark.parametrize("seconds", [1e9, 1e18, 1e300])
def test_huge_timeouts_are_no_timeouts(start, mocks, seconds):
    mock = mocks(OpenAiMock)
    models = [deployment("a", mock.params() | {"timeout": seconds}), deployment("b", mock.params())]
    gateway = start({"model_list": models, "router_settings": {"fallbacks": [{"b": ["a"]}]}})
    for model in ("a", "b"):
        assert gateway.chat(model).status_code == 200
        assert gateway.chat(model, timeout=seconds).status_code == 200
        assert gateway.chat(model, stream=True, stream_timeout=seconds).status_code == 200


def test_who_is_alone_in_its_group_is_left_alone_as_long_as_it_says(start, mocks):
    """Envoy reads whole seconds and waits at least as long."""
    mock = mocks(OpenAiMock)
    mock.script(mock.error("rate_limit", headers=[("retry-after", "2")]), status(500))
    settings = {"num_retries": 2, "disable_cooldowns": True}
    answer = start({"model_list": [deployment("m", mock.params())], "router_settings": settings}).chat("m")
    assert answer.status_code == 200 and answer.headers["x-litellm-attempted-retries"] == "2"
    first, second, third = [request.at for request in mock.requests]
    assert second - first >= 2 and third - second >= 1
    assert not any(name.startswith("x-tollgate") for name in answer.headers)


def test_nobody_waits_for_who_has_not_failed(start, mocks):
    """The second deployment is asked at once: it would be five seconds otherwise, and the client has four."""
    first, second = mocks(OpenAiMock), mocks(OpenAiMock)
    first.default = first.error("rate_limit", headers=[("retry-after", "5")])
    models = [deployment("m", first.params() | {"weight": 1}), deployment("m", second.params() | {"weight": 0})]
    gateway = start({"model_list": models, "router_settings": {"num_retries": 1, "retry_after": 5}})
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = gateway.client.post("/chat/completions", json=body, timeout=4)
    assert answer.status_code == 200, answer.text
    assert (len(first.requests), len(second.requests)) == (1, 1)
