"""The health of deployments: called through the gateway when somebody asks, and all the time; routing goes by what is found."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
from typing import Any, Callable, Iterator

import httpx

from gateway import BINARY, MASTER_KEY, Gateway, bearer, command, deployment, environment, free_port, wait_until
from mock_provider import WAIT, AnthropicMock, Authority, OpenAiMock, hang, status

PRICE = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}
MASTER = {"general_settings": {"master_key": MASTER_KEY}}


def ids(answer: dict, which: str) -> list[str]:
    entries = answer[f"{which}_endpoints"]
    assert len(entries) == answer[f"{which}_count"]
    return [entry["model_id"] for entry in entries]


def entry(answer: dict, which: str, model_id: str) -> dict:
    return next(entry for entry in answer[f"{which}_endpoints"] if entry["model_id"] == model_id)


def test_every_deployment_is_called_once_and_told_of(start: Callable[..., Gateway], mocks, database) -> None:
    openai, anthropic = mocks(OpenAiMock), mocks(AnthropicMock)
    broken, refusing = mocks(OpenAiMock, name="broken"), mocks(OpenAiMock, name="refusing")
    broken.default = status(500, {"error": {"message": f"broken, {broken.key} is your key"}})
    refusing.default = refusing.error("auth")
    gone = mocks(OpenAiMock, name="gone")
    gone.stop()
    models = [
        deployment("chat", openai.params() | PRICE, id="chat-1"),
        deployment("claude", anthropic.params(), id="claude-1"),
        deployment("embed", openai.params("text-embedding-3-small"), id="embed-1"),
        deployment("text", openai.params() | {"model": "text-completion-openai/gpt-3.5-turbo-instruct"}, id="text-1"),
        deployment("wild/*", openai.params() | {"model": "openai/*"}, id="wild-1", health_check_model="openai/gpt-4o-mini"),
        deployment("wilder/*", openai.params() | {"model": "openai/*"}, id="wild-2"),
        deployment("pictures", openai.params(), id="pictures-1", mode="image_generation"),
        deployment("broken", broken.params(), id="broken-1"),
        deployment("refusing", refusing.params(), id="refusing-1"),
        deployment("gone", gone.params(), id="gone-1"),
    ]
    settings = {"num_retries": 3, "fallbacks": [{"broken": ["chat"]}, {"refusing": ["chat"]}]}
    gateway = start({"model_list": models, "router_settings": settings} | MASTER, env=database)

    answered = gateway.client.get("/health", headers=bearer(MASTER_KEY))
    assert answered.status_code == 200, answered.text
    answer = answered.json()
    assert ids(answer, "healthy") == ["chat-1", "claude-1", "embed-1", "text-1", "wild-1"], answer
    assert ids(answer, "unhealthy") == ["broken-1", "refusing-1", "gone-1"]
    assert ids(answer, "unchecked") == ["wild-2", "pictures-1"]
    shown = {"model": models[0]["litellm_params"]["model"], "api_base": openai.base, "model_id": "chat-1"}
    assert entry(answer, "healthy", "chat-1").items() >= shown.items()
    assert "health_check_model" in entry(answer, "unchecked", "wild-2")["error"]
    assert "image_generation" in entry(answer, "unchecked", "pictures-1")["error"]
    for model_id, code, says in [("broken-1", 500, "broken"), ("refusing-1", 401, "AuthenticationError"), ("gone-1", 500, "litellm.")]:
        failed = entry(answer, "unhealthy", model_id)
        assert failed["exception_status"] == code and says in failed["error"], failed
    for key in (openai.key, anthropic.key, broken.key, MASTER_KEY):
        assert key not in answered.text

    # One call each: nothing was tried again, nowhere else.
    assert len(broken.requests) == len(refusing.requests) == 1
    asked = [(request.target, request.json["model"]) for request in openai.requests]
    assert sorted(asked) == sorted(
        [
            ("/v1/chat/completions", openai.params()["model"].removeprefix("openai/")),
            ("/v1/embeddings", "text-embedding-3-small"),
            ("/v1/completions", "gpt-3.5-turbo-instruct"),
            ("/v1/chat/completions", "gpt-4o-mini"),
        ]
    )

    rows = wait_until(lambda: len(found := gateway.manage("/spend/logs")) >= 8 and found, "the checks in the spend log")
    assert {tuple(row["request_tags"]) for row in rows} == {("health_check",)}
    by_id = {row["model_id"]: row for row in rows}
    assert by_id["chat-1"]["spend"] > 0 and by_id["broken-1"]["status"] == "failure"

    # Who may call less is told of less, and nothing else is called.
    key = gateway.new_key(models=["claude"])
    answer = gateway.manage("/health", key=key)
    assert (ids(answer, "healthy"), ids(answer, "unhealthy")) == (["claude-1"], [])
    assert "api_base" not in answer["healthy_endpoints"][0]
    assert ids(gateway.manage("/health", model="embed"), "healthy") == ["embed-1"]
    assert ids(gateway.manage("/health", model_id="chat-1"), "healthy") == ["chat-1"]
    assert gateway.manage_raw("/health", model="nobody").status_code == 400
    assert len(broken.requests) == 1
    assert gateway.client.get("/health").status_code == 401


def test_a_deployment_that_rests_is_called_all_the_same(start: Callable[..., Gateway], mocks) -> None:
    mock = mocks(OpenAiMock)
    mock.default = mock.error("auth")
    models = [deployment("alone", mock.params(), id="alone-1")]
    gateway = start({"model_list": models, "router_settings": {"cooldown_time": 300, "num_retries": 0}} | MASTER)
    codes = [gateway.chat("alone", headers=bearer(MASTER_KEY)).status_code for _ in range(2)]
    assert codes == [401, 429], "it rests"
    assert ids(gateway.manage("/health"), "unhealthy") == ["alone-1"]
    assert len(mock.requests) == 2
    mock.clear()
    assert ids(gateway.manage("/health"), "healthy") == ["alone-1"]
    assert gateway.chat("alone", headers=bearer(MASTER_KEY)).status_code == 429, "a check does not end the rest"


def test_a_time_out_is_the_deployments_own(start: Callable[..., Gateway], mocks) -> None:
    mock = mocks(OpenAiMock)
    mock.default = hang()
    models = [deployment("slow", mock.params(), id="slow-1", health_check_timeout=0.3)]
    gateway = start({"model_list": models, "general_settings": {"health_check_details": False}})
    answer = gateway.client.get("/health").json()
    assert answer == {
        "healthy_endpoints": [],
        "unhealthy_endpoints": [{"model": models[0]["litellm_params"]["model"]}],
        "healthy_count": 0,
        "unhealthy_count": 1,
    }


QUESTION = "a question of a client"


def served_by(gateway: Gateway, count: int = 24) -> set[str]:
    """Who gets requests: each on a connection of its own, so that every worker has some."""
    body = {"model": "pair", "messages": [{"role": "user", "content": QUESTION}]}
    found = set()
    for _ in range(count):
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=WAIT, trust_env=False)
        found.add(answer.headers["x-litellm-model-id"])
    return found


def test_who_fails_in_the_background_gets_no_requests_until_it_passes(start: Callable[..., Gateway], mocks) -> None:
    a, b = mocks(OpenAiMock, name="a"), mocks(OpenAiMock, name="b")
    models = [
        deployment("pair", a.params(), id="a", health_check_timeout=1),
        deployment("pair", b.params(), id="b", health_check_timeout=1),
        deployment("other", a.params(), id="quiet", disable_background_health_check=True),
    ]
    general = {"background_health_checks": True, "health_check_interval": 0.2}
    routing = {"num_retries": 0, "disable_cooldowns": True}
    gateway = start({"model_list": models, "general_settings": general, "router_settings": routing})

    def told() -> tuple[list[str], list[str]]:
        answer = gateway.client.get("/health").json()
        return ids(answer, "healthy"), ids(answer, "unhealthy")

    wait_until(lambda: told() == (["a", "b"], []), "both found healthy")
    assert served_by(gateway) == {"a", "b"}

    a.default = a.error("server")
    wait_until(lambda: served_by(gateway) == {"b"}, "only b to be called")
    assert told() == (["b"], ["a"])
    assert a.in_flight == 0 and "fails its health check" in gateway.everything_printed()
    # By its id it is called all the same.
    assert gateway.chat("a").status_code == 500

    b.default = b.error("unavailable")
    wait_until(lambda: told() == ([], ["a", "b"]), "both found failing")
    wait_until(lambda: served_by(gateway) == {"a", "b"}, "both to be called when both fail")

    b.clear()
    wait_until(lambda: served_by(gateway) == {"b"}, "only b to be called again")
    a.clear()
    wait_until(lambda: served_by(gateway) == {"a", "b"}, "a to be back")
    wait_until(lambda: "passes its health check again" in gateway.everything_printed(), "the log to say so")

    # What a ledger said that is no longer there is not believed for ever.
    a.default = a.error("server")
    wait_until(lambda: served_by(gateway) == {"b"}, "only b to be called")
    ledger = gateway.ledger_pid()
    os.kill(ledger, signal.SIGSTOP)
    try:
        wait_until(lambda: served_by(gateway) == {"a", "b"}, "a to be called again")
    finally:
        os.kill(ledger, signal.SIGCONT)
    wait_until(lambda: served_by(gateway) == {"b"}, "only b to be called once the ledger is back")


def test_the_flag_asks_a_gateway_with_tls_too(start: Callable[..., Gateway], mocks, tmp_path: pathlib.Path) -> None:
    mock = mocks(OpenAiMock)
    # A certificate for another name than 127.0.0.1, of an authority that nobody knows.
    authority = Authority(tmp_path, "elsewhere")
    tls = ("--ssl_certfile_path", str(authority.file), "--ssl_keyfile_path", str(authority.file.with_suffix(".key")))
    gateway = start({"model_list": [deployment("m", mock.params(), id="m-1")]} | MASTER, arguments=tls)
    asked = ["--health", "--config", str(gateway.config), "--host", "127.0.0.1", "--port", str(gateway.port), *tls]
    done = command(*asked)
    assert done.returncode == 0, done.stderr
    assert '"healthy_count": 1' in done.stdout and "m-1" in done.stdout
    assert [request.target for request in mock.requests] == ["/v1/chat/completions"]


@contextlib.contextmanager
def lone_ledger(gateway_config: pathlib.Path, port: int, env: dict[str, str], *more: str) -> Iterator[None]:
    """A ledger started by hand."""
    words = [str(BINARY), "ledger", "--config", str(gateway_config), "--listen", f"127.0.0.1:{port}", *more]
    process = subprocess.Popen(words, env=environment(env), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert "tollgate: ledger listening" in process.stdout.readline()
        yield
    finally:
        process.terminate()
        assert process.wait(WAIT) == 0
        process.stdout.close()


def test_a_ledger_elsewhere_is_told_where_the_gateway_is(start: Callable[..., Gateway], mocks, tmp_path: pathlib.Path) -> None:
    mock = mocks(OpenAiMock)
    env, port, there = {"TOLLGATE_LEDGER_KEY": "a-secret-of-16-characters"}, free_port(), free_port()
    config: dict[str, Any] = {"model_list": [deployment("m", mock.params(), id="m-1")]}
    config |= MASTER | {"tollgate_settings": {"ledger_url": f"http://127.0.0.1:{port}"}}
    gateway = start(config, env=env, port=there)
    folder = ("--database_dir", str(tmp_path))
    with lone_ledger(gateway.config, port, env, *folder):
        answer = gateway.manage_raw("/health")
        assert answer.status_code == 503 and "--gateway URL" in answer.text
    with lone_ledger(gateway.config, port, env, *folder, "--gateway", gateway.url):
        assert ids(gateway.manage("/health"), "healthy") == ["m-1"]
