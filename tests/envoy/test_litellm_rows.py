"""Calls of LiteLLM's own HTTP tests that once came out differently, each as such a test makes it and with the answer that it wants:
a row names the behaviour, and says who calls what, with which body, and what comes. `$name` stands for something of `world`."""

from __future__ import annotations

import json
import string
from typing import Any, Callable, Iterator

import httpx
import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import AnthropicMock, OpenAiMock, status

HI = [{"role": "user", "content": "hi"}]
COST = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.001}
USED = 0.018
"""What a call of the mocks costs: 11 and 7 tokens. An embedding has only the 11."""


class World:
    """A gateway with everybody whom the rows name."""

    def __init__(self, gateway: Gateway, openai: OpenAiMock, anthropic: AnthropicMock) -> None:
        self.gateway, self.openai, self.anthropic = gateway, openai, anthropic
        self.names: dict[str, str] = {"master": MASTER_KEY, "base": openai.base, "provider_key": openai.key}
        self._teams()
        self._keys()
        self._models()
        self._customers()

    def _teams(self) -> None:
        manage = self.gateway.manage
        for name in ("team", "other_team", "joined_team"):
            self.names[name] = manage("/team/new", {"team_alias": name})["team_id"]
        team = self.names["team"]
        for user, role in (("head", "admin"), ("member", "user")):
            manage("/user/new", {"user_id": user, "auto_create_key": False})
            manage("/team/member_add", {"team_id": team, "member": {"user_id": user, "role": role}})
        manage("/team/member_update", {"team_id": team, "user_id": "member", "max_budget_in_team": 0.7})
        manage("/user/new", {"user_id": "outsider", "auto_create_key": False})

    def _keys(self) -> None:
        keys = {
            "ghost": {"user_id": "ghost-1", "models": ["gpt-4"], "max_budget": 0.01},
            "head": {"user_id": "head"},
            "member": {"user_id": "member"},
            "outsider": {"user_id": "outsider"},
            "of_the_team": {"team_id": self.names["team"]},
            "only_gpt_4": {"models": ["gpt-4"]},
            "only_claude": {"models": ["anthropic/*"]},
            "penniless": {"max_budget": 0},
            "aliased": {"models": ["gpt-4"], "aliases": {"mistral-7b": "gpt-4"}},
        }
        for name, fields in keys.items():
            self.names[f"key_{name}"] = self.gateway.new_key(**fields)

    def _models(self) -> None:
        for name in ("changed_by_head", "deleted_by_head", "kept"):
            made = self.gateway.manage("/model/new", self.model(name))
            self.names[f"model_{name}"] = made["model_id"]

    def model(self, name: str) -> dict:
        params = {"model": "openai/gpt-4o", "api_key": self.openai.key, "api_base": self.openai.base}
        return {"model_name": name, "litellm_params": params, "model_info": {"team_id": self.names["team"]}}

    def _customers(self) -> None:
        manage = self.gateway.manage
        manage("/end_user/new", {"user_id": "of-eu", "allowed_model_region": "eu"})
        manage("/customer/new", {"user_id": "blocked-customer", "blocked": True})

    def fill(self, value: Any) -> Any:
        """The same with names in the place of `$name`."""
        return json.loads(string.Template(json.dumps(value)).safe_substitute(self.names))

    def call(self, method: str, path: str, key: str | None = "$master", body: Any = None, headers: dict | None = None) -> httpx.Response:
        sent = {} if key is None else bearer(self.fill(key))
        return self.gateway.client.request(method, self.fill(path), json=self.fill(body), headers=sent | (headers or {}))


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    env = {} if request.param == "sqlite" else {"DATABASE_URL": request.getfixturevalue("new_postgres")()}
    openai, anthropic = OpenAiMock(), AnthropicMock()
    models = [
        deployment("fake-openai-endpoint", openai.params("fake") | COST, id="fake-1"),
        deployment("fake-openai-endpoint-4", openai.params("fake") | COST | {"num_retries": 50}, id="fake-4"),
        deployment("fake-slow", openai.params("fake") | {"timeout": 1}, id="fake-slow"),
        deployment("gpt-4", openai.params("gpt-4"), id="gpt-4-1"),
        deployment("claude", anthropic.params() | COST, id="claude-1"),
        deployment("anthropic/*", anthropic.params() | {"model": "anthropic/*"}),
    ]
    general = {"master_key": MASTER_KEY, "store_model_in_db": True}
    config = {"model_list": models, "general_settings": general, "router_settings": {"disable_cooldowns": True}}
    gateway = Gateway(tmp_path_factory.mktemp("rows"), config, env=env)
    try:
        yield World(gateway, openai, anthropic)
    finally:
        gateway.stop()
        openai.stop()
        anthropic.stop()


