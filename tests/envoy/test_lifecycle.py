"""The gateway as its operator sees it: start, refusal to start, reload under load, a killed Envoy, a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading

import httpx
import pytest
import yaml

from gateway import (
    BINARY,
    LISTENING,
    MASTER_KEY,
    ROOT,
    PlainEnvoy,
    command,
    deployment,
    environment,
    events_of,
    free_port,
    text_of,
    wait_until,
)
from mock_provider import Gate, OpenAiMock, gated, hang, ok

SEED = ROOT / "tests/fixtures/config/proxy_server_config.yaml"


def config_of(providers, *names: str) -> dict:
    return {"model_list": [deployment(name, providers.openai.params(), id=f"{name}-1") for name in names]}


# -- reload


async def stream_text(client: httpx.AsyncClient, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    data = [data for _, data in events_of(answer.content)]
    assert data[-1] == "[DONE]", data[-1]
    return text_of([json.loads(item) for item in data[:-1]])


@pytest.mark.timeout(120)
def test_reload_under_streamed_load_loses_nothing(start, providers):
    """200 streams are in the middle of their answers and others come and go while config.yaml changes."""
    gateway = start(config_of(providers, "old"))
    gate = Gate()
    providers.openai.script(*[gated(gate, after=3)] * 200)
    text = providers.openai.text
    limits = httpx.Limits(max_connections=None)

    async def served(client: httpx.AsyncClient, model: str) -> bool:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        return (await client.post("/v1/chat/completions", json=body)).status_code == 200

    async def scenario() -> tuple[list[str], int]:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=limits, trust_env=False) as client:
            held = [asyncio.create_task(stream_text(client, "old")) for _ in range(200)]
            await asyncio.to_thread(providers.openai.wait_requests, 200)
            gateway.write_config(config_of(providers, "old", "new"))
            short = 0
            for _ in range(2000):
                assert set(await asyncio.gather(*(stream_text(client, "old") for _ in range(5)))) == {text}
                short += 5
                if await served(client, "new"):
                    break
            else:
                raise AssertionError(f"the new model is not served\n{gateway.log()}")
            assert set(await asyncio.gather(*(stream_text(client, model) for model in ("old", "new") * 10))) == {text}
            gate.open()
            return await asyncio.gather(*held), short

    held, _ = asyncio.run(scenario())
    assert len(held) == 200 and set(held) == {text}


def test_a_broken_edit_changes_nothing(start, providers):
    gateway = start(config_of(providers, "old"))
    said = gateway.everything_printed().count("config.yaml")
    gateway.write_config("model_list: [broken")
    wait_until(lambda: gateway.everything_printed().count("config.yaml") > said, "a message about the edit")
    assert gateway.chat("old").status_code == 200
    gateway.write_config(config_of(providers, "old", "new"))
    wait_until(lambda: gateway.chat("new").status_code == 200, "the repaired edit")


def test_a_removed_model_is_gone(start, providers):
    gateway = start(config_of(providers, "old", "other"))
    assert gateway.chat("old").status_code == 200
    gateway.write_config(config_of(providers, "other"))
    wait_until(lambda: gateway.chat("old").status_code == 400, "the model to be gone")
    assert gateway.chat("other").status_code == 200


# -- death and end


def test_a_killed_envoy_comes_back(start, providers):
    gateway = start(config_of(providers, "a"))
    assert gateway.chat("a").status_code == 200
    old = gateway.envoy_pid()
    os.kill(old, signal.SIGKILL)

    wait_until(lambda: gateway.process.poll() is None and gateway.serves("a") and gateway.envoy_pid() != old, "a new Envoy")


def test_sigterm_lets_requests_end(start, providers):
    gateway = start(config_of(providers, "a"))
    gate = Gate()
    providers.openai.script(gated(gate, after=3))
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(gateway.chat("a", stream=True)))
    asking.start()
    gate.wait_reached()
    gateway.process.send_signal(signal.SIGTERM)
    gate.open()
    asking.join(30)
    assert answers and events_of(answers[0].content)[-1] == (None, "[DONE]")
    assert gateway.process.wait(30) == 0


def test_the_drain_timeout_cuts_what_does_not_end(start, providers):
    gateway = start(config_of(providers, "a") | {"tollgate_settings": {"drain_timeout": 0.5}})
    providers.openai.script(hang())
    asking = threading.Thread(target=lambda: ask_in_vain(gateway))
    asking.start()
    request = providers.openai.wait_requests(1)[0]
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(30) == 0
    request.wait_gone()
    asking.join(30)


def ask_in_vain(gateway) -> None:
    with contextlib.suppress(httpx.TransportError):
        assert gateway.chat("a").status_code >= 500


def test_a_draining_gateway_still_tries_everything(start, mocks):
    """Also what goes through the listener inside, which draining does not stop."""
    silent, good = mocks(OpenAiMock, name="silent"), mocks(OpenAiMock, name="good")
    gate = Gate()
    silent.script(silent.error("server") | gated(gate), hang())
    models = [
        deployment("a", silent.params() | {"timeout": 60}),
        deployment("b", silent.params() | {"timeout": 0.5}),
        deployment("c", good.params()),
    ]
    gateway = start({"model_list": models, "router_settings": {"num_retries": 0, "fallbacks": [{"a": ["b", "c"]}]}})
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(gateway.chat("a")))
    asking.start()
    gate.wait_reached()
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not accepts(gateway.port), "the port to be closed")
    gate.open()
    asking.join(30)
    assert [answer.status_code for answer in answers] == [200]
    assert len(silent.requests) == 2 and len(good.requests) == 1
    assert gateway.process.wait(30) == 0


def accepts(port: int) -> bool:
    """Whether somebody listens on this port."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def test_no_process_is_left_behind(start, providers):
    gateway = start(config_of(providers, "a"))
    envoy = gateway.envoy_pid()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(envoy, 0)


