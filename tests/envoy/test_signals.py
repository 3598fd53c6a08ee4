"""Signals as an operator, systemd, logrotate, Kubernetes and a closed terminal send them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import threading

import httpx
import pytest

from gateway import BINARY, LISTENING, MASTER_KEY, bearer, deployment, environment, events_of, free_port, wait_until
from mock_provider import Gate, gated


def config_of(providers, *names: str, **more) -> dict:
    return {"model_list": [deployment(name, providers.openai.params(), id=f"{name}-1") for name in names]} | more


class Held:
    """A stream that stays in the middle of its answer until it is let go."""

    def __init__(self, gateway, providers) -> None:
        self.gate = Gate()
        providers.openai.script(gated(self.gate, after=3))
        self.answers: list[httpx.Response | Exception] = []
        self._thread = threading.Thread(target=self._ask, args=(gateway,))
        self._thread.start()
        self.gate.wait_reached()

    def _ask(self, gateway) -> None:
        try:
            with gateway.connect() as client:
                body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "stream": True}
                self.answers.append(client.post("/v1/chat/completions", json=body))
        except httpx.TransportError as error:
            self.answers.append(error)

    def finish(self):
        self.gate.open()
        self._thread.join(30)
        return self.answers[0]

    def is_whole(self) -> bool:
        answer = self.finish()
        return isinstance(answer, httpx.Response) and events_of(answer.content)[-1] == (None, "[DONE]")


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_sighup_reloads_and_cuts_nothing_off(start, providers):
    gateway = start(config_of(providers, "a"))
    held = Held(gateway, providers)
    envoy, ledger = gateway.envoy_pid(), gateway.ledger_pid()
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "configuration reloaded, nothing has changed: 1 deployment" in gateway.log(), "a word about the reload")
    gateway.write_config(config_of(providers, "a", "b"))
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: gateway.serves("b"), "the new model")
    wait_until(lambda: re.search(r"configuration reloaded: 2 deployments", gateway.log()), "a word about the new model")
    assert (gateway.envoy_pid(), gateway.ledger_pid()) == (envoy, ledger)
    assert held.is_whole()


def test_sighup_with_a_broken_file_keeps_what_is_served_and_says_so_once(start, providers):
    gateway = start(config_of(providers, "a"))
    gateway.write_config("model_list: [broken")
    wait_until(lambda: "the earlier one stays in force" in gateway.log(), "a message about the edit")
    assert gateway.chat("a").status_code == 200
    # Only that it is not used, and no second time by the ledger, which reads the same file.
    gateway.write_config(config_of(providers, "a", "b"))
    wait_until(lambda: gateway.serves("b"), "the repaired edit")
    printed = gateway.everything_printed()
    assert printed.count("not used") == 1 and "ledger: " not in printed, printed


def test_sigusr1_opens_the_access_log_again(start, providers, tmp_path):
    log = tmp_path / "logs" / "access.log"
    log.parent.mkdir()
    gateway = start(config_of(providers, "a", tollgate_settings={"access_log": str(log)}))
    assert gateway.chat("a").status_code == 200
    wait_until(lambda: log.exists() and log.read_text(), "the first record")
    moved = log.with_suffix(".log.1")
    log.rename(moved)
    gateway.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: log.exists() and "log files opened again" in gateway.log(), "a new file")
    before = moved.read_text()
    assert gateway.chat("a").status_code == 200
    wait_until(log.read_text, "the second record")
    assert moved.read_text() == before
    assert gateway.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_the_first_signal_says_what_it_waits_for_and_the_second_ends_at_once(start, providers, number):
    gateway = start(config_of(providers, "a"))
    held = Held(gateway, providers)
    gateway.process.send_signal(number)
    words = "stopping: waiting for 1 request in flight, 600 s at most"
    wait_until(lambda: words in gateway.log(), "what it waits for")
    assert "a second Ctrl-C or SIGTERM ends at once" in gateway.log()
    gateway.process.send_signal(number)
    gateway.ends_with = 1
    assert gateway.process.wait(30) == 1
    assert "ended at once, 1 request cut off" in gateway.log()
    assert not held.is_whole()


def test_a_clean_stop_prints_no_trouble(start, providers):
    gateway = start(config_of(providers, "a"))
    assert gateway.chat("a").status_code == 200
    started = set(gateway.everything_printed().splitlines())
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(30) == 0
    printed = "\n".join(line for line in gateway.everything_printed().splitlines() if line not in started)
    assert not re.search(r"WARNING|ERROR|does not say|refused|\[error\]|\[warning\]", printed), printed
    assert "INFO tollgate: ended" in printed


def test_readiness_fails_first_and_requests_are_taken_for_the_drain_delay(start, providers):
    gateway = start(config_of(providers, "a"), arguments=("--drain_delay", "3600"))
    assert gateway.client.get("/health/readiness").status_code == 200
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.client.get("/health/readiness").status_code == 503, "readiness to fail")
    answer = gateway.client.get("/health/readiness")
    assert answer.json()["error"]["type"] == "service_unavailable" and "stopping" in answer.json()["error"]["message"]
    assert gateway.client.get("/health/liveliness").status_code == 200
    assert gateway.chat("a").status_code == 200 and gateway.serves("a"), "also on new connections"
    assert "requests are taken for 3600 s more (--drain_delay)" in gateway.log()
    # The second signal shortens the wait.
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(30) == 0
    assert not accepts(gateway.port)


def test_in_a_kubernetes_pod_the_delay_is_five_seconds(start, providers):
    gateway = start(config_of(providers, "a"), env={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "requests are taken for 5 s more" in gateway.log(), "the delay")
    assert gateway.serves("a")
    assert gateway.process.wait(30) == 0


def test_a_closed_terminal_ends_it_as_sigterm_does(providers, tmp_path):
    """What was answered is in the ledger, and the next start on the same state knows it."""
    config = tmp_path / "config.yaml"
    model = {"model_name": "a", "litellm_params": providers.openai.params() | {"output_cost_per_token": 0.01}}
    config.write_text(json.dumps({"model_list": [model], "general_settings": {"master_key": MASTER_KEY}}))
    port, state = free_port(), tmp_path / "state"
    words = [str(BINARY), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--state_dir", str(state)]
    ours, theirs = pty.openpty()

    def terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(words, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=terminal)
    os.close(theirs)
    try:
        shown = ""
        while LISTENING not in shown:
            shown += os.read(ours, 4096).decode(errors="replace")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer(MASTER_KEY), trust_env=False, timeout=30) as client:
            key = client.post("/key/generate", json={}).json()["key"]
            body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
            for _ in range(5):
                assert client.post("/v1/chat/completions", json=body, headers=bearer(key)).status_code == 200
        os.close(ours)
        ours = None
        assert process.wait(30) == 0
    finally:
        if ours is not None:
            os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    again = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert any(LISTENING in line for line in again.stdout)
        info = httpx.get(
            f"http://127.0.0.1:{port}/key/info", params={"key": key}, headers=bearer(MASTER_KEY), trust_env=False, timeout=30
        )
        assert info.json()["info"]["spend"] > 0.05
    finally:
        again.send_signal(signal.SIGTERM)
        assert again.wait(30) == 0
        again.stdout.close()
