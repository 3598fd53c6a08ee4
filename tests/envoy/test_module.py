"""The filter as a dynamic module of Envoy: chosen where it fits, left where it does not, and the same to clients."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import subprocess

import httpx
import pytest

from gateway import MASTER_KEY, NATIVE_MODULE, Gateway, bearer, deployment, envoy_binary, parse_metrics, wait_until
from mock_provider import Gate, OpenAiMock, gated

NATIVE = {"TOLLGATE_FILTER_HOST": "native"}
NATIVE_LINE = "filter: a dynamic module of Envoy"


@pytest.fixture
def mock(mocks):
    return mocks(OpenAiMock)


@pytest.fixture
def config(mock) -> dict:
    return {
        "model_list": [
            deployment("a", mock.params(), id="a-1"),
            deployment("one-at-a-time", mock.params() | {"max_parallel_requests": 1}, id="one-1"),
        ],
        "router_settings": {"num_retries": 0},
        "general_settings": {"master_key": MASTER_KEY},
    }


def maps_of(gateway: Gateway) -> str:
    """What Envoy has in its memory, as the kernel tells it."""
    return pathlib.Path(f"/proc/{gateway.envoy_pid()}/maps").read_text()


def is_native(gateway: Gateway) -> bool:
    return f"{gateway.state}/libtollgate-" in maps_of(gateway)


def ask(gateway: Gateway, model: str = "a", key: str = MASTER_KEY) -> httpx.Response:
    return gateway.chat(model, headers=bearer(key))


def test_it_is_run_where_it_is_asked_for_and_fits(start, config):
    gateway = start(config, env=NATIVE)
    assert is_native(gateway)
    assert any(NATIVE_LINE in line for line in gateway.lines())
    assert ask(gateway).status_code == 200


def test_the_flag_goes_before_the_setting(start, config):
    gateway = start(config | {"tollgate_settings": {"host": "native"}}, arguments=("--filter-host", "wasm"))
    assert not is_native(gateway)
    assert ask(gateway).status_code == 200


def test_the_setting_asks_for_it(start, config, monkeypatch):
    monkeypatch.delenv("TOLLGATE_FILTER_HOST", raising=False)
    gateway = start(config | {"tollgate_settings": {"host": "native"}})
    assert is_native(gateway)


def test_another_version_of_envoy_gets_the_wasm_module(start, config, tmp_path):
    """The version is what Envoy says: this one says that it is newer than it is."""
    envoy = tmp_path / "envoy"
    said = "envoy  version: 0123/1.41.0/Clean/RELEASE/BoringSSL"
    envoy.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{said}" && exit\nexec {envoy_binary()} "$@"\n')
    envoy.chmod(0o755)
    gateway = start(config, env=NATIVE | {"TOLLGATE_ENVOY": str(envoy)})
    assert not is_native(gateway)
    assert "it is made for Envoy 1.40, and this is Envoy 1.41" in gateway.log()
    assert ask(gateway).status_code == 200


def test_what_it_counts_and_spends_is_known(start, config):
    gateway = start(config, env=NATIVE)
    key = gateway.new_key(max_budget=1)
    for _ in range(3):
        assert ask(gateway, key=key).status_code == 200
    wait_until(lambda: gateway.spend_of(key) > 0, "the ledger to know what was spent")

    def counted() -> bool:
        metrics = parse_metrics(gateway.client.get("/metrics", headers=bearer(MASTER_KEY)).text)
        return metrics.get('tollgate_requests{model="a",status="200"}') == 3

    wait_until(counted, "three requests in the metrics, under the names that the Wasm module has")


def test_requests_that_wait_for_a_place_go_on(start, config, mock):
    gateway = start(config, env=NATIVE, workers=1)
    gate = Gate()
    mock.default = gated(gate)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, gateway, "one-at-a-time")
        wait_until(lambda: len(mock.requests) == 1, "the first request at the provider")
        others = [pool.submit(ask, gateway, "one-at-a-time") for _ in range(2)]
        gate.open()
        assert [it.result().status_code for it in [first, *others]] == [200, 200, 200]


def test_a_configuration_that_changes_is_taken_over(start, config, mock):
    gateway = start(config, env=NATIVE)
    config["model_list"].append(deployment("b", mock.params(), id="b-1"))
    gateway.write_config(config)
    wait_until(lambda: ask(gateway, "b").status_code == 200, "the new model")
    assert ask(gateway).status_code == 200


def test_an_envoy_that_keeps_dying_goes_on_with_wasm(start, config):
    """A fault in native code ends the process: after three in a minute the command runs the filter as Wasm."""
    gateway = start(config, env=NATIVE)
    for _ in range(3):
        pid = gateway.envoy_pid()
        os.kill(pid, signal.SIGSEGV)
        wait_until(lambda was=pid: serves(gateway, was), "another Envoy")
    assert not is_native(gateway), gateway.log()
    assert "Envoy died 3 times in a minute with the filter as a dynamic module: from now on it runs as Wasm" in gateway.log()


def serves(gateway: Gateway, gone: int) -> bool:
    if pathlib.Path(f"/proc/{gone}/maps").exists() and pathlib.Path(f"/proc/{gone}/stat").read_text().split()[2] != "Z":
        return False
    with contextlib.suppress(httpx.TransportError), gateway.connect() as client:
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
        return client.post("/v1/chat/completions", json=body, headers=bearer(MASTER_KEY)).status_code == 200
    return False


def test_the_module_asks_envoy_for_nothing_that_it_does_not_have():
    """Envoy resolves what a module calls when it is called: a name that is not there would show in the first request that needs it."""
    def symbols(path: pathlib.Path, *flags: str) -> set[str]:
        done = subprocess.run(["nm", "-D", *flags, str(path)], capture_output=True, text=True, check=True)
        return {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}

    has = symbols(pathlib.Path(envoy_binary()), "--defined-only")
    asks = {name for name in symbols(NATIVE_MODULE, "--undefined-only") if name.startswith("envoy_")}
    assert asks and asks <= has, asks - has
    hooks = symbols(NATIVE_MODULE, "--defined-only")
    assert "envoy_dynamic_module_on_http_filter_request_headers" in hooks