# -- the command line


def test_one_model_without_a_file(providers, tmp_path):
    port = free_port()
    arguments = ["--model", "openai/gpt-4o-mini", "--alias", "mine", "--api_base", providers.openai.base]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--state_dir", str(tmp_path / "state")]
    env = environment({"OPENAI_API_KEY": providers.openai.key})
    process = subprocess.Popen([str(BINARY), *arguments], env=env, stdout=subprocess.PIPE, text=True)
    try:
        first = next(line for line in process.stdout if LISTENING in line)
        assert first.strip().endswith(f"{LISTENING}http://127.0.0.1:{port}")
        body = {"model": "mine", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"http://127.0.0.1:{port}/chat/completions", json=body, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        assert command("healthcheck", "--port", str(port)).returncode == 0
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout.close()


def test_flag_test_sends_a_completion(gateway, providers):
    done = command("--config", str(gateway.config), "--port", str(gateway.port), "--test")
    assert done.returncode == 0, done.stderr
    assert providers.openai.text in done.stdout or any(mock.requests for mock in providers.all())


def test_version():
    done = command("--version")
    assert done.returncode == 0 and re.search(r"tollgate \d+\.\d+\.\d+", done.stdout)


def test_healthcheck_fails_when_nobody_listens():
    assert command("healthcheck", "--port", str(free_port())).returncode != 0


def test_a_taken_port_is_named(gateway, providers, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config_of(providers, "a")))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command("--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--state_dir", str(tmp_path / "state"))
    assert done.returncode not in (0, None)
    assert str(port) in done.stderr


GOOD_LIST = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]\n"
BAD = {
    "not YAML": ("model_list: [", []),
    "a list": ("- 1\n", []),
    "model missing": ("model_list:\n  - model_name: a\n    litellm_params: {api_key: k}\n", ["model"]),
    "name missing": ("model_list:\n  - litellm_params: {model: openai/a}\n", ["model_name"]),
    "list expected": ("model_list: {a: b}\n", ["model_list"]),
    "nothing to serve": ("model_list: []\n", ["model_list"]),
    "number expected": (GOOD_LIST + "router_settings:\n  num_retries: many\n", ["num_retries"]),
    "seconds expected": (GOOD_LIST + "litellm_settings:\n  request_timeout: soon\n", ["request_timeout"]),
    "bad fallbacks": (GOOD_LIST + "litellm_settings:\n  fallbacks: 7\n", ["fallbacks"]),
}


