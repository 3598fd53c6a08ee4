"""Virtual keys as the documentation shows them: made with curl, used, limited, watched."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any, Iterator

import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import Gate, OpenAiMock, gated
from mock_provider.fixtures import openai_mock

PROMPT_COST, OUTPUT_COST = 0.000001, 0.000002


mock = openai_mock("module")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, mock: OpenAiMock) -> Iterator[Gateway]:
    prices = {"input_cost_per_token": PROMPT_COST, "output_cost_per_token": OUTPUT_COST}
    names = ["gpt-3.5-turbo", "gpt-4", "my-free-tier", "sonnet", "haiku"]
    models = [deployment(name, mock.params() | prices, id=name) for name in names]
    config = {"model_list": models, "general_settings": {"master_key": MASTER_KEY}}
    gateway = Gateway(tmp_path_factory.mktemp("keys"), config)
    yield gateway
    gateway.stop()


@pytest.fixture(autouse=True)
def fresh(mock: OpenAiMock) -> None:
    mock.clear()


def curl(gateway: Gateway, path: str, *arguments: str) -> Any:
    """Calls with curl, as the documentation does."""
    words = ["curl", "-sS", "--noproxy", "*", gateway.url + path, "-H", f"Authorization: Bearer {MASTER_KEY}", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def chat(gateway: Gateway, key: str, model: str = "gpt-4", **body: Any):
    return gateway.chat(model, headers=bearer(key), **body)


def error_of(answer: Any) -> dict:
    return answer.json()["error"]


def test_a_temporary_key_for_three_models(gateway: Gateway) -> None:
    # As printed: curl sends this as a form, which the gateway does not mind.
    made = curl(gateway, "/key/generate", "-d", '{"models": ["gpt-3.5-turbo", "gpt-4", "claude-2"], "duration": "20m"}')
    assert made["key"].startswith("sk-") and made["expires"] and made["models"] == ["gpt-3.5-turbo", "gpt-4", "claude-2"]
    assert chat(gateway, made["key"], "gpt-4").status_code == 200
    refused = chat(gateway, made["key"], "haiku")
    assert (refused.status_code, error_of(refused)["type"]) == (401, "key_model_access_denied")


def test_an_alias_moves_a_key_to_another_model(gateway: Gateway) -> None:
    body = '{"models": ["my-free-tier"], "aliases": {"gpt-3.5-turbo": "my-free-tier"}, "duration": "30min"}'
    made = curl(gateway, "/key/generate", "-X", "POST", "-H", "Content-Type: application/json", "-d", body)
    answer = chat(gateway, made["key"], "gpt-3.5-turbo")
    assert answer.status_code == 200 and answer.headers["x-litellm-model-group"] == "my-free-tier"
    assert chat(gateway, made["key"], "gpt-4").status_code == 401


def test_spend_shows_after_calls(gateway: Gateway) -> None:
    key = gateway.new_key()
    before = curl(gateway, f"/key/info?key={key}", "-X", "GET")
    assert before["info"]["spend"] == 0 and "token" not in before["info"]
    answers = [chat(gateway, key) for _ in range(3)]
    assert all(answer.status_code == 200 for answer in answers)
    usage = answers[0].json()["usage"]
    one = usage["prompt_tokens"] * 1_000_000 + usage["completion_tokens"] * 2_000_000
    info = wait_until(
        lambda: (found := curl(gateway, f"/key/info?key={key}"))["info"]["spend"] > 0 and found, "spend of the key"
    )
    total = wait_until(lambda: (s := gateway.spend_of(key)) * 10**12 >= 3 * one - 1 and s, "the spend of three calls")
    assert round(total * 10**12) == 3 * one and info["key"] == key


def test_a_user_with_a_budget_limits_and_models(gateway: Gateway, mock: OpenAiMock) -> None:
    fields = {
        "user_role": "internal_user",
        "max_budget": 1000.0,
        "budget_duration": "1mo",
        "tpm_limit": 10000,
        "rpm_limit": 3,
        "max_parallel_requests": 2,
        "models": ["sonnet", "haiku"],
        "model_rpm_limit": {"sonnet": 1, "haiku": 10},
        "model_tpm_limit": {"sonnet": 10000, "haiku": 20000},
    }
    body = json.dumps(fields)
    made = curl(gateway, "/user/new", "-X", "POST", "-H", "Content-Type: application/json", "-d", body)
    assert made["user_role"] == "internal_user" and made["max_budget"] == 1000 and made["budget_duration"] == "1mo"
    key = made["key"]
    assert chat(gateway, key, "gpt-4").status_code == 401
    assert chat(gateway, key, "sonnet").status_code == 200
    second = chat(gateway, key, "sonnet")
    assert second.status_code == 429 and "model_per_key" in error_of(second)["message"]
    assert chat(gateway, key, "haiku").status_code == 200
    third = chat(gateway, key, "haiku")
    assert third.status_code == 200, third.text
    over = chat(gateway, key, "haiku")
    assert over.status_code == 429 and "user" in error_of(over)["message"], over.text
    info = curl(gateway, f"/user/info?user_id={made['user_id']}")
    assert info["user_info"]["max_parallel_requests"] == 2 and info["user_info"]["rpm_limit"] == 3


def test_a_change_is_in_force_when_its_answer_arrives(gateway: Gateway) -> None:
    key = gateway.new_key(models=["gpt-4"])
    for turn in range(20):
        allowed = "gpt-4" if turn % 2 else "haiku"
        other = "haiku" if turn % 2 else "gpt-4"
        gateway.manage("/key/update", {"key": key, "models": [allowed]})
        # Each of the workers may get the next connection.
        for _ in range(2):
            with gateway.connect() as client:
                ask = {"messages": [{"role": "user", "content": "hi"}]}
                post = lambda model: client.post("/chat/completions", json=ask | {"model": model}, headers=bearer(key))
                assert post(allowed).status_code == 200
                assert post(other).status_code == 401
    gateway.manage("/key/block", {"key": key})
    assert "blocked" in error_of(chat(gateway, key))["message"]
    gateway.manage("/key/unblock", {"key": key})
    gateway.manage("/key/delete", {"keys": [key]})
    gone = chat(gateway, key)
    assert (gone.status_code, error_of(gone)["type"]) == (401, "token_not_found_in_db")


def test_a_regenerated_key_replaces_the_old_one(gateway: Gateway) -> None:
    key = gateway.new_key(metadata={"owner": "me"})
    assert chat(gateway, key).status_code == 200
    new = gateway.manage("/key/regenerate", {"key": key})["key"]
    assert chat(gateway, key).status_code == 401
    assert chat(gateway, new).status_code == 200


def test_models_are_listed_as_the_key_may_call_them(gateway: Gateway) -> None:
    key = gateway.new_key(models=["gpt-4", "haiku"])
    listed = gateway.client.get("/v1/models", headers=bearer(key)).json()["data"]
    assert [model["id"] for model in listed] == ["gpt-4", "haiku"]


def test_answers_say_what_is_left(gateway: Gateway) -> None:
    key = gateway.new_key(rpm_limit=5, tpm_limit=100_000, max_budget=2.5, model_rpm_limit={"gpt-4": 4})
    answer = chat(gateway, key)
    headers = answer.headers
    assert headers["x-litellm-key-rpm-limit"] == "5" and headers["x-litellm-key-tpm-limit"] == "100000"
    assert headers["x-litellm-key-max-budget"] == "2.5" and float(headers["x-litellm-key-spend"]) >= 0
    assert headers["x-ratelimit-limit-requests"] == "5" and headers["x-ratelimit-remaining-requests"] == "4"
    assert headers["x-ratelimit-api_key-remaining-requests"] == "4" and headers["x-ratelimit-api_key-limit-requests"] == "5"
    assert headers["x-litellm-key-remaining-requests-gpt-4"] == "3"


def test_all_apis_are_limited_and_charged(gateway: Gateway) -> None:
    key = gateway.new_key(rpm_limit=3)
    client, ask = gateway.client, {"model": "gpt-4", "messages": [{"role": "user", "content": "hi"}]}
    assert client.post("/v1/messages", json=ask | {"max_tokens": 9}, headers={"x-api-key": key}).status_code == 200
    assert client.post("/v1/completions", json={"model": "gpt-4", "prompt": "hi"}, headers=bearer(key)).status_code == 200
    assert client.post("/v1/embeddings", json={"model": "gpt-4", "input": "hi"}, headers=bearer(key)).status_code == 200
    refused = client.post("/v1/messages", json=ask | {"max_tokens": 9}, headers={"x-api-key": key})
    assert refused.status_code == 429 and refused.json()["type"] == "error"
    rows = wait_until(
        lambda: len(found := gateway.manage("/spend/logs", api_key=key)) == 4 and found, "four rows in the spend log"
    )
    served = [row for row in rows if row["status"] == "success"]
    assert sorted(row["call_type"] for row in served) == ["aembedding", "anthropic_messages", "atext_completion"]
    (failed,) = (row for row in rows if row["status"] == "failure")
    error = failed["metadata"]["error_information"]
    assert (error["error_code"], error["error_message"]) == ("429", refused.json()["error"]["message"])
    assert failed["spend"] == 0 and failed["call_type"] == "anthropic_messages"


def test_a_client_that_leaves_frees_its_place_and_pays(gateway: Gateway, mock: OpenAiMock) -> None:
    key = gateway.new_key(max_parallel_requests=1)
    gate = Gate()
    mock.script(gated(gate, after=3))
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with gateway.connect() as client, client.stream("POST", "/chat/completions", json=body, headers=bearer(key)) as answer:
        gate.wait_reached()
        # Kept: an iterator that nobody holds closes the answer.
        pieces = answer.iter_raw()
        assert next(pieces)
        busy = chat(gateway, key)
        assert busy.status_code == 429 and "max_parallel_requests" in error_of(busy)["message"]
    mock.last.wait_gone()
    wait_until(lambda: chat(gateway, key).status_code == 200, "the place to be free again")
    gate.open()
    rows = wait_until(
        lambda: len(found := gateway.manage("/spend/logs", api_key=key)) >= 2 and found, "both calls in the spend log"
    )
    assert all(row["spend"] > 0 for row in rows if row["status"] == "success"), rows


def test_the_ledger_knows_no_key_by_its_text(gateway: Gateway, tmp_path: pathlib.Path) -> None:
    key = gateway.new_key()
    assert chat(gateway, key).status_code == 200
    for file in gateway.state.rglob("*"):
        if file.is_file():
            assert key.encode() not in file.read_bytes(), file
    assert key not in gateway.everything_printed()
    assert key not in gateway.admin("/config_dump").text
