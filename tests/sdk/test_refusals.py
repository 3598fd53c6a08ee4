"""Every refusal of a virtual key, as the OpenAI SDK sees it: status, type, code, param, message and headers."""

from __future__ import annotations

import dataclasses
import re
import uuid
from typing import Any, Callable, Iterator

import httpx
import openai
import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import Gate, OpenAiMock, gated
from mock_provider.fixtures import openai_mock

COST = 0.3
"""Dollars of one call."""


mock = openai_mock("module", usage=lambda _: {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, mock: OpenAiMock) -> Iterator[Gateway]:
    prices = {"input_cost_per_token": 0.1, "output_cost_per_token": 0.1}
    models = [
        deployment("m", mock.params() | prices),
        deployment("other", mock.params() | prices),
        deployment("grouped", mock.params() | prices, access_groups=["beta"]),
    ]
    general = {"master_key": MASTER_KEY}
    gateway = Gateway(tmp_path_factory.mktemp("refusals"), {"model_list": models, "general_settings": general}, workers=1)
    yield gateway
    gateway.stop()


def client(gateway: Gateway, key: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{gateway.url}/v1", max_retries=0, http_client=httpx.Client(trust_env=False))


def ask(gateway: Gateway, key: str, model: str = "m", **body: Any) -> Any:
    return client(gateway, key).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=2, **body
    )


def refusal(gateway: Gateway, key: str, model: str = "m", **body: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(gateway, key, model, **body)
    return caught.value


# ------------------------------------------------------------------------------------------------------------ one row a case


def spent(gateway: Gateway, key: str, **body: Any) -> None:
    """Calls until the budget is known to be gone."""
    ask(gateway, key, **body)


def key_unknown(gateway: Gateway) -> dict:
    return {"key": "sk-1234567890abcdef"}


def key_not_sk(gateway: Gateway) -> dict:
    return {"key": "hello-there-1234"}


def key_blocked(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(blocked=True)}


def key_expired(gateway: Gateway) -> dict:
    key = gateway.new_key(duration="1s")
    wait_until(lambda: gateway.chat("m", headers=bearer(key), max_tokens=2).status_code != 200, "the key to expire")
    return {"key": key}


def key_model(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(models=["other"])}


def team_model(gateway: Gateway) -> dict:
    team = gateway.manage("/team/new", {"models": ["other"]})["team_id"]
    return {"key": gateway.new_key(team_id=team)}


def user_model(gateway: Gateway) -> dict:
    user = gateway.manage("/user/new", {"models": ["other"], "auto_create_key": False})["user_id"]
    return {"key": gateway.new_key(user_id=user)}


def user_no_default(gateway: Gateway) -> dict:
    user = gateway.manage("/user/new", {"models": ["no-default-models"], "auto_create_key": False})["user_id"]
    return {"key": gateway.new_key(user_id=user)}


def group_model(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(models=["beta"])}


def key_budget(gateway: Gateway) -> dict:
    key = gateway.new_key(max_budget=0.25)
    spent(gateway, key)
    return {"key": key}


def key_budget_zero(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(max_budget=0)}


def team_budget(gateway: Gateway) -> dict:
    team = gateway.manage("/team/new", {"max_budget": 0.25})["team_id"]
    key = gateway.new_key(team_id=team)
    spent(gateway, key)
    return {"key": key, "id": team}


def user_budget(gateway: Gateway) -> dict:
    user = gateway.manage("/user/new", {"max_budget": 0.25, "auto_create_key": False})["user_id"]
    key = gateway.new_key(user_id=user)
    spent(gateway, key)
    return {"key": key, "id": user}


def member_budget(gateway: Gateway) -> dict:
    user = gateway.manage("/user/new", {"auto_create_key": False})["user_id"]
    team = gateway.manage("/team/new", {})["team_id"]
    member = {"role": "user", "user_id": user}
    gateway.manage("/team/member_add", {"team_id": team, "member": member, "max_budget_in_team": 0.25})
    key = gateway.new_key(user_id=user, team_id=team)
    spent(gateway, key)
    return {"key": key}


def organization_model(gateway: Gateway) -> dict:
    made = gateway.manage("/organization/new", {"organization_alias": "o", "models": ["other"]})
    return {"key": gateway.new_key(organization_id=made["organization_id"])}


def organization_budget(gateway: Gateway) -> dict:
    made = gateway.manage("/organization/new", {"organization_alias": "o", "max_budget": 0.25})
    key = gateway.new_key(organization_id=made["organization_id"])
    spent(gateway, key)
    return {"key": key, "id": made["organization_id"]}


def customer(gateway: Gateway, **fields: Any) -> str:
    """A new customer's id."""
    name = f"customer-{uuid.uuid4().hex[:8]}"
    gateway.manage("/customer/new", {"user_id": name} | fields)
    return name


def end_user_blocked(gateway: Gateway) -> dict:
    name = customer(gateway)
    gateway.manage("/customer/block", {"user_ids": [name]})
    return {"key": gateway.new_key(), "id": name, "body": {"user": name}}


def end_user_budget(gateway: Gateway) -> dict:
    name = customer(gateway, max_budget=0.25)
    key = gateway.new_key()
    spent(gateway, key, user=name)
    return {"key": key, "id": name, "body": {"user": name}}


def client_fallback(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(models=["other"]), "model": "other", "body": {"extra_body": {"fallbacks": ["m"]}}}


def enforced_params(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(enforced_params=["metadata.trace"])}


def foreign_base(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(), "body": {"extra_body": {"api_base": "http://127.0.0.1:1"}}}


def model_budget(gateway: Gateway) -> dict:
    key = gateway.new_key(model_max_budget={"m": {"budget_limit": 0.25, "time_period": "1d"}})
    spent(gateway, key)
    return {"key": key}


def team_blocked(gateway: Gateway) -> dict:
    team = gateway.manage("/team/new", {})["team_id"]
    gateway.manage("/team/block", {"team_id": team})
    return {"key": gateway.new_key(team_id=team), "id": team}


def key_routes(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(allowed_routes=["/v1/embeddings"])}


def key_rpm(gateway: Gateway) -> dict:
    key = gateway.new_key(rpm_limit=1)
    ask(gateway, key)
    return {"key": key}


def key_tpm(gateway: Gateway) -> dict:
    key = gateway.new_key(tpm_limit=2)
    ask(gateway, key)
    return {"key": key}


def key_rpm_zero(gateway: Gateway) -> dict:
    return {"key": gateway.new_key(rpm_limit=0)}


def user_rpm(gateway: Gateway) -> dict:
    user = gateway.manage("/user/new", {"rpm_limit": 1, "auto_create_key": False})["user_id"]
    key = gateway.new_key(user_id=user)
    ask(gateway, key)
    return {"key": key, "id": user}


def team_rpm(gateway: Gateway) -> dict:
    team = gateway.manage("/team/new", {"rpm_limit": 1})["team_id"]
    key = gateway.new_key(team_id=team)
    ask(gateway, key)
    return {"key": key, "id": team}


def model_rpm(gateway: Gateway) -> dict:
    key = gateway.new_key(model_rpm_limit={"m": 1})
    ask(gateway, key)
    return {"key": key}


def team_model_rpm(gateway: Gateway) -> dict:
    team = gateway.manage("/team/new", {"model_rpm_limit": {"m": 1}})["team_id"]
    key = gateway.new_key(team_id=team)
    ask(gateway, key)
    return {"key": key, "id": team}


def end_user_rpm(gateway: Gateway) -> dict:
    name = customer(gateway, rpm_limit=1)
    key = gateway.new_key()
    ask(gateway, key, user=name)
    return {"key": key, "id": name, "body": {"user": name}}


HASH = "[0-9a-f]{64}"
BUDGET = r"Budget has been exceeded! {}Current cost: 0\.3, Max budget: 0\.25"
LIMIT = r"Rate limit exceeded for {}: {}\. Limit type: {}\. Current limit: {}, Remaining: 0\. Limit resets at: [-0-9]+ [:0-9]+ UTC"
TIME = r"[-0-9]+ [:0-9]+\+00:00"


@dataclasses.dataclass
class Row:
    """A refusal. In the message `ID` stands for the id that the case names."""

    case: Callable[[Gateway], dict]
    status: int
    type: str
    message: str
    param: str | None = "None"
    headers: tuple[str, ...] = ()


LIMITED = ("retry-after", "rate_limit_type", "reset_at")
ROWS = [
    Row(
        key_unknown,
        401,
        "token_not_found_in_db",
        rf"Authentication Error, Invalid proxy server token passed\. Received API Key = sk-\.\.\.cdef, Key Hash \(Token\) ={HASH}\. "
        r"Unable to find token in cache or `LiteLLM_VerificationTokenTable`",
        "key",
    ),
    Row(
        key_not_sk,
        401,
        "auth_error",
        r"Authentication Error, LiteLLM Virtual Key expected\. Received=\S+, expected to start with 'sk-'\.",
    ),
    Row(key_blocked, 401, "auth_error", r"Authentication Error, Key is blocked\. Update via `/key/unblock` if you're admin\."),
    Row(
        key_expired,
        400,
        "expired_key",
        rf"Authentication Error - Expired Key\. Key Expiry time {TIME} and current time {TIME}",
        r"sk-\.\.\.\S{4}",
    ),
    Row(
        key_model,
        401,
        "key_model_access_denied",
        r"key not allowed to access model\. This key can only access models=\['other'\]\. Tried to access m",
        "model",
    ),
    Row(
        team_model,
        401,
        "team_model_access_denied",
        r"team not allowed to access model\. This team can only access models=\['other'\]\. Tried to access m",
        "model",
    ),
    Row(
        user_model,
        401,
        "user_model_access_denied",
        r"user not allowed to access model\. This user can only access models=\['other'\]\. Tried to access m",
        "model",
    ),
    Row(
        user_no_default,
        401,
        "key_model_access_denied",
        r"User not allowed to access model\. No default model access, only team models allowed\. Tried to access m",
        "model",
    ),
    Row(
        group_model,
        401,
        "key_model_access_denied",
        r"key not allowed to access model\. This key can only access models=\['beta'\]\. Tried to access m",
        "model",
    ),
    Row(key_budget, 400, "budget_exceeded", BUDGET.format(""), None),
    Row(key_budget_zero, 400, "budget_exceeded", r"Budget has been exceeded! Current cost: 0(\.0)?, Max budget: 0(\.0)?", None),
    Row(team_budget, 400, "budget_exceeded", BUDGET.format("Team=ID "), None),
    Row(user_budget, 400, "budget_exceeded", r"ExceededBudget: User=ID over budget\. Spend=0\.3, Budget=0\.25", None),
    Row(member_budget, 400, "budget_exceeded", BUDGET.format(""), None),
    Row(
        end_user_budget,
        400,
        "budget_exceeded",
        rf"ExceededBudget: End User=ID over budget\. Spend=0\.3, Budget=0\.25|{BUDGET.format('')}",
        None,
    ),
    Row(
        model_budget,
        400,
        "budget_exceeded",
        rf"LiteLLM Virtual Key: {HASH}, key_alias: None, exceeded budget for model=m",
        None,
    ),
    Row(
        organization_model,
        401,
        "org_model_access_denied",
        r"org not allowed to access model\. This org can only access models=\['other'\]\. Tried to access m",
        "model",
    ),
    Row(organization_budget, 400, "budget_exceeded", BUDGET.format("Organization=ID "), None),
    Row(
        end_user_blocked,
        401,
        "auth_error",
        r"Authentication Error, End User=ID is blocked\. Update via `/customer/unblock` if you're admin\.",
    ),
    Row(
        client_fallback,
        401,
        "key_model_access_denied",
        r"key not allowed to access model\. This key can only access models=\['other'\]\. Tried to access m",
        "model",
    ),
    Row(
        enforced_params,
        400,
        "invalid_request_error",
        r"BadRequest please pass param=metadata\.trace in request body\. This is a required param",
        r"metadata\.trace",
    ),
    Row(
        foreign_base,
        401,
        "auth_error",
        r"Authentication Error, Rejected Request: api_base is not allowed in request body\. Enable with "
        r"`general_settings::allow_client_side_credentials` on proxy config\.yaml\..*",
    ),
    Row(team_blocked, 401, "auth_error", r"Authentication Error, Team=ID is blocked\. Update via `/team/unblock` if your admin\."),
    Row(
        key_routes,
        401,
        "auth_error",
        r"(Authentication Error, )?Virtual key is not allowed to call this route\. Only allowed to call routes: "
        r"\['/v1/embeddings'\]\. Tried to call route: /v1/chat/completions",
    ),
    Row(key_rpm, 429, "None", LIMIT.format("api_key", HASH, "requests", 1), "None", LIMITED),
    Row(key_tpm, 429, "None", LIMIT.format("api_key", HASH, "tokens", 2), "None", LIMITED),
    Row(key_rpm_zero, 429, "None", LIMIT.format("api_key", HASH, "requests", 0), "None", LIMITED),
    Row(user_rpm, 429, "None", LIMIT.format("user", "ID", "requests", 1), "None", LIMITED),
    Row(team_rpm, 429, "None", LIMIT.format("team", "ID", "requests", 1), "None", LIMITED),
    Row(model_rpm, 429, "None", LIMIT.format("model_per_key", f"{HASH}:m", "requests", 1), "None", LIMITED),
    Row(team_model_rpm, 429, "None", LIMIT.format("model_per_team", "ID:m", "requests", 1), "None", LIMITED),
    Row(end_user_rpm, 429, "None", LIMIT.format("end_user", "ID", "requests", 1), "None", LIMITED),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case.__name__)
def test_a_refusal(gateway: Gateway, row: Row) -> None:
    case = row.case(gateway)
    key, body = case["key"], case.get("body", {})
    error = refusal(gateway, key, case.get("model", "m"), **body)
    shape = error.response.json()["error"]
    assert error.status_code == row.status, shape
    assert set(shape) == {"message", "type", "param", "code"}
    assert (shape["type"], shape["code"]) == (row.type, str(row.status)), shape
    pattern = row.message.replace("ID", re.escape(case.get("id", "ID")))
    assert re.fullmatch(pattern, shape["message"]), shape["message"]
    assert key not in error.response.text
    match row.param:
        case None:
            assert shape["param"] is None
        case text:
            assert re.fullmatch(text, shape["param"] or ""), shape
    for name in row.headers:
        assert error.response.headers.get(name), f"{name} is missing: {dict(error.response.headers)}"
    if row.status == 429:
        assert 1 <= int(error.response.headers["retry-after"]) <= 60


def test_no_key_and_a_malformed_one(gateway: Gateway) -> None:
    rows = [
        ({}, "Authentication Error, No api key passed in."),
        ({"authorization": "Token x"}, "Authentication Error, Malformed API Key passed in. Ensure Key has `Bearer ` prefix."),
        ({"authorization": ""}, "Authentication Error, Malformed API Key passed in. Ensure Key has `Bearer ` prefix."),
    ]
    for headers, message in rows:
        answer = gateway.chat("m", headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["message"], error["param"], error["code"]) == (
            401,
            "auth_error",
            message,
            "None",
            "401",
        )


def test_as_many_at_a_time_as_the_key_may(gateway: Gateway, mock: OpenAiMock) -> None:
    key = gateway.new_key(max_parallel_requests=1)
    gate = Gate()
    mock.script(gated(gate))
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask, gateway, key)
        gate.wait_reached()
        error = refusal(gateway, key)
        assert error.status_code == 429 and "Limit type: max_parallel_requests" in error.message
        gate.open()
        held.result()
    ask(gateway, key)


def test_a_key_without_limits_is_not_refused(gateway: Gateway) -> None:
    key = gateway.new_key()
    for _ in range(5):
        ask(gateway, key)


def test_only_admins_manage(gateway: Gateway) -> None:
    key = gateway.new_key()
    answer = gateway.manage_raw("/budget/new", {"max_budget": 1}, key=key)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (401, "auth_error")
    assert "Only proxy admin can be used" in error["message"]


@pytest.fixture
def strict(start: Callable[..., Gateway], mock: OpenAiMock) -> Gateway:
    prices = {"input_cost_per_token": 0.1, "output_cost_per_token": 0.1}
    general = {"master_key": MASTER_KEY, "enforce_user_param": True}
    settings = {"max_budget": 0.25, "budget_duration": "30d"}
    return start({"model_list": [deployment("m", mock.params() | prices)], "general_settings": general, "litellm_settings": settings})


def test_the_user_is_enforced_and_the_whole_gateway_has_a_budget(strict: Gateway) -> None:
    key = strict.new_key()
    error = refusal(strict, key)
    assert (error.status_code, error.response.json()["error"]["message"]) == (
        401,
        "Authentication Error, 'user' param not passed in. 'enforce_user_param'=True",
    )
    ask(strict, key, user="somebody")
    error = refusal(strict, key, user="somebody")
    assert (error.status_code, error.response.json()["error"]["type"]) == (400, "budget_exceeded")
    assert re.fullmatch(BUDGET.format(""), error.response.json()["error"]["message"])


def test_what_the_configuration_closes(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    models = [deployment("m", mock.params())]
    general = {"master_key": MASTER_KEY, "allowed_routes": ["/chat/completions", "/key/generate"], "max_request_size_mb": 1 / 1024}
    gateway = start({"model_list": models, "general_settings": general}, workers=1)
    key = gateway.new_key()
    ask(gateway, key)
    answer = gateway.client.post("/v1/embeddings", json={"model": "m", "input": "hi"}, headers=bearer(key))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["message"]) == (
        403,
        "auth_error",
        "Access forbidden: Route /v1/embeddings not allowed",
    )
    answer = gateway.chat("m", "x" * 2_000, headers=bearer(key))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "bad_request_error", "content-length")
    assert re.fullmatch(r"Request size is too large\. Request size is \S+ MB\. Max size is 0\.0009765625 MB", error["message"])
    general = {"master_key": MASTER_KEY, "allowed_ips": ["10.9.9.9"]}
    elsewhere = start({"model_list": models, "general_settings": general}, workers=1)
    answer = elsewhere.chat("m", headers=bearer(MASTER_KEY))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (403, "auth_error") and "127.0.0.1 not allowed" in error["message"]
