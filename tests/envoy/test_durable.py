"""What was answered is kept: by a full disk, a ledger that hangs, processes that are killed, a power cut, a database that is away."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import sqlite3
import stat
from typing import Any, Callable, Iterator

import pytest

from disk import MountedDisk, PreloadedDisk, library, mounted, own_postgres, short_folder
from gateway import MASTER_KEY, Gateway, bearer, command, deployment, wait_until
from mock_provider import OpenAiMock
from mock_provider.fixtures import one_token_each, openai_mock

PICO = 10**12
COST = 3 * 10**6
"""10⁻¹² dollars of one request."""


mock = openai_mock(usage=one_token_each)


@pytest.fixture
def state() -> Iterator[pathlib.Path]:
    """A state folder that outlives the gateways of a test: to be named before `start`."""
    with short_folder() as folder:
        yield folder


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


# -- a disk that fills


@pytest.fixture(params=["mounted", "preloaded"])
def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[MountedDisk | PreloadedDisk]:
    """A file system of 12 MB, and a folder that acts like one that is full."""
    if request.param == "mounted":
        with mounted() as disk:
            if disk is None:
                pytest.skip("nobody may mount here; the same is shown with a preloaded library")
            yield disk
    else:
        with short_folder() as folder:
            yield PreloadedDisk(folder, tmp_path / "full")


def test_a_disk_that_is_full_refuses_changes_serves_on_and_recovers_by_itself(
    disk: MountedDisk | PreloadedDisk, start: Callable[..., Gateway], mock: OpenAiMock
) -> None:
    gateway = start(config(mock), state=disk.folder, env=disk.env)
    ledger = gateway.ledger_pid()
    known = gateway.new_key()
    answered = [known]
    served = [call(gateway, known) for _ in range(5)]

    def refused() -> Any:
        """Tries to change something; what is answered with 200 has to stay."""
        answer = gateway.manage_raw("/key/generate", {})
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 200:
            answered.append(answer.json()["key"])
        return None if answer.status_code == 200 else answer

    disk.fill()
    error = wait_until(refused, "a refusal").json()["error"]
    assert "the disk of its database is full" in error["message"] and error["code"] == "503", error
    blocked = gateway.manage_raw("/key/block", {"key": known})
    assert blocked.status_code == 503, blocked.text
    unready = wait_until(lambda: readiness(gateway, 503), "readiness to fail")
    assert "the disk of its database is full" in unready["detail"]
    assert "keeps nothing: the disk is full" in gateway.log()
    # Whom the gateway knows it goes on serving, and what that costs waits in Envoy's memory.
    served += [call(gateway, known) for _ in range(20)]
    assert set(served) == {200}
    wait_until(lambda: gateway.stats()["tollgate_events_enqueued{}"] == len(served), "all calls to be told")
    assert gateway.stats().get("tollgate_events_acknowledged{}", 0) < len(served)
    assert not gateway.client.get("/key/info", params={"key": known}, headers=bearer(MASTER_KEY)).json()["info"]["blocked"]

    disk.empty()
    wait_until(lambda: readiness(gateway, 200), "readiness again")
    assert refused() is None
    assert "works again" in gateway.log()
    wait_until(lambda: charged(gateway, known) == len(served), "all usage in the ledger")
    assert gateway.ledger_pid() == ledger
    gateway.stop()
    after = start(config(mock), state=disk.folder, env=disk.env)
    assert charged(after, known) == len(served)
    assert logged(after, known) == len(served)
    assert {call(after, key) for key in answered} == {200}


def readiness(gateway: Gateway, status: int) -> dict | None:
    answer = gateway.client.get("/health/readiness")
    return answer.json() if answer.status_code == status else None


def logged(gateway: Gateway, key: str) -> int:
    """Rows of a key's calls."""
    return len(gateway.manage("/spend/logs", api_key=key))


# -- processes that are killed

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("/key/generate", {"key": "sk-made-then", "models": ["m"]}),
    ("/key/update", {"key": "sk-made-then", "max_budget": 7, "rpm_limit": 70}),
    ("/team/new", {"team_id": "t", "models": ["m"]}),
    ("/key/block", {"key": "sk-made-before"}),
    ("/key/delete", {"keys": ["sk-taken-away"]}),
]
"""Changes, the last of which are those that nobody may lose: a key that was taken away works no more."""


def made_before(gateway: Gateway) -> None:
    for key in ("sk-made-before", "sk-taken-away"):
        gateway.new_key(key=key)


