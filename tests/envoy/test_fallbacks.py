"""Where a failed request goes next: by kind of failure, by configuration, and by what the client asks for."""

from __future__ import annotations

import pytest

from gateway import Gateway, deployment
from mock_provider import AnthropicMock, AzureMock, OpenAiMock, RefusedPort, hang, ok, status

WIRES = {"openai": OpenAiMock, "azure": AzureMock, "anthropic": AnthropicMock}
NAMES = ("big", "safe", "spare")


class World:
    """A gateway with a failing group of each wire format and three places to fall back to."""

    def __init__(self, directory) -> None:
        self.failing = {wire: kind(name=f"failing {wire}") for wire, kind in WIRES.items()}
        self.places = {name: OpenAiMock(name=name) for name in NAMES}
        groups = [deployment(name, mock.params(), id=name) for name, mock in self.places.items()]
        for wire, mock in self.failing.items():
            groups += [
                deployment(f"{wire}-{kind}", mock.params(), id=f"{wire}-{kind}") for kind in ("special", "general", "none")
            ]
        pair = self.failing["openai"].params()
        groups += [deployment("pair", pair, id="pair-1"), deployment("pair", pair, id="pair-2")]
        groups += [deployment("slow", pair | {"timeout": 20}, id="slow-1")]
        special = [f"{wire}-special" for wire in WIRES]
        self.gateway = Gateway(
            directory,
            {
                "model_list": groups,
                "litellm_settings": {
                    "num_retries": 0,
                    "context_window_fallbacks": [{name: ["big"]} for name in special],
                    "content_policy_fallbacks": [{name: ["safe"]} for name in special],
                    "fallbacks": [{f"{wire}-general": ["spare"]} for wire in WIRES],
                },
                "router_settings": {"disable_cooldowns": True},
            },
        )

    def mocks(self):
        return [*self.failing.values(), *self.places.values()]


@pytest.fixture(scope="module")
def module_world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("fallbacks"))
    yield world
    world.gateway.stop()
    for mock in world.mocks():
        mock.stop()


@pytest.fixture
def world(module_world):
    for mock in module_world.mocks():
        mock.clear()
    return module_world


def ask(world: World, api: str, model: str, **body):
    return world.gateway.chat(model, **body) if api == "chat" else world.gateway.messages(model, **body)


def used(world: World) -> list[str]:
    return [name for name, mock in world.places.items() if mock.requests]


ROWS = [
    # group, failure, who answers (None: nobody), status
    ("special", "context_window", "big", 200),
    ("special", "content_policy", "safe", 200),
    ("special", "bad_request", None, 400),
    ("special", "server", None, 500),
    ("general", "context_window", None, 400),
    ("general", "content_policy", None, 400),
    ("general", "bad_request", "spare", 200),
    ("general", "server", "spare", 200),
    ("general", "rate_limit", "spare", 200),
    ("general", "auth", "spare", 200),
    ("general", "not_found", "spare", 200),
    ("none", "server", None, 500),
]


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("group, failure, place, code", ROWS)
def test_each_failure_goes_to_its_own_fallback(world, wire, group, failure, place, code, api, stream):
    failing = world.failing[wire]
    failing.script(failing.error(failure))
    answer = ask(world, api, f"{wire}-{group}", stream=stream)
    assert answer.status_code == code, answer.text
    assert used(world) == ([place] if place else [])
    assert len(failing.requests) == 1
    if place:
        assert answer.headers["x-litellm-model-group"] == place
        assert answer.headers["x-litellm-model-id"] == place
        assert answer.headers["x-litellm-attempted-fallbacks"] == "1"
    else:
        error = answer.json()["error"]
        assert failing.error_answer(failure)[1]["error"]["message"] in error["message"]


def test_context_window_without_its_own_list_takes_the_general_one(start, mocks):
    failing, spare = mocks(OpenAiMock, name="failing"), mocks(OpenAiMock, name="spare")
    failing.default = failing.error("context_window")
    config = {
        "model_list": [deployment("a", failing.params()), deployment("b", spare.params())],
        "litellm_settings": {"num_retries": 0, "default_fallbacks": ["b"]},
    }
    answer = start(config).chat("a")
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == spare.text


def test_the_client_names_fallbacks(world):
    world.failing["azure"].script(status(500))
    answer = world.gateway.chat("azure-none", fallbacks=["spare"])
    assert answer.status_code == 200 and used(world) == ["spare"]
    assert "fallbacks" not in world.places["spare"].last.json


def test_the_client_names_several_fallbacks(world):
    world.failing["azure"].script(status(500))
    world.places["spare"].script(status(503))
    answer = world.gateway.chat("azure-none", fallbacks=["spare", {"model": "big"}])
    assert answer.status_code == 200, answer.text
    assert world.places["spare"].requests and world.places["big"].requests


