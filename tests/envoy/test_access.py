"""The master key: where it is read, how a request without it is refused, and what is open to everybody."""

from __future__ import annotations

import pytest

from gateway import MASTER_KEY, deployment

GOOD = {
    "bearer": {"authorization": f"Bearer {MASTER_KEY}"},
    "small bearer": {"authorization": f"bearer {MASTER_KEY}"},
    "basic": {"authorization": f"Basic {MASTER_KEY}"},
    "x-litellm-api-key": {"x-litellm-api-key": MASTER_KEY},
    "x-litellm-api-key with bearer": {"x-litellm-api-key": f"Bearer {MASTER_KEY}"},
    "x-litellm-api-key wins": {"x-litellm-api-key": MASTER_KEY, "authorization": "Bearer sk-other"},
    "api-key": {"api-key": MASTER_KEY},
    "x-api-key": {"x-api-key": MASTER_KEY},
    "x-goog-api-key": {"x-goog-api-key": MASTER_KEY},
    "subscription key": {"ocp-apim-subscription-key": MASTER_KEY},
}


@pytest.mark.parametrize("headers", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("api", ["chat", "messages"])
def test_the_key_is_read_where_litellm_reads_it(locked_gateway, providers, headers, api):
    answer = getattr(locked_gateway, api)("openai", headers=headers)
    assert answer.status_code == 200, answer.text
    sent = {name: value for name, value in providers.openai.last.headers}
    assert sent["authorization"] == f"Bearer {providers.openai.key}"
    assert not any(MASTER_KEY in value for value in sent.values()), "the gateway's key must stay here"


MALFORMED = "Authentication Error, Malformed API Key passed in. Ensure Key has `Bearer ` prefix."
REFUSED = {
    "nothing": ({}, "Authentication Error, No api key passed in."),
    "other scheme": ({"authorization": "Token abc"}, MALFORMED),
    "bare key": ({"authorization": MASTER_KEY}, MALFORMED),
    "empty bearer": ({"authorization": "Bearer"}, MALFORMED),
    "bad authorization does not fall through": ({"authorization": "Token a", "x-api-key": MASTER_KEY}, MALFORMED),
    "not sk-": ({"authorization": "Bearer abcdef123456"}, "Authentication Error, LiteLLM Virtual Key expected."),
}


@pytest.mark.parametrize("headers, message", REFUSED.values(), ids=REFUSED)
def test_refusals_on_openai_paths(locked_gateway, providers, headers, message):
    answer = locked_gateway.chat("openai", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert error["message"].startswith(message)
    assert (error["type"], error["param"], error["code"]) == ("auth_error", "None", "401")
    assert "abcdef123456" not in answer.text, "a key is never printed"
    assert not providers.openai.requests


@pytest.mark.parametrize("headers, message", REFUSED.values(), ids=REFUSED)
def test_refusals_on_anthropic_paths(locked_gateway, providers, headers, message):
    answer = locked_gateway.messages("openai", headers=headers)
    assert answer.status_code == 401
    body = answer.json()
    assert body["type"] == "error" and body["error"]["type"] == "authentication_error"
    assert body["error"]["message"].startswith(message)
    assert not providers.openai.requests


UNKNOWN = ["sk-wrong-1234", MASTER_KEY[:-1], MASTER_KEY + "0", MASTER_KEY.upper().replace("SK-", "sk-")]


@pytest.mark.parametrize("key", UNKNOWN)
def test_unknown_keys(locked_gateway, providers, key):
    answer = locked_gateway.chat("openai", headers={"authorization": f"Bearer {key}"})
    error = answer.json()["error"]
    # Without a database LiteLLM says that there is none; with one, that the token is not in it.
    assert (answer.status_code, error["type"]) in [(401, "token_not_found_in_db"), (400, "no_db_connection"), (401, "auth_error")]
    assert error["code"] == str(answer.status_code)
    assert key not in answer.text
    assert not providers.openai.requests


OPEN = ["/", "/health/liveliness", "/health/liveness", "/health/readiness", "/routes", "/metrics"]


@pytest.mark.parametrize("path", OPEN)
def test_public_routes(locked_gateway, path):
    assert locked_gateway.client.get(path).status_code == 200


CLOSED = ["/models", "/v1/models", "/model/info", "/v1/model/info"]


@pytest.mark.parametrize("path", CLOSED)
def test_routes_that_want_a_key(locked_gateway, path):
    assert locked_gateway.client.get(path).status_code == 401
    assert locked_gateway.client.get(path, headers=GOOD["bearer"]).status_code == 200


def test_master_key_from_the_environment(start, providers):
    config = {
        "model_list": [deployment("a", providers.openai.params())],
        "general_settings": {"master_key": "os.environ/THE_KEY"},
    }
    gateway = start(config, env={"THE_KEY": "sk-from-environment"})
    assert gateway.chat("a").status_code == 401
    assert gateway.chat("a", headers={"authorization": "Bearer sk-from-environment"}).status_code == 200


def test_without_a_master_key_everybody_may(gateway):
    for headers in ({}, {"authorization": "Bearer anything"}, {"authorization": "nonsense"}):
        assert gateway.chat("openai", headers=headers).status_code == 200
