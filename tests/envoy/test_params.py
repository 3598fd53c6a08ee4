"""Parameters that a provider's model does not take: dropped where `drop_params` says so, else refused in LiteLLM's words, before
anything is sent; and the model behind an Azure deployment, which decides what its deployment takes."""

from __future__ import annotations

import json
from typing import Any, Iterator

import anthropic
import openai
import pytest

from gateway import MASTER_KEY, Gateway, deployment
from mock_provider.strict import StrictAzure, StrictGroq, StrictMistral, StrictOpenAi

HOW = "To drop these, set `litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n drop_params: true`\n"
TOOL = {"name": "look", "description": "d", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}
ANTHROPIC = {"max_tokens": 32000, "thinking": {"type": "enabled", "budget_tokens": 31999}, "tools": [TOOL]}
"""What Claude Code asks for."""


def refusal(brand: str, model: str, *names: str) -> str:
    listed = list(names)
    again = f". \n If you want to use these params dynamically send allowed_openai_params={listed} in your request."
    return f"litellm.UnsupportedParamsError: {brand} does not support parameters: {listed}, for model={model}. {HOW}{again}"


class World:
    """A gateway before a strict double of each provider, each model once as it is and once with `drop_params`."""

    def __init__(self, path: Any) -> None:
        behind = {"dep": "gpt-4o", "dep1": "o3-mini", "dep2": "gpt-5", "my-gpt-5-dep": "gpt-5", "prod-o3-mini": "o3-mini"}
        self.openai, self.mistral, self.groq = StrictOpenAi(), StrictMistral(), StrictGroq()
        self.azure = StrictAzure(deployments=behind)
        self.doubles = {"openai": self.openai, "mistral": self.mistral, "groq": self.groq, "azure": self.azure}
        models = []
        for name, double in self.doubles.items():
            models += [deployment(name, double.params()), deployment(f"{name}-dropping", double.params() | {"drop_params": True})]
        for name in ("o_series/dep1", "gpt5_series/dep2", "my-gpt-5-dep", "prod-o3-mini"):
            models.append(deployment(name, self.azure.params(name)))
        models.append(deployment("based", self.azure.params("my-gpt-5-dep"), base_model="azure/gpt-4o"))
        models.append(deployment("azure-any", self.azure.params("*")) | {"model_name": "azure-any/*"})
        old = {"api_version": "2024-05-01-preview"}
        models.append(deployment("old", self.azure.params() | old))
        models.append(deployment("gpt-5", self.openai.params("gpt-5")))
        models.append(deployment("o3-mini", self.openai.params("o3-mini")))
        models.append(deployment("ada", self.openai.params("text-embedding-ada-002")))
        models.append(deployment("embed", self.mistral.params("mistral-embed")))
        settings = {"router_settings": {"num_retries": 0, "disable_cooldowns": True}}
        self.gateway = Gateway(path, {"model_list": models} | settings)
        self.openai_sdk = openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=MASTER_KEY, max_retries=0)
        self.anthropic_sdk = anthropic.Anthropic(base_url=self.gateway.url, api_key=MASTER_KEY, max_retries=0)

    def stop(self) -> None:
        self.gateway.stop()
        for double in self.doubles.values():
            double.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("params"))
    yield world
    world.stop()


@pytest.fixture
def world(shared: World) -> World:
    for double in shared.doubles.values():
        double.clear()
    return shared


MODELS = {"openai": "gpt-4o", "mistral": "mistral-large-latest", "groq": "llama-3.3-70b-versatile", "azure": "dep"}


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("name", MODELS)
def test_claude_codes_thinking_is_dropped_where_the_model_does_not_reason(world: World, name: str, stream: bool) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    if stream:
        with world.anthropic_sdk.messages.stream(model=f"{name}-dropping", messages=messages, **ANTHROPIC) as events:
            answer = events.get_final_message()
    else:
        # Its SDK asks for a stream where it may take long.
        answer = world.anthropic_sdk.messages.create(model=f"{name}-dropping", messages=messages, timeout=60, **ANTHROPIC)
    assert answer.content
    sent = world.doubles[name].last.json
    assert not {"reasoning_effort", "thinking"} & sent.keys(), sent


@pytest.mark.parametrize("name", MODELS)
def test_without_drop_params_it_is_refused_in_anthropics_shape(world: World, name: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        messages = [{"role": "user", "content": "Hi"}]
        world.anthropic_sdk.messages.create(model=name, messages=messages, timeout=60, **ANTHROPIC)
    body = refused.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error"), body
    assert body["error"]["message"].startswith(refusal(name, MODELS[name], "reasoning_effort")), body
    assert not world.doubles[name].requests


def test_a_request_may_allow_what_is_not_known_to_be_taken(world: World) -> None:
    body = {"model": "openai", "messages": [{"role": "user", "content": "Hi"}], **ANTHROPIC}
    answer = world.gateway.client.post("/v1/messages", json=body | {"allowed_openai_params": ["reasoning_effort"]})
    assert "Unrecognized request argument supplied: reasoning_effort" in answer.text
    assert world.openai.last.json["reasoning_effort"] == "high"
    assert "allowed_openai_params" not in world.openai.last.json


def test_chat_with_thinking_is_refused_or_dropped_in_openais_shape(world: World) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "extra_body": {"thinking": ANTHROPIC["thinking"]}}
    answer = world.openai_sdk.chat.completions.create(model="openai-dropping", **asked)
    assert answer.choices[0].message.content
    assert "thinking" not in world.openai.last.json
    world.openai.clear()
    with pytest.raises(openai.BadRequestError) as refused:
        world.openai_sdk.chat.completions.create(model="openai", reasoning_effort="high", **asked)
    assert refused.value.message.count(refusal("openai", "gpt-4o", "reasoning_effort", "thinking")[:80]) == 1, refused.value
    assert refused.value.body["message"].startswith(refusal("openai", "gpt-4o", "reasoning_effort", "thinking"))
    assert refused.value.body["code"] == "400"
    assert not world.openai.requests
    asked["extra_body"]["drop_params"] = True
    assert world.openai_sdk.chat.completions.create(model="openai", **asked).choices[0].message.content
    asked["extra_body"] |= {"drop_params": False, "additional_drop_params": ["thinking"]}
    assert world.openai_sdk.chat.completions.create(model="openai", **asked).choices[0].message.content