def look_up(answer: Any, path: str) -> Any:
    """A value by its dotted path. `#` is the length of a list."""
    for part in path.split("."):
        if part == "#":
            return len(answer)
        answer = answer[int(part)] if isinstance(answer, list) else answer.get(part)
    return answer


ADMINS_ONLY = "Authentication Error, Only proxy admin can be used to generate, delete, update info for new keys/users/teams. Route={}. Your role=unknown. Your user_id=unknown"
TEAMS_MODELS = "Only proxy admins and the admins of the team $team may make, change or delete its models."
MODEL = {"model_name": "x", "litellm_params": {"model": "openai/gpt-4o", "api_key": "sk-of-the-team"}, "model_info": {"team_id": "$team"}}
CHAT = {"model": "fake-openai-endpoint", "messages": HI}


def refused(code: int, message: str) -> dict:
    return {"error.code": str(code), "error.message": message}


# Name, method, path, key, body, status, members of the answer.
ROWS: list[tuple[str, str, str, str, Any, int, dict]] = [
    # -- a key whose user has no row has no role
    *(
        (f"a key of nobody may not {what}", "POST", path, "$key_ghost", body, 401, refused(401, ADMINS_ONLY.format(path)))
        for what, path, body in [
            ("make keys", "/key/generate", {"max_budget": 1000}),
            ("lift its own limits", "/key/update", {"key": "$key_ghost", "max_budget": 500, "models": []}),
            ("delete keys", "/key/delete", {"keys": ["$key_ghost"]}),
            ("get a new value", "/key/regenerate", {"key": "$key_ghost"}),
            ("get a new value by path", "/key/$key_ghost/regenerate", {}),
            ("block keys", "/key/block", {"key": "$key_ghost"}),
            ("make users", "/user/new", {}),
            ("make teams", "/team/new", {}),
            ("make models", "/model/new", MODEL),
        ]
    ),
    ("a key of nobody may look at itself", "GET", "/key/info", "$key_ghost", None, 200, {"info.max_budget": 0.01, "info.models": ["gpt-4"]}),
    ("a key of nobody sees its own models", "GET", "/v1/models", "$key_ghost", None, 200, {"data.#": 1, "data.0.id": "gpt-4"}),
    # -- lists of models
    ("a key's aliases are no models of its list", "GET", "/v1/models", "$key_aliased", None, 200, {"data.#": 1, "data.0.id": "gpt-4"}),
    ("an alias is called", "POST", "/chat/completions", "$key_aliased", CHAT | {"model": "mistral-7b"}, 200, {"model": "gpt-4"}),
    (
        "a model of a wildcard is found by its name",
        "GET",
        "/v1/models/anthropic/claude-3-5-haiku-20241022",
        "$key_only_claude",
        None,
        200,
        {"id": "anthropic/claude-3-5-haiku-20241022", "object": "model"},
    ),
    # -- members of teams
    (
        "a new user with a team is its member",
        "POST",
        "/user/new",
        "$master",
        {"user_id": "newcomer", "team_id": "$joined_team"},
        200,
        {"user_id": "newcomer", "team_id": "$joined_team"},
    ),
    ("the member has the team", "GET", "/user/info?user_id=newcomer", "$master", None, 200, {"user_info.teams": ["$joined_team"]}),
    (
        "the team has the member",
        "GET",
        "/team/info?team_id=$joined_team",
        "$master",
        None,
        200,
        {"team_info.members_with_roles.1": {"user_id": "newcomer", "user_email": None, "role": "user"}},
    ),
    (
        "a new user with roles in teams",
        "POST",
        "/user/new",
        "$master",
        {"user_id": "second", "teams": ["$team", {"team_id": "$other_team", "user_role": "admin"}], "auto_create_key": False},
        200,
        {"user_id": "second"},
    ),
    (
        "the role is the one that was asked for",
        "GET",
        "/team/info?team_id=$other_team",
        "$master",
        None,
        200,
        {"team_info.members_with_roles.1": {"user_id": "second", "user_email": None, "role": "admin"}},
    ),
    ("a member sees a key of the team", "GET", "/key/info?key=$key_of_the_team", "$key_member", None, 200, {"info.team_id": "$team"}),
    (
        "somebody else does not see it",
        "GET",
        "/key/info?key=$key_of_the_team",
        "$key_outsider",
        None,
        403,
        refused(403, "You are not allowed to access this key's info. Your role=internal_user"),
    ),
    (
        "a user's teams have their members' budgets",
        "GET",
        "/user/info?user_id=member",
        "$master",
        None,
        200,
        {"teams.0.team_id": "$team", "teams.0.team_memberships.1.litellm_budget_table.max_budget": 0.7},
    ),
    # -- models of teams
    ("a team knows the models that were made for it", "GET", "/team/info?team_id=$team", "$master", None, 200, {"team_info.models.2": "kept"}),
    ("a team's key calls its model", "POST", "/chat/completions", "$key_of_the_team", CHAT | {"model": "kept"}, 200, {"model": "gpt-4o"}),
    (
        "a team's model is none of others",
        "POST",
        "/chat/completions",
        "$key_outsider",
        CHAT | {"model": "kept"},
        400,
        refused(400, "{'error': '/chat/completions: Invalid model name passed in model=kept. Call `/v1/models` to view available models for your key.'}"),
    ),
    ("a team's admin makes models of it", "POST", "/model/new", "$key_head", MODEL, 200, {"model_info.team_public_model_name": "x"}),
    (
        "a team's admin changes its models",
        "POST",
        "/model/update",
        "$key_head",
        {"model_info": {"id": "$model_changed_by_head"}, "litellm_params": {"temperature": 1}},
        200,
        {"model_id": "$model_changed_by_head"},
    ),
    ("a team's admin deletes its models", "POST", "/model/delete", "$key_head", {"id": "$model_deleted_by_head"}, 200, {}),
    ("a member makes no models", "POST", "/model/new", "$key_member", MODEL, 403, refused(403, TEAMS_MODELS)),
    ("a member deletes no models", "POST", "/model/delete", "$key_member", {"id": "$model_kept"}, 403, refused(403, TEAMS_MODELS)),
    ("an outsider makes no models", "POST", "/model/new", "$key_outsider", MODEL, 403, refused(403, TEAMS_MODELS)),
    (
        "an outsider changes no models",
        "PATCH",
        "/model/$model_kept/update",
        "$key_outsider",
        {"litellm_params": {"temperature": 1}},
        403,
        refused(403, TEAMS_MODELS),
    ),
    # -- requests
    (
        "a request without a model names none in its refusal",
        "POST",
        "/v1/chat/completions",
        "$key_only_gpt_4",
        {"messages": HI},
        400,
        refused(
            400, "{'error': '/chat/completions: Invalid model name passed in model=None. Call `/v1/models` to view available models for your key.'}"
        ),
    ),
    ("a request without a model goes to the first where that is allowed", "POST", "/chat/completions", "$master", {"messages": HI}, 200, {"model": "fake"}),
    (
        "a blocked end user is refused with the master key too",
        "POST",
        "/chat/completions",
        "$master",
        CHAT | {"user": "blocked-customer"},
        401,
        {},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row[0].replace(" ", "_") for row in ROWS])
