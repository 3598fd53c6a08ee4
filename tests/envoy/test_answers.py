"""Headers and records of an answer: ids, cost, the provider's own headers, and what must not come through."""

from __future__ import annotations

import decimal
import json

import pytest

from gateway import deployment, wait_until
from mock_provider import ok

WIRES = ("openai", "azure", "anthropic")


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("wire", WIRES)
def test_headers_of_a_buffered_answer(gateway, providers, wire, api):
    answer = getattr(gateway, api)(wire)
    headers = answer.headers
    assert headers["x-litellm-call-id"]
    assert headers["x-litellm-model-id"] == f"{wire}-1"
    assert headers["x-litellm-model-group"] == wire
    assert headers["x-litellm-model-api-base"].startswith(providers[wire].origin)
    assert headers["x-litellm-attempted-retries"] == "0"
    assert "x-litellm-version" in headers
    assert int(headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("wire", WIRES)
def test_headers_of_a_stream(gateway, wire):
    headers = gateway.chat(wire, stream=True).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-litellm-model-id"] == f"{wire}-1" and headers["x-litellm-call-id"]
    assert "content-length" not in headers


def test_call_ids_differ_and_the_clients_own_is_kept(gateway):
    ids = {gateway.chat("openai").headers["x-litellm-call-id"] for _ in range(5)}
    assert len(ids) == 5
    assert gateway.chat("openai", headers={"x-litellm-call-id": "mine-1"}).headers["x-litellm-call-id"] == "mine-1"


def test_a_key_from_the_environment_reaches_the_provider(gateway, providers):
    assert gateway.chat("from-env").status_code == 200
    assert providers.openai.last.header("authorization") == f"Bearer {providers.openai.key}"


def test_custom_price(gateway):
    cost = gateway.chat("priced").headers["x-litellm-response-cost"]
    assert decimal.Decimal(cost) == decimal.Decimal("0.001") * 11 + decimal.Decimal("0.01") * 7


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_price_of_the_table(gateway, wire):
    assert decimal.Decimal(gateway.chat(wire).headers["x-litellm-response-cost"]) > 0


def test_the_providers_headers_are_repeated(gateway, providers):
    providers.openai.script(ok(headers=[("x-ratelimit-remaining-requests", "41"), ("openai-processing-ms", "12")]))
    headers = gateway.chat("openai").headers
    assert headers["llm_provider-openai-processing-ms"] == "12"
    assert headers["llm_provider-x-ratelimit-remaining-requests"] == "41"
    assert headers["x-ratelimit-remaining-requests"] == "41"


def test_anthropics_rate_limits_are_renamed(gateway):
    headers = gateway.chat("anthropic").headers
    assert headers["llm_provider-anthropic-ratelimit-requests-remaining"] == "49"
    assert headers["x-ratelimit-remaining-requests"] == "49"


def test_envoys_headers_do_not_come_through(gateway, providers):
    providers.openai.script(ok(headers=[("x-envoy-overloaded", "true"), ("x-envoy-ratelimited", "true")]))
    names = set(gateway.chat("openai").headers)
    assert not [name for name in names if name.startswith(("x-envoy-", "x-tollgate-"))]


FORBIDDEN = ("x-envoy-", "x-tollgate-", "x-litellm-", "x-forwarded-for", "cookie", "origin")


@pytest.mark.parametrize("wire", WIRES)
def test_what_the_provider_does_not_get_to_see(gateway, providers, wire):
    headers = {
        "x-envoy-max-retries": "9",
        "x-envoy-retry-on": "5xx",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-upstream-rq-per-try-timeout-ms": "1",
        "x-tollgate-next": "elsewhere",
        "x-tollgate-exchange": "1",
        "x-litellm-timeout": "20",
        "authorization": "Bearer sk-the-clients",
        "cookie": "a=b",
        "origin": "https://app.example",
    }
    answer = gateway.chat(wire, headers=headers)
    assert answer.status_code == 200, answer.text
    got = providers[wire].last
    assert not [name for name in got.header_names() if name.startswith(FORBIDDEN)]
    assert not any("sk-the-clients" in value for _, value in got.headers)
    assert got.header("host") == f"127.0.0.1:{providers[wire].port}"


def test_retry_headers_of_a_client_have_no_effect(gateway, providers):
    providers.openai.script(providers.openai.error("server"))
    answer = gateway.chat("openai", headers={"x-envoy-max-retries": "3", "x-envoy-retry-on": "5xx"})
    assert answer.status_code == 500 and len(providers.openai.requests) == 1


def test_error_answers_carry_the_call_id_and_retry_after(gateway, providers):
    providers.openai.script(providers.openai.error("rate_limit", headers=[("retry-after", "17")]))
    headers = gateway.chat("openai").headers
    assert headers["x-litellm-call-id"] and headers["retry-after"] == "17"


def test_access_log_tells_status_attempts_and_usage(start, providers):
    gateway = start({"model_list": [deployment("a", providers.openai.params(), id="a-1")]})
    for stream in (False, True):
        assert gateway.chat("a", "a secret prompt", stream=stream).status_code == 200
    gateway.chat("no-such-model")
    records = wait_until(lambda: len(gateway.access_log()) >= 3 and gateway.access_log(), "three records")
    assert sorted(str(record["status"]) for record in records[:3]) == ["200", "200", "400"]
    served = [json.dumps(record) for record in records if str(record["status"]) == "200"]
    assert all("/chat/completions" in record for record in served)
    assert all("11" in record and "7" in record for record in served), "prompt and completion tokens"
    assert "a secret prompt" not in gateway.everything_printed()
