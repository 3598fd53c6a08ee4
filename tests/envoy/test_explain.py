"""`tollgate explain` says what the running gateway would do now, and what a configuration would do without one."""

from __future__ import annotations

import json
import subprocess
from typing import Callable

import pytest
import yaml

from gateway import MASTER_KEY, Gateway, bearer, command, deployment, free_port
from mock_provider import OpenAiMock, status


@pytest.fixture
def gateway(start: Callable[..., Gateway], mocks) -> Gateway:
    bad, good = mocks(OpenAiMock, name="bad"), mocks(OpenAiMock, name="good")
    bad.default = status(401)
    return start({
        "model_list": [
            deployment("m", bad.params() | {"weight": 1}, id="bad"),
            deployment("m", good.params() | {"weight": 0}, id="good"),
            deployment("spare", good.params(), id="spare"),
        ],
        "router_settings": {"num_retries": 1, "cooldown_time": 300, "fallbacks": [{"m": ["spare"]}]},
        "general_settings": {"master_key": MASTER_KEY},
    })


def explain(gateway: Gateway, *flags: str) -> subprocess.CompletedProcess:
    return command("explain", "--config", str(gateway.config), *flags)


def test_a_running_gateway_tells_what_it_would_do_now(gateway: Gateway) -> None:
    port = ["--port", str(gateway.port)]
    before = json.loads(explain(gateway, "--model", "m", "--json", *port).stdout)
    assert [one["id"] for one in before["groups"][0]["deployments"]] == ["bad", "good"]
    assert before["attempts"] == 4
    assert gateway.chat("m", headers=bearer(MASTER_KEY)).status_code == 200
    after = explain(gateway, "--model", "m", *port)
    assert after.returncode == 0, after.stderr
    assert f"as the gateway at http://127.0.0.1:{gateway.port} would route it now" in after.stdout
    lines = [" ".join(line.split()) for line in after.stdout.splitlines()]
    assert "m: up to 2 attempts" in lines and "fallback spare: up to 2 attempts" in lines
    assert any(line.startswith("1 openai/") and " good" in line for line in lines), after.stdout
    resting = [line for line in lines if "rests after failures" in line]
    assert len(resting) == 1 and resting[0].startswith("- openai/") and " bad " in resting[0], after.stdout
    unknown = explain(gateway, "--model", "nobody", *port)
    assert "refused with 400:" in unknown.stdout and unknown.returncode == 1


def test_without_a_gateway_it_is_a_cold_start(gateway: Gateway) -> None:
    port = free_port()
    cold = explain(gateway, "--model", "m", "--port", str(port))
    assert cold.returncode == 0 and f"from a cold start: no gateway answers at http://127.0.0.1:{port}" in cold.stdout
    assert "is tried first by 100.0 % of all calls" in cold.stdout and "rests" not in cold.stdout
    # A gateway that was named has to answer.
    named = explain(gateway, "--model", "m", "--url", f"http://127.0.0.1:{port}")
    assert named.returncode == 1 and "cannot be reached" in named.stderr


def test_only_an_administrator_is_told(gateway: Gateway) -> None:
    path = "/tollgate/explain?model=m"
    assert gateway.client.get(path).status_code == 401
    key = gateway.new_key(models=["m"])
    refused = gateway.client.get(path, headers=bearer(key))
    assert refused.status_code in (401, 403) and "admin" in refused.text, refused.text
    told = gateway.client.get(path, headers=bearer(MASTER_KEY))
    assert told.status_code == 200 and told.json()["strategy"] == "simple-shuffle"
    assert mock_key_is_not_in(told.text, gateway)
    wrong = gateway.client.get("/tollgate/explain?tokens=many", headers=bearer(MASTER_KEY))
    assert wrong.status_code == 400 and "`model`" in wrong.json()["error"]["message"]


def mock_key_is_not_in(text: str, gateway: Gateway) -> bool:
    keys = [model["litellm_params"]["api_key"] for model in yaml.safe_load(gateway.config.read_text())["model_list"]]
    return len(keys) == 3 and not any(key in text for key in keys)