@pytest.mark.parametrize("text, words", BAD.values(), ids=BAD)
@pytest.mark.parametrize("how", [["check"], []], ids=["check", "serve"])
def test_a_bad_configuration_is_refused_by_name(tmp_path, text, words, how):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    extra = [] if how else ["--port", str(free_port()), "--state_dir", str(tmp_path / "state")]
    done = command(*how, "--config", str(path), *extra)
    assert done.returncode == 2, done.stdout + done.stderr
    said = done.stdout + done.stderr
    for word in [*words, "config.yaml"]:
        assert word in said
    assert "panicked" not in said


def test_a_missing_file_is_named(tmp_path):
    done = command("--config", str(tmp_path / "nothing.yaml"))
    assert done.returncode == 2 and "nothing.yaml" in done.stderr


# -- LiteLLM's own example


def test_check_knows_every_setting_of_the_example():
    done = command("check", "--config", str(SEED))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\bunknown\b", done.stdout, re.IGNORECASE), done.stdout
    for setting in ("routing_strategy", "master_key", "context_window_fallbacks", "pass_through_endpoints", "redis_host"):
        assert setting in done.stdout


def test_check_suggests_the_right_name(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(GOOD_LIST + "router_settings:\n  num_retrys: 3\n")
    done = command("check", "--config", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "num_retrys" in done.stdout and "num_retries" in done.stdout and "unknown" in done.stdout


def test_the_example_serves(start, providers):
    """LiteLLM's example unchanged but for where the providers are."""
    config = yaml.safe_load(SEED.read_text())
    for entry in config["model_list"]:
        params = entry["litellm_params"]
        wire = providers.azure if params["model"].startswith("azure/") else providers.openai
        if "api_base" in params:
            params["api_base"] = wire.base
    providers.openai.key = "my-fake-key"
    try:
        gateway = start(config, env={"OPENAI_API_KEY": "my-fake-key", "AZURE_API_KEY": providers.azure.key})
        headers = {"authorization": "Bearer sk-1234"}
        assert gateway.chat("fake-openai-endpoint-4").status_code == 401
        for model in ("fake-openai-endpoint-4", "gpt-3.5-turbo", "fake-openai-endpoint-5"):
            answer = gateway.chat(model, headers=headers)
            assert answer.status_code == 200, answer.text
        ids = [row["id"] for row in gateway.client.get("/v1/models", headers=headers).json()["data"]]
        assert "fake-openai-endpoint-4" in ids
    finally:
        providers.openai.key = providers.openai.default_key


# -- the filter alone


def test_the_filter_alone_serves_and_wants_the_master_key(providers, tmp_path, module):
    """A plain Envoy with the rendered configuration; the command does not run."""
    params = providers.openai.params() | {"api_key": "os.environ/OPENAI_API_KEY"}
    config = {"model_list": [deployment("a", params)], "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"}}
    env = {"OPENAI_API_KEY": providers.openai.key, "LITELLM_MASTER_KEY": MASTER_KEY}
    envoy = PlainEnvoy(tmp_path / "plain", config, module, env)
    try:
        assert MASTER_KEY not in envoy.rendered and providers.openai.key not in envoy.rendered
        assert envoy.chat("a").status_code == 401
        assert not providers.openai.requests
        for stream in (False, True):
            answer = envoy.chat("a", headers={"authorization": f"Bearer {MASTER_KEY}"}, stream=stream)
            assert answer.status_code == 200, answer.text
        assert envoy.lost() == {}
    finally:
        envoy.stop()


def test_many_requests_at_once_are_all_answered(gateway, providers):
    """400 requests over 100 connections, every wire format, streamed and not."""
    limits = httpx.Limits(max_connections=100)

    async def one(client: httpx.AsyncClient, number: int) -> int:
        wire = ("openai", "azure", "anthropic")[number % 3]
        body = {"model": wire, "messages": [{"role": "user", "content": str(number)}], "stream": number % 2 == 0}
        return (await client.post("/v1/chat/completions", json=body)).status_code

    async def all_of_them() -> list[int]:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=limits, trust_env=False) as client:
            return await asyncio.gather(*(one(client, number) for number in range(400)))

    for mock in providers.all():
        mock.default = ok()
    assert set(asyncio.run(all_of_them())) == {200}
    contents = [request.json["messages"][0]["content"] for mock in providers.all() for request in mock.requests]
    sent = sorted(int(content if isinstance(content, str) else content[0]["text"]) for content in contents)
    assert sent == list(range(400)), "every request reached its provider once"
