"""One conversation of thirty requests with tools and thinking, carried on by one provider after the other as each in turn fails.

The client names one model all the time and puts back what it was given. Every double refuses what the real API refuses.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Callable, Iterator

import anthropic
import openai
import pytest

from gateway import Gateway, deployment
from histories import facts
from histories.generate import PIXEL
from mock_provider import reset, status
from mock_provider.strict import Strict, StrictAnthropic, StrictDeepSeek, StrictGemini, StrictOpenAi
from mock_provider.strict.model import REASONING, value_for

MODELS = {
    "claude": (StrictAnthropic, "claude-sonnet-4-5-20250929"),
    "gpt": (StrictOpenAi, "gpt-5"),
    "gemini": (StrictGemini, "gemini-3-pro-preview"),
    "deepseek": (StrictDeepSeek, "deepseek-reasoner"),
}
ROUNDS = 2
"""Rounds of calls before the model speaks: three requests for each question."""
WHOLE = ["claude"] * 6 + ["gpt"] * 6 + ["gemini"] * 6 + ["deepseek"] * 6 + ["claude"] * 6
"""Each provider carries on at a question."""
TORN = ["claude"] * 5 + ["gpt"] * 6 + ["gemini"] * 6 + ["deepseek"] * 6 + ["claude"] * 7
"""Each provider carries on with the results of the other's calls."""
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "id": {"const": 123456789012345678901}}}
TOOLS = ["weather", "time"]
ARGUMENTS = facts.exact(json.dumps(value_for(PARAMETERS)))


@dataclasses.dataclass
class World:
    """The doubles behind one model and its fallbacks."""

    doubles: dict[str, Strict]
    gateway: Gateway

    def fail_before(self, wanted: str) -> None:
        """The next request comes to `wanted`: whoever is asked before it fails."""
        failures = {"claude": self.doubles["claude"].error("unavailable"), "gpt": status(429), "gemini": reset("request")}
        for name in list(MODELS)[: list(MODELS).index(wanted)]:
            self.doubles[name].script(failures[name])


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    doubles = {name: double(name=name) for name, (double, _) in MODELS.items()}
    config = {
        "model_list": [deployment(name, doubles[name].params(model), id=name) for name, (_, model) in MODELS.items()],
        "litellm_settings": {"drop_params": True, "num_retries": 0, "fallbacks": [{"claude": [*MODELS][1:]}]},
        "router_settings": {"disable_cooldowns": True},
    }
    world = World(doubles, Gateway(tmp_path_factory.mktemp("conversation"), config))
    yield world
    world.gateway.stop()
    for double in doubles.values():
        double.stop()


@pytest.fixture
def world(module_world: World) -> World:
    for double in module_world.doubles.values():
        double.clear().rounds = ROUNDS
    return module_world


@dataclasses.dataclass
class Result:
    """The result of a call."""

    id: str
    text: str
    failed: bool
    shows: bool
    """It has an image besides, where results may have one."""


class AnthropicClient:
    """The anthropic SDK: calls, results with errors and pictures, thinking."""

    def __init__(self, url: str, streamed: bool) -> None:
        self.sdk = anthropic.Anthropic(api_key="sk-anything", base_url=url, max_retries=0)
        self.streamed = streamed
        self.messages: list[Any] = []
        self.tools = [{"name": name, "input_schema": PARAMETERS} for name in TOOLS]

    def say(self, text: str) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
        self.messages.append({"role": "user", "content": [{"type": "text", "text": text}, image]})

    def ask(self) -> tuple[str, list[tuple[str, str]], str]:
        """What is said, the calls, and who says it. The answer is put back as it came."""
        thinking = {"type": "enabled", "budget_tokens": 2000}
        body = {"model": "claude", "max_tokens": 4000, "messages": self.messages, "tools": self.tools, "thinking": thinking}
        if self.streamed:
            with self.sdk.messages.stream(**body) as stream:
                message = stream.get_final_message()
                by = stream.response.headers["x-litellm-model-id"]
        else:
            raw = self.sdk.messages.with_raw_response.create(**body)
            message, by = raw.parse(), raw.headers["x-litellm-model-id"]
        self.messages.append({"role": "assistant", "content": message.content})
        calls = [(block.id, block.name) for block in message.content if block.type == "tool_use"]
        return "".join(block.text for block in message.content if block.type == "text"), calls, by

    def answer(self, results: list[Result]) -> int:
        """Sends the results, and says how many images are among them."""
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
        blocks = []
        for result in results:
            content = [{"type": "text", "text": result.text}, *([image] if result.shows else [])]
            blocks.append({"type": "tool_result", "tool_use_id": result.id, "content": content, "is_error": result.failed})
        self.messages.append({"role": "user", "content": blocks})
        return sum(result.shows for result in results)