def test_the_client_turns_fallbacks_off(world):
    world.failing["openai"].script(status(500))
    answer = world.gateway.chat("openai-general", disable_fallbacks=True)
    assert answer.status_code == 500 and used(world) == []


@pytest.mark.parametrize("by_header", [False, True], ids=["body", "header"])
def test_the_client_asks_for_retries(world, by_header):
    failing = world.failing["openai"]
    failing.script(status(500), status(503), ok())
    how = {"headers": {"x-litellm-num-retries": "2"}} if by_header else {"num_retries": 2}
    answer = world.gateway.chat("pair", **how)
    assert answer.status_code == 200, answer.text
    assert len(failing.requests) == 3
    assert answer.headers["x-litellm-attempted-retries"] == "2"
    assert answer.headers["x-litellm-max-retries"] == "2"
    assert "num_retries" not in failing.last.json


def test_nothing_attempted_is_told_as_zero(world):
    answer = world.gateway.chat("spare")
    assert answer.headers["x-litellm-attempted-retries"] == "0"
    assert answer.headers["x-litellm-attempted-fallbacks"] == "0"
    assert answer.headers["x-litellm-model-group"] == "spare"


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("by_header", [False, True], ids=["body", "header"])
def test_the_client_sets_a_timeout(world, by_header, stream):
    failing = world.failing["openai"]
    failing.script(hang())
    how = {"headers": {"x-litellm-timeout": "0.3"}} if by_header else {"timeout": 0.3}
    answer = world.gateway.chat("slow", stream=stream, **how)
    assert answer.status_code == 408, answer.text
    assert answer.json()["error"]["code"] == "408" and "litellm.Timeout" in answer.json()["error"]["message"]
    assert "x-litellm-timeout" in answer.headers
    failing.wait_requests(1)[0].wait_gone()


def test_400_is_not_retried(world):
    failing = world.failing["openai"]
    failing.script(failing.error("bad_request"))
    assert world.gateway.chat("pair", num_retries=3).status_code == 400
    assert len(failing.requests) == 1


MOCKED = [
    ({"mock_response": "hello"}, 200, None),
    ({"mock_response": "litellm.RateLimitError"}, 429, "RateLimitError"),
    ({"mock_response": "litellm.ContextWindowExceededError"}, 400, "ContextWindowExceededError"),
    ({"mock_response": "litellm.InternalServerError"}, 500, "InternalServerError"),
]


@pytest.mark.parametrize("body, code, name", MOCKED)
def test_mock_response_calls_nobody(world, body, code, name):
    answer = world.gateway.chat("openai-none", **body)
    assert answer.status_code == code, answer.text
    if name:
        assert name in answer.json()["error"]["message"]
    else:
        assert answer.json()["choices"][0]["message"]["content"] == "hello"
        usage = answer.json()["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 20, 30)
    assert not world.failing["openai"].requests


TESTING = [
    ("mock_testing_fallbacks", "openai-general", "spare"),
    ("mock_testing_context_fallbacks", "openai-special", "big"),
    ("mock_testing_content_policy_fallbacks", "openai-special", "safe"),
]


@pytest.mark.parametrize("flag, group, place", TESTING)
def test_fallbacks_can_be_tried_out(world, flag, group, place):
    answer = world.gateway.chat(group, **{flag: True})
    assert answer.status_code == 200, answer.text
    assert used(world) == [place] and not world.failing["openai"].requests


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_without_an_address_is_a_refused_connection(start, mocks, scheme):
    """Envoy itself gives up on a cluster without addresses; a fallback must be tried all the same."""
    good = mocks(OpenAiMock)
    nowhere = {"model": "openai/x", "api_key": "k", "api_base": f"{scheme}://no-such-host.invalid/v1"}
    gateway = start({
        "model_list": [deployment("nowhere", nowhere), deployment("good", good.params())],
        "litellm_settings": {"num_retries": 0, "fallbacks": [{"nowhere": ["good"]}]},
    })
    answer = gateway.chat("nowhere")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-litellm-model-group"] == "good"


def test_a_mock_can_be_fallen_back_to(start, mocks):
    refused = mocks(RefusedPort)
    broken = {"model": "openai/x", "api_key": "k", "api_base": f"{refused.origin}/v1"}
    mock = {"model": "openai/gpt-4o", "api_key": "k", "mock_response": "from the mock"}
    gateway = start({
        "model_list": [deployment("broken", broken), deployment("mock", mock)],
        "litellm_settings": {"num_retries": 0, "fallbacks": [{"broken": ["mock"]}]},
    })
    answer = gateway.chat("broken")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "from the mock"
    assert answer.headers["x-litellm-attempted-fallbacks"] == "1"
    assert float(answer.headers["x-litellm-response-cost"]) > 0