def assert_all_is_there(gateway: Gateway) -> None:
    def info(key: str) -> dict:
        return gateway.client.get("/key/info", params={"key": key}, headers=bearer(MASTER_KEY)).json()

    made = info("sk-made-then")["info"]
    assert (made["models"], made["max_budget"], made["rpm_limit"]) == (["m"], 7, 70)
    assert gateway.manage("/team/info", team_id="t")["team_info"]["models"] == ["m"]
    assert info("sk-made-before")["info"]["blocked"] is True
    assert info("sk-taken-away")["error"]["code"] == "404"
    assert [call(gateway, key) for key in ("sk-made-then", "sk-made-before", "sk-taken-away")] == [200, 401, 401]


def test_what_was_answered_is_there_after_kill_9(state: pathlib.Path, start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    """The ledger is killed right after each answer, and everything at once after the last."""
    gateway = start(config(mock), state=state)
    made_before(gateway)
    for path, body in CHANGES[:-1]:
        ledger = gateway.ledger_pid()
        gateway.manage(path, body)
        os.kill(ledger, signal.SIGKILL)
        wait_until(lambda: gateway.manage_raw("/key/list").status_code == 200, "the next ledger")
    everything = [gateway.process.pid, gateway.envoy_pid(), gateway.ledger_pid()]
    gateway.manage(*CHANGES[-1])
    for pid in everything:
        os.kill(pid, signal.SIGKILL)
    gateway.ends_with = -signal.SIGKILL
    gateway.process.wait()
    assert_all_is_there(start(config(mock), state=state))


# -- a power cut


def test_what_was_answered_is_there_after_a_power_cut(
    state: pathlib.Path, start: Callable[..., Gateway], mock: OpenAiMock, tmp_path: pathlib.Path
) -> None:
    """After each answer, what has been synced so far is set aside; it has to hold all that was answered."""
    synced = tmp_path / "synced"
    synced.mkdir()
    env = {"LD_PRELOAD": str(library()), "DISK_FOLDER": str(state), "DISK_SYNCED": str(synced)}
    gateway = start(config(mock), state=state, env=env)
    made_before(gateway)
    for at, (path, body) in enumerate(CHANGES):
        gateway.manage(path, body)
        cut = shutil.copytree(synced, tmp_path / f"cut-{at}", ignore=shutil.ignore_patterns("*.unlisted"))
        assert revision(cut) >= 3 + at, f"{path} is not on the disk"
    gateway.stop()
    shutil.rmtree(state)
    shutil.copytree(cut, state)
    assert_all_is_there(start(config(mock), state=state))


def revision(folder: pathlib.Path) -> int:
    """How many changes a database that is found there has seen."""
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return database.execute("SELECT revision FROM tollgate_state WHERE id = 1").fetchone()[0]


# -- a Postgres that is away


def test_a_postgres_that_is_stopped_for_a_while_costs_nothing(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    with own_postgres() as postgres:
        gateway = start(config(mock), env={"DATABASE_URL": postgres.url})
        ledger = gateway.ledger_pid()
        known, cold = gateway.new_key(), gateway.new_key()
        served = [call(gateway, known) for _ in range(5)]
        postgres.stop()
        unready = wait_until(lambda: readiness(gateway, 503), "readiness to fail")
        assert "the ledger cannot reach its database" in unready["detail"], unready
        assert f"the database at 127.0.0.1:{postgres.port} cannot be reached" in gateway.log()
        served += [call(gateway, known) for _ in range(20)]
        assert set(served) == {200}
        assert gateway.manage_raw("/key/generate", {}).status_code == 503
        assert call(gateway, cold) == 503
        postgres.start()
        wait_until(lambda: readiness(gateway, 200), "readiness again")
        wait_until(lambda: charged(gateway, known) == len(served), "all usage in the ledger")
        assert logged(gateway, known) == len(served)
        assert "works again" in gateway.log()
        wait_until(lambda: call(gateway, cold) == 200, "the key that nobody knew")
        assert gateway.new_key()
        assert gateway.ledger_pid() == ledger
        gateway.stop()


# -- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl-c"])
def test_what_was_answered_before_a_clean_stop_is_charged_and_logged(
    state: pathlib.Path, start: Callable[..., Gateway], mock: OpenAiMock, number: signal.Signals
) -> None:
    gateway = start(config(mock), state=state)
    key = gateway.new_key()
    served = [call(gateway, key) for _ in range(30)]
    gateway.process.send_signal(number)
    assert gateway.process.wait(60) == 0
    after = start(config(mock), state=state)
    assert served == [200] * 30
    assert charged(after, key) == logged(after, key) == 30


def test_what_was_answered_before_the_command_was_killed_is_charged_and_logged(
    state: pathlib.Path, start: Callable[..., Gateway], mock: OpenAiMock
) -> None:
    """Envoy goes on until its last usage is in the ledger, and a start on the same state and port waits for it."""
    gateway = start(config(mock), state=state)
    key = gateway.new_key()
    children = [gateway.envoy_pid(), gateway.ledger_pid()]
    served = [call(gateway, key) for _ in range(30)]
    gateway.process.kill()
    gateway.ends_with = -signal.SIGKILL
    gateway.process.wait()
    after = start(config(mock), state=state, port=gateway.port)
    assert served == [200] * 30
    assert charged(after, key) == logged(after, key) == 30
    wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in children), "what was left behind to end")
    assert call(after, key) == 200


