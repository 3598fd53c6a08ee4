"""The access log: one flat JSON object for each request, whoever answered it, and whatever its client wrote."""

from __future__ import annotations

import json

import httpx
import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, free_port, wait_until
from mock_provider import cut, status
from mock_provider.fixtures import openai_mock

HOSTILE = 'quo"te\\back'


provider = openai_mock("module")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, provider):
    nobody = {"model": "openai/gpt-4o-mini", "api_key": "k", "api_base": f"http://127.0.0.1:{free_port()}/v1"}
    config = {
        "model_list": [
            deployment("good", provider.params() | {"input_cost_per_token": "0.000001", "output_cost_per_token": 0}, id="good-1"),
            deployment("away", nobody, id="away-1"),
        ],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
    }
    gateway = Gateway(tmp_path_factory.mktemp("log"), config)
    yield gateway
    gateway.stop()


def records(gateway: Gateway) -> list[dict]:
    """Every line of the log, each of which is JSON without anything inside it."""
    found = [json.loads(line) for line in gateway.lines() if line.startswith("{")]
    for record in found:
        assert not any(isinstance(value, (dict, list)) for value in record.values()), record
    return found


def record_of(gateway: Gateway, **members: object) -> dict:
    """The record that has all these members."""
    match = lambda: next((r for r in records(gateway) if members.items() <= r.items()), None)
    return wait_until(match, f"a record with {members}")


def test_a_record_is_flat_and_says_whose_call_it_was(gateway, provider):
    team = gateway.manage("/team/new", {"team_alias": "Blue team"})["team_id"]
    gateway.manage("/user/new", {"user_id": "ann", "auto_create_key": False})
    made = gateway.manage("/key/generate", {"key_alias": "ann's laptop", "team_id": team, "user_id": "ann"})
    answer = gateway.chat("good", "a secret prompt", headers=bearer(made["key"]), user="customer-7")
    assert answer.status_code == 200, answer.text
    record = record_of(gateway, call_id=answer.headers["x-litellm-call-id"])
    expected = {
        "method": "POST", "path": "/v1/chat/completions", "protocol": "HTTP/1.1", "status": 200, "response_flags": "-",
        "call_type": "acompletion", "model": "good", "model_group": "good", "model_id": "good-1", "provider": "openai",
        "provider_model": "gpt-4o-mini", "key_hash": made["token"], "key_alias": "ann's laptop", "user_id": "ann",
        "team_id": team, "team_alias": "Blue team", "end_user": "customer-7", "stream": False, "attempts": 1, "retries": 0,
        "fallbacks": 0, "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "cached_tokens": 0,
        "estimated": False, "cost": "0.000011", "upstream_address": f"127.0.0.1:{provider.port}",
    }  # fmt: skip
    assert {name: record.get(name) for name in expected} == expected
    assert record["client"].startswith("127.0.0.1:") and record["duration_ms"] >= record["first_ms"] >= 0
    assert record["request_id"] and not {"error", "error_message", "code_details", "usage"} & set(record)
    assert made["key"] not in gateway.everything_printed() and "a secret prompt" not in gateway.everything_printed()


def test_a_refused_connection_is_called_that(gateway):
    answer = gateway.chat("away", headers=bearer(MASTER_KEY))
    assert answer.status_code == 500
    record = record_of(gateway, call_id=answer.headers["x-litellm-call-id"])
    assert "onnection refused" in record["upstream_failure"] and record["upstream_address"].startswith("127.0.0.1:")
    assert (record["status"], record["error"], record["response_flags"]) == (500, "APIConnectionError", "URX,UF")
    assert "Connection error." in record["error_message"]


def test_a_providers_words_stay_out_and_its_code_does_not(gateway, provider):
    said = {"error": {"message": "you wrote: a secret prompt", "code": "insufficient_quota", "type": "a secret prompt"}}
    provider.script(status(429, body=json.dumps(said).encode()))
    answer = gateway.chat("good", headers=bearer(MASTER_KEY))
    assert answer.status_code == 429 and "a secret prompt" in answer.text
    record = record_of(gateway, call_id=answer.headers["x-litellm-call-id"])
    assert (record["error"], record["error_message"]) == (
        "RateLimitError", "RateLimitError from the provider (insufficient_quota)",
    )  # fmt: skip
    assert "a secret prompt" not in gateway.everything_printed()


