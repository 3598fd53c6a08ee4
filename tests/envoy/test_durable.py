"""What was answered is kept: by a full disk, a ledger that hangs, processes that are killed, a power cut, a database that is away."""

from __future__ import annotations

import os
import pathlib
import signal
import stat
from typing import Any, Callable, Iterator

import pytest

from gateway import MASTER_KEY, Gateway, bearer, deployment, wait_until
from mock_provider import OpenAiMock

PICO = 10**12
COST = 3 * 10**6
"""10⁻¹² dollars of one request."""


@pytest.fixture
def mock() -> Iterator[OpenAiMock]:
    mock = OpenAiMock()
    mock.usage = lambda _: {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    yield mock
    mock.stop()


def config(mock: OpenAiMock, **more: Any) -> dict:
    prices = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
    return {
        "model_list": [deployment("m", mock.params() | prices)],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
    } | more


def call(gateway: Gateway, key: str) -> int:
    return gateway.chat("m", headers=bearer(key), max_tokens=1).status_code


def charged(gateway: Gateway, key: str) -> int:
    """Calls that the ledger has charged a key for."""
    spend = round(gateway.spend_of(key) * PICO)
    assert spend % COST == 0
    return spend // COST


# -- who may read it


def modes(folder: pathlib.Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}


def test_what_is_made_in_the_state_folder_is_for_its_owner_alone(
    start: Callable[..., Gateway], mock: OpenAiMock, tmp_path: pathlib.Path
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    theirs = tmp_path / "access.log"
    before = os.umask(0o027)
    try:
        gateway = start(config(mock, tollgate_settings={"access_log": str(theirs)}), state=state)
        made = gateway.new_key()
        assert call(gateway, made) == 200
        gateway.write_config(config(mock, tollgate_settings={"access_log": str(state / "access.log")}))
        wait_until(lambda: (state / "access.log").exists(), "the log that the changed configuration names")
        found = modes(state)
        assert {"ledger.db", "ledger.db-wal", "ledger.sock", "admin.sock", "lock", "gateway.json", "envoy.json"} <= set(found)
        assert {name: oct(mode) for name, mode in found.items() if mode & 0o077} == {}
        # A log that somebody wants elsewhere is as readable as all that he makes, also after it was moved away.
        assert stat.S_IMODE(theirs.stat().st_mode) == 0o640
        gateway.write_config(config(mock, tollgate_settings={"access_log": str(theirs)}))
        wait_until(lambda: gateway.log().count("configuration reloaded") == 2, "the second reload")
        theirs.rename(tmp_path / "access.log.1")
        gateway.process.send_signal(signal.SIGUSR1)
        wait_until(theirs.exists, "a new log")
        assert stat.S_IMODE(theirs.stat().st_mode) == 0o640
    finally:
        os.umask(before)


# -- a ledger that hangs


def test_a_ledger_that_hangs_is_ended_and_started_again(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    gateway = start(config(mock))
    known, cold = gateway.new_key(), gateway.new_key()
    assert call(gateway, known) == 200
    hung = gateway.ledger_pid()
    os.kill(hung, signal.SIGSTOP)
    # Known keys go on; who asks the ledger itself is told soon that it does not answer.
    assert call(gateway, known) == 200
    refused = gateway.manage_raw("/key/generate", {"key_alias": "while it hangs"})
    assert refused.status_code == 503, refused.text
    assert refused.json()["error"]["type"] == "service_unavailable", refused.text
    assert call(gateway, known) == 200
    wait_until(lambda: gateway.manage_raw("/key/list").status_code == 200, "a new ledger")
    made = gateway.new_key()
    assert gateway.ledger_pid() != hung
    assert "the ledger hangs: it has not answered for" in gateway.log()
    assert gateway.stats()["tollgate_ledger_restarts{}"] == 1
    for key in (known, cold, made):
        assert call(gateway, key) == 200
    wait_until(lambda: charged(gateway, known) == 4, "all calls of the known key")