def test_envoy_does_not_outlive_what_guards_it(start: Callable[..., Gateway], mock: OpenAiMock) -> None:
    gateway = start(config(mock))
    gateway.may_reload = True
    envoy = gateway.envoy_pid()
    guard = int(pathlib.Path(f"/proc/{envoy}/stat").read_text().rsplit(")")[-1].split()[1])
    assert guard != gateway.process.pid
    # A signal for all processes of a service is the command's business.
    os.kill(guard, signal.SIGTERM)
    assert gateway.serves()
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: not pathlib.Path(f"/proc/{envoy}").exists(), "Envoy to end")
    wait_until(lambda: "Envoy ended (signal: 9 (SIGKILL)): starting it again" in gateway.log(), "a word")
    wait_until(lambda: gateway.serves(), "the next Envoy")


# -- copies


def told(code: int, *words: str, env: dict[str, str] | None = None) -> str:
    """What the command prints that ends with this code."""
    done = command(*words, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_backup_beside_a_gateway_that_serves_is_whole_and_can_be_put_back(
    state: pathlib.Path, start: Callable[..., Gateway], mock: OpenAiMock, tmp_path: pathlib.Path
) -> None:
    at = ("--state_dir", str(state))
    file = tmp_path / "copy.db"
    assert "there is no ledger" in told(2, "backup", str(file), *at) and not file.exists()
    gateway = start(config(mock), state=state)
    before = gateway.new_key()
    assert call(gateway, before) == 200
    wait_until(lambda: charged(gateway, before) == 1, "the call in the ledger")
    # A plain copy of the file has nothing of it: it is in the log beside.
    assert "1 keys, " in told(0, "backup", str(file), *at)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and list(tmp_path.glob("copy.db?*")) == []
    copy = file.read_bytes()
    assert "is there already" in told(2, "backup", str(file), *at) and file.read_bytes() == copy
    after = gateway.new_key()
    assert "2 keys, " in told(0, "backup", str(file), *at, "--force") and file.read_bytes() != copy
    file.write_bytes(copy)
    assert "in use by another tollgate" in told(2, "restore", str(file), *at, "--force")
    gateway.stop()
    assert "say --force" in told(2, "restore", str(file), *at)
    broken = tmp_path / "broken.db"
    broken.write_bytes(copy[:4096] + bytes(len(copy) - 4096))
    assert "damaged" in told(1, "restore", str(broken), *at, "--force")
    assert "1 keys, " in told(0, "restore", str(file), *at, "--force")
    assert {name: oct(mode) for name, mode in modes(state).items() if mode & 0o077} == {}
    again = start(config(mock), state=state)
    assert charged(again, before) == 1
    assert [call(again, key) for key in (before, after)] == [200, 401]
    again.stop()
    # What was replaced is there still.
    assert "2 keys, " in told(0, "restore", str(state / "ledger.db.replaced"), *at, "--force")


def test_a_ledger_in_postgres_is_backed_up_by_its_own_tool(tmp_path: pathlib.Path) -> None:
    env = {"DATABASE_URL": "postgresql://u:s3cret@db.internal/x"}
    file = tmp_path / "x.dump"
    printed = told(2, "backup", str(file), env=env)
    assert f"pg_dump --format=custom --file={file} postgresql://u@db.internal/x" in printed and "s3cret" not in printed
    printed = told(2, "restore", str(file), env=env)
    assert f"pg_restore --clean --if-exists --dbname=postgresql://u@db.internal/x {file}" in printed