def test_refusals_say_why_and_whose_key_it_was(gateway):
    key = gateway.manage("/key/generate", {"key_alias": "narrow", "models": ["other"]})
    answer = gateway.chat("good", headers=bearer(key["key"]))
    assert answer.status_code == 401
    record = record_of(gateway, call_id=answer.headers["x-litellm-call-id"])
    assert (record["error"], record["key_alias"]) == ("key_model_access_denied", "narrow")
    assert "not allowed to access model" in record["error_message"]

    gateway.client.get("/v1/models?key=sk-secret-in-query", headers=bearer("sk-unknown-key-0123456789"))
    record = record_of(gateway, path="/v1/models", status=401)
    assert record["error"] == "token_not_found_in_db" and "sk-...6789" in record["error_message"]
    gateway.client.get("/v1/models", headers=bearer(key["key"]))
    assert record_of(gateway, path="/v1/models", status=200)["key_alias"] == "narrow"
    assert "sk-secret-in-query" not in gateway.everything_printed()
    assert "sk-unknown-key-0123456789" not in gateway.everything_printed()


def test_a_stream_that_breaks_says_so(gateway, provider):
    provider.script(cut(3))
    head = bearer(MASTER_KEY) | {"x-litellm-call-id": "cut-off"}
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.chat("good", headers=head, stream=True)
    record = record_of(gateway, call_id="cut-off")
    assert record["status"] == 200 and "upstream_reset_after_response_started" in record["code_details"]


def test_hostile_headers_leave_each_line_one_json_object(gateway, raw, chat_bytes):
    key = b"authorization: Bearer " + MASTER_KEY.encode()
    hostile = HOSTILE.encode()
    body = chat_bytes("good", user=HOSTILE)
    heads = [
        [b"user-agent: " + hostile, b"x-request-id: " + hostile],
        [b"x-request-id: \xff\xfe\"}\t{", b"x-litellm-call-id: \"}\\"],
        [b"x-request-id: " + b"r\"" * 20_000, b"x-forwarded-for: \"\\", b"referer: \"}{"],
    ]  # fmt: skip
    for head in heads:
        assert raw(gateway).post(body, key, *head).answer()[0] == 200
        raw(gateway).post(b"{", key, *head).answer()
        raw(gateway).post(b"{", *head).answer()
    for path in (b'/v1/"}{\\', b"/\xff\xfe\"", b"/v1/models/\"\\?q=\"", b"/" + b'"' * 30_000, b'/key/info?key="\\'):
        raw(gateway).send(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n" + key + b"\r\n\r\n").answer()
    gateway.chat(HOSTILE, headers=bearer(MASTER_KEY))
    assert record_of(gateway, model=HOSTILE)["status"] == 400
    assert record_of(gateway, end_user=HOSTILE, request_id=HOSTILE)["status"] == 200
    assert record_of(gateway, path="/v1/%22%7D%7B/")["status"] == 404, "as Envoy writes it"
    assert max(len(json.dumps(record)) for record in records(gateway)) < 8_000


ENVOYS_OWN = {
    "no request at all": (b"nonsense\r\n\r\n", 400),
    "a host of nobody": (b'GET /v1/models HTTP/1.1\r\nhost: a"b\\\r\n\r\n', 400),
    "no host": (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
    "too many headers": (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: \"\r\n" % at for at in range(300)) + b"\r\n", 431),
    "an upgrade": (b"GET /v1/\" HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: \"websocket\r\n\r\n", 403),
    "two lengths": (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
}  # fmt: skip


@pytest.mark.parametrize("request_bytes, answered", ENVOYS_OWN.values(), ids=ENVOYS_OWN)
def test_what_the_filter_never_saw_is_a_record_too(gateway, raw, request_bytes, answered):
    before = len(records(gateway))
    assert raw(gateway).send(request_bytes).answer()[0] == answered
    wait_until(lambda: len(records(gateway)) > before, "one more record")
    record = records(gateway)[before]
    assert record["status"] == answered and record["code_details"], record


def test_a_client_that_leaves_has_a_record(gateway, raw):
    raw(gateway).post(b"{", b"authorization: Bearer " + MASTER_KEY.encode(), b"content-length: 500", length=False).close()
    assert record_of(gateway, status=0)["path"] == "/v1/chat/completions"


def test_files_have_the_same_lines(start, provider, tmp_path):
    log = tmp_path / "access.log"
    config = {"model_list": [deployment("a", provider.params())], "tollgate_settings": {"access_log": str(log)}}
    gateway = start(config)
    call_id = gateway.chat("a").headers["x-litellm-call-id"]
    written = lambda: log.exists() and any(call_id in line for line in log.read_text().splitlines())
    wait_until(written, "the line in the file")
    assert json.loads(log.read_text().splitlines()[0])["call_id"]
