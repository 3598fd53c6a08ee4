"""`--debug`: what is decided of each call and why, a line each, without prompts and keys; and nothing of it without the flag."""

from __future__ import annotations

from gateway import MASTER_KEY, bearer, deployment, wait_until
from mock_provider import OpenAiMock, status

KEY = "sk-provider-secret-4711"


def config_of(first: OpenAiMock, second: OpenAiMock) -> dict:
    return {
        "model_list": [
            deployment("a", first.params() | {"api_key": KEY}, id="a-1"),
            deployment("a", first.params() | {"api_key": KEY, "tags": ["other"]}, id="a-tagged"),
            deployment("b", second.params() | {"tags": ["other"]}, id="b-1"),
        ],
        "router_settings": {"num_retries": 0, "fallbacks": [{"a": ["b"]}], "enable_tag_filtering": True},
        "general_settings": {"master_key": MASTER_KEY},
    }


def test_each_decision_is_a_line_with_the_calls_id(start, mocks):
    first, second = mocks(OpenAiMock), mocks(OpenAiMock)
    first.default_key = KEY
    gateway = start(config_of(first, second), arguments=("--debug",))
    key = gateway.new_key(key_alias="laptop", rpm_limit=7)
    first.script(status(500, body={"error": {"message": "you wrote: a secret prompt"}}))
    answer = gateway.chat("a", "a secret prompt", headers=bearer(key), metadata={"tags": ["other"]})
    assert answer.status_code == 200, answer.text
    call_id = answer.headers["x-litellm-call-id"]
    said = lambda: [line for line in gateway.everything_printed().splitlines() if f"{call_id}: " in line]
    wait_until(lambda: any("over: " in line for line in said()), "the end of the call in the log")
    lines = [line.split(f"{call_id}: ", 1)[1] for line in said()]
    wanted = [
        "/v1/chat/completions by key `laptop` (",
        "model `a` is group `a` by simple-shuffle: `a-tagged`",
        "fallback `b` is group `b`",
        "attempt 1: deployment `a-tagged` at ",
        "failed: InternalServerError (500)",
        "next: falls back to `b`, deployment `b-1`",
        "attempt 2: deployment `b-1` at ",
        "over: status 200 after ",
    ]
    for words in wanted:
        assert any(line.startswith(words) for line in lines), f"{words!r} in {lines}"
    assert ", rpm 7" in lines[0] and "not `a-1` (" in lines[1], lines
    assert "11 + 7 tokens" in lines[-1] and "2 attempts, 1 fallbacks" in lines[-1]

    gateway.chat("a", "a secret prompt", headers=bearer("sk-unknown-0123456789"))
    wait_until(lambda: "answered here with 401" in gateway.everything_printed(), "the refusal in the log")
    printed = gateway.everything_printed()
    for secret in ("a secret prompt", key, KEY, MASTER_KEY, "sk-unknown-0123456789"):
        assert secret not in printed, secret
    assert "envoy.filters.http.router" not in printed, "Envoy's lists of what it is made of"


def test_without_the_flag_nothing_is_told(start, mocks):
    first, second = mocks(OpenAiMock), mocks(OpenAiMock)
    first.default_key = KEY
    gateway = start(config_of(first, second))
    call_id = gateway.chat("a", headers=bearer(MASTER_KEY)).headers["x-litellm-call-id"]
    gateway.access_record(call_id)
    assert f"{call_id}: " not in gateway.everything_printed()
