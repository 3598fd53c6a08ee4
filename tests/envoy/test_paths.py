"""The routes: every form of every path, what is not there, CORS, health and model information."""

from __future__ import annotations

import json

import pytest

from gateway import MASTER_KEY

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
FORMS = ["/{tail}", "/v1/{tail}", "/engines/{model}/{tail}", "/openai/deployments/{model}/{tail}"]
TAILS = {
    "chat/completions": ("openai", CHAT),
    "completions": ("openai-text", {"prompt": "hi"}),
    "embeddings": ("openai-embed", {"input": "hi"}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tail", TAILS)
def test_every_form_of_a_path(gateway, providers, form, tail):
    model, body = TAILS[tail]
    path = form.format(tail=tail, model=model)
    body = body if "{model}" in form else body | {"model": model}
    answer = gateway.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert providers.openai.last.path == f"/v1/{tail}"


@pytest.mark.parametrize("form", FORMS[2:])
def test_the_model_of_the_path_wins(gateway, providers, form):
    answer = gateway.client.post(form.format(tail="chat/completions", model="anthropic"), json=CHAT | {"model": "openai"})
    assert answer.status_code == 200 and providers.anthropic.requests and not providers.openai.requests


@pytest.mark.parametrize("name", ["team/with/slashes", "team%2Fwith%2Fslashes"])
def test_model_names_with_slashes(gateway, name):
    assert gateway.client.post(f"/openai/deployments/{name}/chat/completions", json=CHAT).status_code == 200


def test_wildcards_and_aliases(gateway, providers):
    assert gateway.chat("wild/gpt-4o").status_code == 200
    assert providers.openai.last.json["model"] == "gpt-4o"
    assert gateway.chat("alias-of-openai").status_code == 200
    assert gateway.chat("openai-1").status_code == 200, "a deployment's id names it"


def test_unknown_path_names_itself(gateway):
    for path in ("/v1/nothing/here", "/chat/completion", "/v1/messages/batches"):
        answer = gateway.client.post(path, json={})
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert path in error["message"]
        if path.startswith("/v1/messages"):
            assert answer.json()["type"] == "error" and error["type"] == "not_found_error"
        else:
            assert error["code"] == "404"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/embeddings", "/v1/messages"])
def test_wrong_method(gateway, path):
    answer = gateway.client.get(path)
    assert answer.status_code == 405
    assert answer.headers["content-type"].startswith("application/json") and answer.json()


def test_query_strings_do_not_hide_a_path(gateway, providers):
    answer = gateway.client.post("/v1/chat/completions?beta=true&x=%20", json=CHAT | {"model": "openai"})
    assert answer.status_code == 200
    assert providers.openai.last.path == "/v1/chat/completions"
    answer = gateway.client.post("/v1/messages?beta=true", json=CHAT | {"model": "anthropic", "max_tokens": 5})
    assert answer.status_code == 200, "recent SDKs add it"


def test_preflight(locked_gateway):
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = locked_gateway.client.options("/v1/chat/completions", headers=asked)
    assert answer.status_code == 200, "no key is asked for"
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert "POST" in answer.headers["access-control-allow-methods"] or answer.headers["access-control-allow-methods"] == "*"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize("model, code", [("openai", 200), ("no-such-model", 400)])
def test_cross_origin_answers_can_be_read(gateway, model, code):
    answer = gateway.chat(model, headers={"origin": "https://app.example"})
    assert answer.status_code == code
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")


@pytest.mark.parametrize("path", ["/health/liveliness", "/health/liveness", "/health/readiness"])
def test_health(gateway, path):
    assert gateway.client.get(path).status_code == 200


def test_readiness_is_json(gateway):
    assert isinstance(gateway.client.get("/health/readiness").json(), dict)


def test_routes_lists_what_is_served(gateway):
    text = gateway.client.get("/routes").text
    for path in ("/chat/completions", "/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/health/liveliness"):
        assert path in text


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
def test_models(gateway, path):
    body = gateway.client.get(path).json()
    assert body["object"] == "list"
    rows = {row["id"]: row for row in body["data"]}
    assert rows["openai"]["object"] == "model" and "owned_by" in rows["openai"]


@pytest.mark.parametrize("path", ["/model/info", "/v1/model/info"])
def test_model_info_has_no_secrets(locked_gateway, providers, path):
    answer = locked_gateway.client.get(path, headers={"authorization": f"Bearer {MASTER_KEY}"})
    rows = {row["model_name"]: row for row in answer.json()["data"]}
    assert rows["openai"]["litellm_params"]["model"] == "openai/gpt-4o-mini"
    assert rows["openai"]["model_info"]["id"] == "openai-1"
    for mock in providers.all():
        assert mock.key not in answer.text
    assert MASTER_KEY not in answer.text


def test_metrics_with_a_body_are_answered(gateway):
    """A body that nobody waits for must not be kept back."""
    answer = gateway.client.request("GET", "/metrics", content=b"x" * 1000)
    assert answer.status_code == 200
    assert "tollgate" in answer.text


def test_metrics_are_prometheus(gateway):
    gateway.chat("openai")
    stats = gateway.stats()
    assert any("tollgate" in name for name in stats), sorted(stats)[:20]


def test_json_digits_and_unknown_members_survive(gateway, providers):
    body = b'{"model":"openai","messages":[{"role":"user","content":"hi"}],'
    body += b'"seed":12345678901234567890123,"temperature":0.70,"new":{"a":1e2}}'
    answer = gateway.client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    sent = providers.openai.last.body
    for piece in (b"12345678901234567890123", b"0.70", b"1e2"):
        assert piece in sent
    assert json.loads(sent)["model"] == "gpt-4o-mini"