def test_the_answer_is_the_one_litellms_test_wants(world: World, row: tuple) -> None:
    _, method, path, key, body, code, members = row
    answer = world.call(method, path, key, body)
    assert answer.status_code == code, answer.text
    for place, right in world.fill(members).items():
        assert look_up(answer.json(), place) == right, (place, answer.text)


# -- limits of end users

CALLS: dict[str, Callable[[str], tuple[str, dict]]] = {
    "chat": lambda user: ("/chat/completions", CHAT | {"user": user}),
    "streamed chat": lambda user: ("/chat/completions", CHAT | {"user": user, "stream": True}),
    "text": lambda user: ("/completions", {"model": "fake-openai-endpoint", "prompt": "hi", "user": user}),
    "embedding": lambda user: ("/embeddings", {"model": "fake-openai-endpoint", "input": "hi", "user": user}),
    "message": lambda user: ("/v1/messages", {"model": "claude", "max_tokens": 9, "messages": HI, "metadata": {"user_id": user}}),
}


@pytest.mark.parametrize("who", ["master", "key_member"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("limit", "code"),
    [({"tpm_limit": 2}, 429), ({"rpm_limit": 1}, 429), ({"max_budget": USED / 2}, 400)],
    ids=["tokens", "requests", "money"],
)
def test_an_end_users_limits_hold_for_every_key(world: World, limit: dict, code: int, call: str, who: str) -> None:
    user = f"{who} {call} {' '.join(limit)}"
    world.gateway.manage("/budget/new", {"budget_id": f"budget of {user}"} | limit)
    world.gateway.manage("/end_user/new", {"user_id": user, "budget_id": f"budget of {user}"})
    path, body = CALLS[call](user)
    answers = [world.call("POST", path, f"${who}", body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, code, code], answers[-1].text


# -- rows of the log


def log_row(world: World, request_id: str) -> dict:
    """The one row that this id finds, once it is there."""
    rows = wait_until(lambda: world.call("GET", f"/spend/logs?request_id={request_id}").json(), f"a row of {request_id}")
    assert len(rows) == 1, rows
    return rows[0]


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("model", ["fake-openai-endpoint", "claude"])
@pytest.mark.parametrize("path", ["/chat/completions", "/v1/messages"])
def test_a_call_is_found_by_its_answers_id_and_by_its_own(world: World, path: str, model: str, stream: bool) -> None:
    answer = world.call("POST", path, "$key_member", {"model": model, "max_tokens": 9, "messages": HI, "stream": stream})
    assert answer.status_code == 200, answer.text
    row = log_row(world, answer.headers["x-litellm-call-id"])
    own = row["request_id"]
    assert f'"id":"{own}"' in answer.text.replace('"id": ', '"id":')
    # The mocks give every answer the same.
    assert row in world.call("GET", f"/spend/logs?request_id={own}").json()
    assert row["spend"] == pytest.approx(USED) and row["status"] == "success" and row["model_group"] == model


def test_an_answer_without_an_id_is_found_by_the_calls(world: World) -> None:
    answer = world.call("POST", "/embeddings", "$master", {"model": "fake-openai-endpoint", "input": "hi"})
    call_id = answer.headers["x-litellm-call-id"]
    assert log_row(world, call_id)["request_id"] == call_id


# Name, key, body, status of the answer, class of the error.
REFUSED: list[tuple[str, str, dict, int, str]] = [
    ("unknown model", "$key_member", CHAT | {"model": "no-such-model"}, 400, "ProxyException"),
    ("model not allowed", "$key_only_gpt_4", CHAT, 401, "ProxyException"),
    ("over budget", "$key_penniless", CHAT, 400, "BudgetExceededError"),
    ("over budget, streamed", "$key_penniless", CHAT | {"stream": True}, 400, "BudgetExceededError"),
    ("refused by the provider", "$key_only_gpt_4", CHAT | {"model": "gpt-4"}, 400, "BadRequestError"),
    ("refused by the provider, streamed", "$key_only_gpt_4", CHAT | {"model": "gpt-4", "stream": True}, 400, "BadRequestError"),
]


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("row", REFUSED, ids=[row[0].replace(" ", "_") for row in REFUSED])
def test_what_failed_has_a_row_with_the_words_that_the_client_got(world: World, row: tuple, path: str) -> None:
    _, key, body, code, kind = row
    if body["model"] == "gpt-4":
        world.openai.script(status(400))
    answer = world.call("POST", path, key, body | {"max_tokens": 9})
    assert answer.status_code == code, answer.text
    call_id = answer.headers["x-litellm-call-id"]
    logged = log_row(world, call_id)
    assert logged["request_id"] == call_id
    assert (logged["spend"], logged["total_tokens"], logged["cache_hit"], logged["response"]) == (0, 0, "False", {})
    assert logged["model_group"] == body["model"] and logged["status"] == logged["metadata"]["status"] == "failure"
    information = logged["metadata"]["error_information"]
    assert information["error_message"] == answer.json()["error"]["message"]
    assert (information["error_code"], information["error_class"], information["traceback"]) == (str(code), kind, "")


# -- lists of models


@pytest.mark.parametrize("who", ["master", "key_only_claude"])
@pytest.mark.parametrize(("path", "member"), [("/v1/models", "id"), ("/models", "id"), ("/model_group/info", "model_group")])
def test_a_wildcard_is_listed_itself_and_with_every_model_it_stands_for(world: World, path: str, member: str, who: str) -> None:
    listed = [model[member] for model in world.call("GET", path, f"${who}").json()["data"]]
    assert "anthropic/*" in listed and "anthropic/claude-3-5-haiku-20241022" in listed
    assert len(listed) == len(set(listed)) and ("gpt-4" in listed) == (who == "master")
    assert sum(name.startswith("anthropic/claude") for name in listed) > 10


# -- headers


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("path", ["/chat/completions", "/v1/messages"])
def test_a_mock_rate_limit_fails_once_and_is_retried(world: World, path: str, stream: bool) -> None:
    body = CHAT | {"model": "fake-openai-endpoint-4", "mock_testing_rate_limit_error": True, "max_tokens": 9, "stream": stream}
    answer = world.call("POST", path, "$master", body)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["x-litellm-attempted-retries"], answer.headers["x-litellm-max-retries"]) == ("1", "50")


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_the_region_of_an_end_user_is_told(world: World, stream: bool) -> None:
    answer = world.call("POST", "/chat/completions", "$master", CHAT | {"user": "of-eu", "stream": stream})
    assert answer.status_code == 200 and answer.headers["x-litellm-model-region"] == "eu"
    assert "x-litellm-model-region" not in world.call("POST", "/chat/completions", "$master", CHAT | {"user": "of-nowhere"}).headers


@pytest.mark.parametrize(("given", "told"), [({"timeout": 1}, "1.0"), ({"timeout": 0.25}, "0.25"), ({}, "1.0")], ids=str)
def test_a_time_out_is_told_as_a_number_with_a_point(world: World, given: dict, told: str) -> None:
    world.openai.delay = (3, 3)
    try:
        answer = world.call("POST", "/chat/completions", "$master", CHAT | {"model": "fake-slow", "num_retries": 0} | given)
    finally:
        world.openai.delay = None
    assert (answer.status_code, answer.headers["x-litellm-timeout"]) == (408, told), answer.text


@pytest.mark.parametrize(("key", "code"), [("$key_penniless", 400), ("$master", 400)])
def test_errors_tell_what_the_key_has_spent_and_that_they_cost_nothing(world: World, key: str, code: int) -> None:
    answer = world.call("POST", "/chat/completions", key, CHAT | {"model": "no-such-model"})
    assert answer.status_code == code and answer.headers["x-litellm-response-cost"] == "0"
    assert float(answer.headers["x-litellm-key-spend"]) >= 0
