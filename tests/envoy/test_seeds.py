"""The routing examples of LiteLLM's reliability page and of the AWS gateway's page, each with its YAML as printed. Only where a
provider is and which key it wants is put in: addresses and keys of mocks."""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, Iterator

import httpx
import openai
import pytest
import yaml

from gateway import MASTER_KEY, Gateway, bearer
from mock_provider import AnthropicMock, AzureMock, Mock, OpenAiMock, hang, status

LONG = "What is the meaning of 42?" * 5000
"""The page's own long prompt: about 40,000 tokens."""


@pytest.fixture
def mock(mocks: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Makes a mock whose answers say its name."""
    yield lambda kind, name: mocks(kind, name=name)


def at(text: str, *places: Mock | None, general: dict | None = None) -> dict:
    """An example with its deployments, in order, at these mocks; one without a mock stays as printed."""
    config = yaml.safe_load(text)
    assert len(config["model_list"]) == len(places)
    for entry, place in zip(config["model_list"], places):
        if place is not None:
            there = place.params()
            entry["litellm_params"] |= {name: there[name] for name in there if name != "model"}
    if general:
        config["general_settings"] = config.get("general_settings", {}) | general
    return config


def sdk(gateway: Gateway, key: str = "anything") -> openai.OpenAI:
    """The client of the examples: any key will do where there is no master key."""
    return openai.OpenAI(api_key=key, base_url=gateway.url, max_retries=0, http_client=httpx.Client(trust_env=False))


def ask(gateway: Gateway, model: str, content: str = "this is a test request, write a short poem", **more: Any) -> str:
    """Who answers: the mocks say their names."""
    answer = sdk(gateway).chat.completions.create(model=model, messages=[{"role": "user", "content": content}], **more)
    return answer.choices[0].message.content


def shares(gateway: Gateway, model: str, count: int) -> Counter:
    """How often each deployment serves, by the header that the page points at."""
    client = gateway.client
    body = {"model": model, "messages": [{"role": "user", "content": "what llm are you"}]}
    answers = [client.post("/chat/completions", json=body) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    return Counter(answer.headers["x-litellm-model-api-base"] for answer in answers)


# ------------------------------------------------------------------------------------- load balancing, fallbacks, retries, time-outs

BALANCED = """
model_list:
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: azure/<your-deployment-name>
      api_base: <your-azure-endpoint>
      api_key: <your-azure-api-key>
      rpm: 6      # Rate limit for this deployment: in requests per minute (rpm)
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: azure/gpt-turbo-small-ca
      api_base: https://my-endpoint-canada-berri992.openai.azure.com/
      api_key: <your-azure-api-key>
      rpm: 6
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: azure/gpt-turbo-large
      api_base: https://openai-france-1234.openai.azure.com/
      api_key: <your-azure-api-key>
      rpm: 1440
"""


def test_load_is_balanced_by_rpm(start: Callable[..., Gateway], mock) -> None:
    small, canada, france = (mock(AzureMock, name) for name in ("small", "canada", "france"))
    gateway = start(at(BALANCED, small, canada, france))
    shared = shares(gateway, "gpt-3.5-turbo", 600)
    # 6, 6 and 1440 of 1452: about 2.5, 2.5 and 595.
    assert shared[france.base] >= 570, shared
    assert len(france.requests) == shared[france.base]


ADVANCED = """
model_list:
  - model_name: zephyr-beta
    litellm_params:
      model: huggingface/HuggingFaceH4/zephyr-7b-beta
      api_base: http://0.0.0.0:8001
  - model_name: zephyr-beta
    litellm_params:
      model: huggingface/HuggingFaceH4/zephyr-7b-beta
      api_base: http://0.0.0.0:8002
  - model_name: zephyr-beta
    litellm_params:
      model: huggingface/HuggingFaceH4/zephyr-7b-beta
      api_base: http://0.0.0.0:8003
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: gpt-3.5-turbo
      api_key: <my-openai-key>
  - model_name: gpt-3.5-turbo-16k
    litellm_params:
      model: gpt-3.5-turbo-16k
      api_key: <my-openai-key>

litellm_settings:
  num_retries: 3 # retry call 3 times on each model_name (e.g. zephyr-beta)
  request_timeout: 10 # raise Timeout error if call takes longer than 10s. Sets litellm.request_timeout
  fallbacks: [{"zephyr-beta": ["gpt-3.5-turbo"]}] # fallback to gpt-3.5-turbo if call fails num_retries
  context_window_fallbacks: [{"zephyr-beta": ["gpt-3.5-turbo-16k"]}, {"gpt-3.5-turbo": ["gpt-3.5-turbo-16k"]}] # fallback to gpt-3.5-turbo-16k if context window error
  allowed_fails: 3 # cooldown model if it fails > 1 call in a minute.
"""


class Zephyrs:
    """The page's large example, and what is behind it."""

    def __init__(self, start: Callable[..., Gateway], mock: Callable[..., Any]) -> None:
        self.zephyrs = [mock(OpenAiMock, f"zephyr {at}") for at in range(3)]
        self.turbo, self.long = mock(OpenAiMock, "turbo"), mock(OpenAiMock, "16k")
        self.gateway = start(at(ADVANCED, *self.zephyrs, self.turbo, self.long))

    def fail(self, code: int, body: Any = None) -> None:
        for zephyr in self.zephyrs:
            zephyr.default = status(code, body)

    def tried(self) -> int:
        return sum(len(zephyr.requests) for zephyr in self.zephyrs)


@pytest.fixture
def zephyrs(start: Callable[..., Gateway], mock) -> Zephyrs:
    return Zephyrs(start, mock)


def test_a_group_is_retried_and_then_left_for_its_fallback(zephyrs: Zephyrs) -> None:
    assert ask(zephyrs.gateway, "zephyr-beta") in [zephyr.own_text for zephyr in zephyrs.zephyrs]
    before = zephyrs.tried()
    zephyrs.fail(500)
    assert ask(zephyrs.gateway, "zephyr-beta") == zephyrs.turbo.own_text
    assert zephyrs.tried() - before == 1 + 3, "one call and three retries"
    # Retries go round: each of the three was called.
    assert all(zephyr.requests for zephyr in zephyrs.zephyrs)


def test_a_context_window_error_goes_to_the_larger_model(zephyrs: Zephyrs) -> None:
    zephyrs.fail(422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048", "error_type": "validation"})
    assert ask(zephyrs.gateway, "zephyr-beta") == zephyrs.long.own_text
    assert zephyrs.tried() == 1 and not zephyrs.turbo.requests
    zephyrs.turbo.default = zephyrs.turbo.error("context_window")
    assert ask(zephyrs.gateway, "gpt-3.5-turbo") == zephyrs.long.own_text


def test_the_client_names_its_fallbacks(zephyrs: Zephyrs) -> None:
    zephyrs.fail(500)
    told = ask(zephyrs.gateway, "zephyr-beta", extra_body={"fallbacks": ["gpt-3.5-turbo-16k"]})
    assert told == zephyrs.long.own_text and not zephyrs.turbo.requests


PRE_CALL = """
router_settings:
  enable_pre_call_checks: true # 1. Enable pre-call checks

model_list:
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: azure/chatgpt-v-2
      api_base: os.environ/AZURE_API_BASE
      api_key: os.environ/AZURE_API_KEY
      api_version: "2023-07-01-preview"
    model_info:
      base_model: azure/gpt-4-1106-preview # 2. (azure-only) SET BASE MODEL
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: gpt-3.5-turbo-1106
      api_key: os.environ/OPENAI_API_KEY
"""


def test_a_long_prompt_goes_to_the_deployment_it_fits_into(start: Callable[..., Gateway], mock) -> None:
    azure, turbo = mock(AzureMock, "azure"), mock(OpenAiMock, "turbo")
    gateway = start(at(PRE_CALL, azure, turbo))
    messages = [{"role": "system", "content": LONG}, {"role": "user", "content": "Who was Alexander?"}]
    for _ in range(12):
        answer = sdk(gateway).chat.completions.create(model="gpt-3.5-turbo", messages=messages)
        assert answer.choices[0].message.content == azure.own_text
    assert not turbo.requests
    # A short one may go to either.
    assert {ask(gateway, "gpt-3.5-turbo") for _ in range(60)} == {azure.own_text, turbo.own_text}


OTHER_GROUPS = """
router_settings:
  enable_pre_call_checks: true # 1. Enable pre-call checks

model_list:
  - model_name: gpt-3.5-turbo-small
    litellm_params:
      model: azure/chatgpt-v-2
      api_base: os.environ/AZURE_API_BASE
      api_key: os.environ/AZURE_API_KEY
      api_version: "2023-07-01-preview"
    model_info:
      base_model: azure/gpt-4-1106-preview # 2. (azure-only) SET BASE MODEL
  - model_name: gpt-3.5-turbo-large
    litellm_params:
      model: gpt-3.5-turbo-1106
      api_key: os.environ/OPENAI_API_KEY
  - model_name: claude-opus
    litellm_params:
      model: claude-3-opus-20240229
      api_key: os.environ/ANTHROPIC_API_KEY

litellm_settings:
  context_window_fallbacks: [{"gpt-3.5-turbo-small": ["gpt-3.5-turbo-large", "claude-opus"]}]
"""


def test_a_prompt_too_long_for_its_group_goes_to_a_larger_model(start: Callable[..., Gateway], mock) -> None:
    azure, turbo, claude = mock(AzureMock, "azure"), mock(OpenAiMock, "turbo"), mock(AnthropicMock, "claude")
    gateway = start(at(OTHER_GROUPS, azure, turbo, claude))
    # As printed: the base model takes 128,000 tokens, so this one fits.
    assert ask(gateway, "gpt-3.5-turbo-small", LONG) == azure.own_text
    # Certainly too long for it, and for the 16,385 of the next one; the last one's 200,000 are the longest there is.
    assert ask(gateway, "gpt-3.5-turbo-small", LONG * 8) == claude.own_text
    assert len(azure.requests) == 1 and not turbo.requests
    # The provider's own error leads there too.
    azure.default = azure.error("context_window")
    assert ask(gateway, "gpt-3.5-turbo-small") == turbo.own_text


CONTENT_POLICY = """
model_list:
  - model_name: gpt-3.5-turbo-small
    litellm_params:
      model: azure/chatgpt-v-2
      api_base: os.environ/AZURE_API_BASE
      api_key: os.environ/AZURE_API_KEY
      api_version: "2023-07-01-preview"
  - model_name: claude-opus
    litellm_params:
      model: claude-3-opus-20240229
      api_key: os.environ/ANTHROPIC_API_KEY

litellm_settings:
  content_policy_fallbacks: [{"gpt-3.5-turbo-small": ["claude-opus"]}]
"""


def test_what_one_provider_filters_another_answers(start: Callable[..., Gateway], mock) -> None:
    azure, claude = mock(AzureMock, "azure"), mock(AnthropicMock, "claude")
    gateway = start(at(CONTENT_POLICY, azure, claude))
    assert ask(gateway, "gpt-3.5-turbo-small") == azure.own_text
    azure.default = azure.error("content_policy")
    assert ask(gateway, "gpt-3.5-turbo-small") == claude.own_text
    # Another error is not what these fallbacks are for.
    azure.default = status(400)
    with pytest.raises(openai.BadRequestError):
        ask(gateway, "gpt-3.5-turbo-small")


EU_REGION = """
router_settings:
  enable_pre_call_checks: true # 1. Enable pre-call checks

model_list:
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: azure/chatgpt-v-2
      api_base: os.environ/AZURE_API_BASE
      api_key: os.environ/AZURE_API_KEY
      api_version: "2023-07-01-preview"
      region_name: "eu" # SET EU-REGION
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: gpt-3.5-turbo-1106
      api_key: os.environ/OPENAI_API_KEY
  - model_name: gemini-pro
    litellm_params:
      model: vertex_ai/gemini-pro-1.5
      vertex_project: adroit-crow-1234
      vertex_location: us-east1 # AUTOMATICALLY INFERS 'region_name'
"""


def test_an_end_user_of_the_eu_stays_there(start: Callable[..., Gateway], mock) -> None:
    azure, turbo = mock(AzureMock, "azure"), mock(OpenAiMock, "turbo")
    # Vertex AI is not served: the entry is left out with a note, and the others serve.
    gateway = start(at(EU_REGION, azure, turbo, None, general={"master_key": MASTER_KEY}))
    assert "`vertex_ai` cannot be called yet" in gateway.everything_printed()
    gateway.manage("/customer/new", {"user_id": "marie", "allowed_model_region": "eu"})
    gateway.manage("/customer/new", {"user_id": "george", "allowed_model_region": "us"})

    def base(user: str) -> str | None:
        answer = gateway.chat("gpt-3.5-turbo", "Who was Alexander?", headers=bearer(MASTER_KEY), user=user)
        return answer.headers["x-litellm-model-api-base"] if answer.status_code == 200 else None

    assert {base("marie") for _ in range(20)} == {azure.base}
    assert {base("anybody") for _ in range(60)} == {azure.base, turbo.base}
    refused = gateway.chat("gpt-3.5-turbo", headers=bearer(MASTER_KEY), user="george")
    assert refused.status_code == 429 and "No deployments available" in refused.json()["error"]["message"]


TIMEOUTS = """
model_list:
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: azure/gpt-turbo-small-eu
      api_base: https://my-endpoint-europe-berri-992.openai.azure.com/
      api_key: <your-key>
      timeout: 0.1 # timeout in (seconds)
      stream_timeout: 0.01 # timeout for stream requests (seconds)
      max_retries: 5
  - model_name: gpt-3.5-turbo
    litellm_params:
      model: azure/gpt-turbo-small-ca
      api_base: https://my-endpoint-canada-berri992.openai.azure.com/
      api_key:
      timeout: 0.1 # timeout in (seconds)
      stream_timeout: 0.01 # timeout for stream requests (seconds)
      max_retries: 5
"""


def test_deployments_and_requests_have_time_outs(start: Callable[..., Gateway], mock) -> None:
    europe, canada = mock(AzureMock, "europe"), mock(AzureMock, "canada")
    gateway = start(at(TIMEOUTS, europe, canada))
    europe.default = canada.default = hang()
    for body, seconds in [({}, 0.1), ({"stream": True}, 0.01), ({"timeout": 1, "logit_bias": {"12481": 100}, "num_retries": 0}, 1)]:
        answer = gateway.chat("gpt-3.5-turbo", "what color is red", **body)
        assert answer.status_code == 408, answer.text
        assert float(answer.headers["x-litellm-timeout"]) == seconds


# ----------------------------------------------------------------------------------------------------- the AWS gateway's page

A_B = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      weight: 9
  - model_name: gpt-4o
    litellm_params:
      model: bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0
      weight: 1
"""
ANTHROPIC = "anthropic/claude-3-5-sonnet-20240620"


def test_a_tenth_of_the_traffic_goes_to_the_other_model(start: Callable[..., Gateway], mock) -> None:
    gpt, claude = mock(OpenAiMock, "gpt"), mock(AnthropicMock, "claude")
    # Bedrock is not served: as printed, the entry is left out with a note and all traffic goes to the other.
    gateway = start(at(A_B, gpt, None))
    assert "`bedrock` cannot be called yet" in gateway.everything_printed()
    assert shares(gateway, "gpt-4o", 20) == {gpt.base: 20}
    # The same with Anthropic's own API in its place.
    gateway = start(at(A_B.replace("bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", ANTHROPIC), gpt, claude))
    shared = shares(gateway, "gpt-4o", 500)
    # 50 are meant; 15 to 100 is more than five standard deviations.
    assert 15 <= shared[claude.base] <= 100 and shared.total() == 500, shared


SAME_NAME = """
model_list:
  - model_name: claude-3-5-sonnet-20240620-v1:0
    tpm: 100000
    rpm: 1000
    litellm_params:
      model: bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0
  - model_name: claude-3-5-sonnet-20240620-v1:0
    tpm: 200000
    rpm: 2000
    litellm_params:
      model: bedrock/anthropic.claude-3-haiku-20240307-v1:0
  - model_name: claude-3-5-sonnet-20240620-v1:0
    tpm: 300000
    rpm: 3000
    litellm_params:
      model: anthropic/claude-3-5-sonnet-20240620

router_settings:
  routing_strategy: usage-based-routing-v2
  enable_pre_call_check: true
"""
SONNET = "claude-3-5-sonnet-20240620-v1:0"


def test_models_of_one_name_share_by_usage_and_stand_in_for_each_other(start: Callable[..., Gateway], mock) -> None:
    three = [mock(AnthropicMock, f"claude {at}") for at in range(3)]
    # As printed two of them are left out, and the third serves.
    assert shares(start(at(SAME_NAME, None, None, three[2])), SONNET, 10) == {three[2].base: 10}
    example = SAME_NAME.replace("bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", ANTHROPIC)
    example = example.replace("bedrock/anthropic.claude-3-haiku-20240307-v1:0", "anthropic/claude-3-haiku-20240307")
    gateway = start(at(example, *three))
    shared = shares(gateway, SONNET, 60)
    # All answers take as many tokens, so the one with the fewest changes with every call.
    assert set(shared.values()) == {20}, shared
    # One begins failing: the others stand in.
    three[0].default = status(500)
    assert len(shares(gateway, SONNET, 30)) == 2


def test_limits_of_deployments_stop_their_traffic(start: Callable[..., Gateway], mock) -> None:
    three = [mock(AnthropicMock, f"claude {at}") for at in range(3)]
    example = SAME_NAME.replace("bedrock/anthropic.", "anthropic/").replace("rpm: 1000", "rpm: 5").replace("rpm: 2000", "rpm: 7")
    gateway = start(at(example.replace("rpm: 3000", "rpm: 9"), *three))
    body = {"model": SONNET, "messages": [{"role": "user", "content": "hi"}]}
    answers = [gateway.client.post("/chat/completions", json=body) for _ in range(40)]
    assert [len(claude.requests) for claude in three] == [5, 7, 9]
    assert Counter(answer.status_code for answer in answers) == {200: 21, 429: 19}
    assert "No deployments available for selected model" in answers[-1].json()["error"]["message"]


FALLBACKS = """
model_list:
  - model_name: anthropic.claude-3-5-sonnet-20240620-v1:0
    litellm_params: {model: anthropic/claude-3-5-sonnet-20240620}
  - model_name: gemini-1.5-pro
    litellm_params: {model: openai/gemini-1.5-pro}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o}
  - model_name: anthropic.claude-3-haiku-20240307-v1:0
    litellm_params: {model: anthropic/claude-3-haiku-20240307}

router_settings:
  context_window_fallbacks: [{"anthropic.claude-3-5-sonnet-20240620-v1:0": ["gemini-1.5-pro"]}]
  fallbacks: [{"gpt-4o": ["anthropic.claude-3-5-sonnet-20240620-v1:0"]}]
  default_fallbacks: ["anthropic.claude-3-haiku-20240307-v1:0"]
"""


def test_fallbacks_of_every_kind(start: Callable[..., Gateway], mock) -> None:
    sonnet, haiku = mock(AnthropicMock, "sonnet"), mock(AnthropicMock, "haiku")
    gemini, gpt = mock(OpenAiMock, "gemini"), mock(OpenAiMock, "gpt")
    gateway = start(at(FALLBACKS, sonnet, gemini, gpt, haiku))
    sonnet.default = sonnet.error("context_window")
    assert ask(gateway, "anthropic.claude-3-5-sonnet-20240620-v1:0") == gemini.own_text
    sonnet.clear()
    gpt.default = status(500)
    assert ask(gateway, "gpt-4o") == sonnet.own_text
    gemini.default = status(500)
    assert ask(gateway, "gemini-1.5-pro") == haiku.own_text