class OpenAiClient:
    """The openai SDK: what it got is put back as the object that it made of it."""

    def __init__(self, url: str, streamed: bool) -> None:
        self.sdk = openai.OpenAI(api_key="sk-anything", base_url=f"{url}/v1", max_retries=0)
        self.streamed = streamed
        self.messages: list[Any] = []
        self.tools = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in TOOLS]

    def say(self, text: str) -> None:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
        self.messages.append({"role": "user", "content": [{"type": "text", "text": text}, image]})

    def ask(self) -> tuple[str, list[tuple[str, str]], str]:
        body = {"model": "claude", "messages": self.messages, "tools": self.tools, "reasoning_effort": "low"}
        if self.streamed:
            with self.sdk.chat.completions.stream(**body) as stream:
                message = stream.get_final_completion().choices[0].message
                by = stream._response.headers["x-litellm-model-id"]
        else:
            raw = self.sdk.chat.completions.with_raw_response.create(**body)
            message, by = raw.parse().choices[0].message, raw.headers["x-litellm-model-id"]
        self.messages.append(message)
        return message.content or "", [(call.id, call.function.name) for call in message.tool_calls or []], by

    def answer(self, results: list[Result]) -> int:
        for result in results:
            text = f"Error: {result.text}" if result.failed else result.text
            self.messages.append({"role": "tool", "tool_call_id": result.id, "content": text})
        return 0


@dataclasses.dataclass
class Own:
    """What a provider has answered so far."""

    thought: int = 0
    """Answers that show what the model thought."""
    called: int = 0
    """Answers that call tools."""


def converse(world: World, client: Any, providers: list[str]) -> None:
    """Plays the conversation, and looks at everything that a provider was asked."""
    said = facts.Facts()
    own = {name: Own() for name in MODELS}
    calls: list[tuple[str, str]] = []
    for at, provider in enumerate(providers):
        double = world.doubles[provider]
        if not calls:
            client.say(f"Question {at}.")
            said.said.append(("user", f"Question {at}."))
            said.images.append(PIXEL)
        world.fail_before(provider)
        try:
            text, calls, by = client.ask()
        except (anthropic.APIError, openai.APIError) as error:
            refused = {name: each.refused for name, each in world.doubles.items() if each.refused}
            raise AssertionError(f"request {at}, to {provider}: {error}: {refused}") from None
        assert not any(each.refused for each in world.doubles.values()), f"request {at} is refused on its way"
        assert by == provider, f"request {at}: {by} has answered"
        arrived(provider, double.last.body, said)
        KEPT[provider](double, json.loads(double.last.body)["messages"], own[provider])
        assert text == ("" if calls else double.text)
        own[provider].called += bool(calls)
        own[provider].thought += "thinking" in double.last.json
        said.said += [("model", text)] if text else []
        results = [Result(id, f"Result {at}.{number}", number > 0, at % 6 == number == 0) for number, (id, _) in enumerate(calls)]
        said.calls += [(name, ARGUMENTS) for _, name in calls]
        said.results += [[result.text] for result in results]
        if results:
            said.images += [PIXEL] * client.answer(results)


def arrived(provider: str, body: bytes, said: facts.Facts) -> None:
    """The provider got all of the conversation."""
    got = facts.of_messages(body) if provider == "claude" else facts.of_chat(body)
    got.images = [image.split(",")[-1] for image in got.images]
    # DeepSeek takes no images.
    images = [] if provider == "deepseek" else said.images
    meant = facts.Facts()
    meant.said, meant.calls, meant.results, meant.images = said.said, said.calls, said.results, images
    facts.check(meant, got, keeps_thoughts=False)


def kept_by_claude(double: Strict, messages: list[dict], own: Own) -> None:
    blocks = [block for message in messages if isinstance(message["content"], list) for block in message["content"]]
    signed = {"type": "thinking", "thinking": REASONING, "signature": double.sign(REASONING)}
    thoughts = [block for block in blocks if block["type"] == "thinking"]
    # A turn that goes on behind another model's calls goes on without thinking: Anthropic passes over what there was then.
    assert thoughts == [signed] * own.thought or (not thoughts and "thinking" not in double.last.json)


def kept_by_gpt(double: Strict, messages: list[dict], own: Own) -> None:
    # What others have thought goes to OpenAI's own host only without it: what else speaks its API may want it.
    members = {name for message in messages for name in message}
    assert members <= {"role", "content", "tool_calls", "tool_call_id", "annotations", "reasoning_content"}, members
    of_calls = {name for message in messages for call in message.get("tool_calls", []) for name in call}
    assert of_calls <= {"id", "type", "function"}, of_calls


def kept_by_gemini(double: Strict, messages: list[dict], own: Own) -> None:
    calls = [message["tool_calls"][0] for message in messages if message.get("tool_calls")]
    signatures = [call.get("extra_content", {}).get("google", {}).get("thought_signature") for call in calls]
    signed = [double.sign("call", call["function"]["name"]) == signature for call, signature in zip(calls, signatures)]
    assert sum(signed) == own.called, signatures


def kept_by_deepseek(double: Strict, messages: list[dict], own: Own) -> None:
    thoughts = [message.get("reasoning_content") for message in messages if message.get("tool_calls")]
    assert thoughts.count(REASONING) >= own.called, thoughts


KEPT: dict[str, Callable[[Strict, list[dict], Own], None]] = {
    "claude": kept_by_claude,
    "gpt": kept_by_gpt,
    "gemini": kept_by_gemini,
    "deepseek": kept_by_deepseek,
}


@pytest.mark.parametrize("streamed", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("providers", [WHOLE, TORN], ids=["at questions", "at results"])
@pytest.mark.parametrize("client", [AnthropicClient, OpenAiClient], ids=["messages", "chat"])
def test_a_conversation_goes_on_from_provider_to_provider(world: World, client: Any, providers: list[str], streamed: bool):
    assert len(providers) == 30
    converse(world, client(world.gateway.url, streamed), providers)