def test_completions_know_the_model_that_answers_them(world: World) -> None:
    answer = world.gateway.client.post("/v1/completions", json={"model": "groq-dropping", "prompt": "Hi", "reasoning_effort": "low"})
    assert answer.status_code == 200, answer.text
    assert "reasoning_effort" not in world.groq.last.json
    answer = world.gateway.client.post("/v1/completions", json={"model": "groq", "prompt": "Hi", "reasoning_effort": "low"})
    assert answer.json()["error"]["message"].startswith(refusal("groq", MODELS["groq"], "reasoning_effort"))


def test_embeddings_take_what_the_model_takes(world: World) -> None:
    words = "Setting dimensions is not supported for OpenAI `text-embedding-3` and later models."
    body = {"input": "Hi", "dimensions": 64, "encoding_format": "float", "user": "u"}
    answer = world.gateway.client.post("/v1/embeddings", json=body | {"model": "ada"})
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (400, True), answer.text
    answer = world.gateway.client.post("/v1/embeddings", json=body | {"model": "embed"})
    said = "litellm.UnsupportedParamsError: mistral does not support parameters: {'dimensions': 64}, for model=mistral-embed. "
    assert answer.json()["error"]["message"].startswith(said + HOW), answer.text
    world.gateway.client.post("/v1/embeddings", json=body | {"model": "embed", "drop_params": True})
    assert world.mistral.last.json == {"input": "Hi", "encoding_format": "float", "model": "mistral-embed"}


@pytest.mark.parametrize("name", ["gpt-5", "o3-mini"])
def test_reasoning_models_have_one_temperature(world: World, name: str) -> None:
    answer = world.gateway.chat(name, temperature=0.2)
    assert answer.status_code == 400
    said = {"gpt-5": "gpt-5 doesn't support temperature=0.2 while", "o3-mini": "O-series models don't support temperature=0.2."}
    assert answer.json()["error"]["message"].startswith(f"litellm.UnsupportedParamsError: {said[name]}"), answer.text
    answer = world.gateway.chat(name, temperature=0.2, max_tokens=9, drop_params=True)
    assert answer.status_code == 200, answer.text
    sent = world.openai.last.json
    assert (sent["max_completion_tokens"], "temperature" in sent) == (9, False)


@pytest.mark.parametrize("name", ["o_series/dep1", "gpt5_series/dep2", "my-gpt-5-dep", "prod-o3-mini"])
def test_an_azure_deployment_is_of_the_series_that_its_name_says(world: World, name: str) -> None:
    answer = world.gateway.chat(name, max_tokens=9, reasoning_effort="low")
    assert answer.status_code == 200, answer.text
    called = name.rsplit("/", 1)[-1]
    assert world.azure.last.path == f"/openai/deployments/{called}/chat/completions"
    sent = world.azure.last.json
    assert (sent["max_completion_tokens"], "max_tokens" in sent) == (9, False)
    assert world.gateway.chat(name, top_p=0.1).status_code == 400


def test_the_series_may_stand_in_a_name_that_the_caller_makes(world: World) -> None:
    answer = world.gateway.chat("azure-any/o_series/dep1", max_tokens=9)
    assert answer.status_code == 200, answer.text
    assert world.azure.last.path == "/openai/deployments/dep1/chat/completions"
    assert world.azure.last.json["max_completion_tokens"] == 9


def test_the_base_model_counts_before_the_name(world: World) -> None:
    world.gateway.chat("based", max_tokens=9, temperature=0.2)
    sent = world.azure.last.json
    assert (sent["max_tokens"], sent["temperature"]) == (9, 0.2), sent
    assert "reasoning_effort" in json.dumps(world.gateway.chat("based", reasoning_effort="low").json())


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_an_older_azure_is_asked_for_a_schema_by_a_tool_whose_call_is_the_content(world: World, stream: bool) -> None:
    asked: dict[str, Any] = {"model": "old", "messages": [{"role": "user", "content": "Hi"}], "response_format": FORM}
    if stream:
        chunks = [chunk for chunk in world.openai_sdk.chat.completions.create(stream=True, **asked) if chunk.choices]
        content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason]
        assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)
    else:
        choice = world.openai_sdk.chat.completions.create(**asked).choices[0]
        content, reasons = choice.message.content, [choice.finish_reason]
        assert not choice.message.tool_calls
    assert (set(json.loads(content)), reasons) == ({"a"}, ["stop"])
    sent = world.azure.last.json
    assert "response_format" not in sent
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "json_tool_call"}}
    assert sent["tools"] == [{"type": "function", "function": {"name": "json_tool_call", "parameters": SCHEMA}}]


def test_a_tool_that_must_be_called_needs_a_newer_azure(world: World) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    answer = world.gateway.chat("old", tools=tools, tool_choice="required")
    said = "Azure does not support 'required' as a tool_choice param, for api_version=2024-05-01-preview."
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), answer.text
    answer = world.gateway.chat("old", tools=tools, tool_choice="required", drop_params=True)
    assert answer.status_code == 200, answer.text
    assert "tool_choice" not in world.azure.last.json
