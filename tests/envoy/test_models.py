"""Models added, changed and removed through the management API, while the gateway serves."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import subprocess
import threading
from typing import Any, Callable, Iterator

import httpx
import pytest

from gateway import (
    BINARY,
    MASTER_KEY,
    Gateway,
    bearer,
    chunks_of,
    deployment,
    environment,
    free_port,
    text_of,
    wait_until,
)
from mock_provider import WAIT, Gate, OpenAiMock, gated

STORED_KEY, OTHER_KEY = "sk-stored-in-the-database-7c", "sk-stored-later-9d"


def config_of(mock: OpenAiMock, *names: str, **general: Any) -> dict:
    models = [deployment(name, mock.params(), id=f"{name}-1") for name in names]
    return {"model_list": models, "general_settings": {"master_key": MASTER_KEY, "store_model_in_db": True} | general}


def ask(gateway: Gateway, model: str, **body: Any) -> httpx.Response:
    return gateway.chat(model, headers=bearer(MASTER_KEY), **body)


def add(gateway: Gateway, name: str, mock: OpenAiMock, **params: Any) -> dict:
    body = {"model_name": name, "litellm_params": mock.params() | params, "model_info": {"id": f"id-{name}"}}
    return gateway.manage("/model/new", body)


def remove(gateway: Gateway, name: str) -> None:
    gateway.manage("/model/delete", {"id": f"id-{name}"})


@pytest.fixture
def first(mocks) -> OpenAiMock:
    return mocks(OpenAiMock, name="first", key=STORED_KEY)


@pytest.fixture
def second(mocks) -> OpenAiMock:
    return mocks(OpenAiMock, name="second", key=OTHER_KEY)


def test_a_call_is_in_force_when_its_answer_arrives(start, providers, first, second, database) -> None:
    gateway = start(config_of(providers.openai, "old"), env=database)
    # Connections that were open before must not go on with what was served then.
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(6)]

        def everywhere(model: str) -> set[int]:
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            return {client.post("/v1/chat/completions", json=body, headers=bearer(MASTER_KEY)).status_code for client in clients}

        assert everywhere("old") == {200} and everywhere("new") == {400}
        add(gateway, "new", first)
        assert everywhere("new") == {200} and len(first.requests) == len(clients)
        gateway.manage("/model/update", {"model_info": {"id": "id-new"}, "litellm_params": {"api_base": second.base, "api_key": second.key}})
        assert everywhere("new") == {200} and len(second.requests) == len(clients)
        gateway.manage("/model/id-new/update", {"model_name": "renamed"}, method="PATCH")
        assert everywhere("renamed") == {200} and everywhere("new") == {400}
        assert "renamed" in [model["id"] for model in gateway.manage("/v1/models")["data"]]
        remove(gateway, "new")
        assert everywhere("renamed") == {400} and everywhere("old") == {200}
    assert len(first.requests) == len(clients) and len(second.requests) == 2 * len(clients)


def test_a_stored_wildcard_serves_what_it_matches(start, providers, first) -> None:
    gateway = start(config_of(providers.openai, "old"))
    gateway.manage("/model/new", {"model_name": "mock/*", "litellm_params": first.params() | {"model": "openai/*"}})
    assert ask(gateway, "mock/gpt-4o-mini").status_code == 200
    assert first.last.json["model"] == "gpt-4o-mini"


def test_a_file_without_models_may_wait_for_stored_ones(start, first) -> None:
    gateway = start({"general_settings": {"master_key": MASTER_KEY, "store_model_in_db": True}})
    assert ask(gateway, "new").status_code == 400
    add(gateway, "new", first)
    assert ask(gateway, "new").status_code == 200


@pytest.mark.timeout(180)
def test_requests_are_not_disturbed_while_models_come_and_go(start, providers, first, second) -> None:
    gateway = start(config_of(providers.openai, "old"))
    gate = Gate()
    providers.openai.script(*[gated(gate, after=3)] * 40)
    text = providers.openai.text
    over = threading.Event()

    def stream(client: httpx.Client) -> str:
        body = {"model": "old", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        answer = client.post("/v1/chat/completions", json=body, headers=bearer(MASTER_KEY))
        assert answer.status_code == 200, answer.text
        return text_of(chunks_of(answer.content))

    def held() -> str:
        with gateway.connect() as client:
            return stream(client)

    def load(turn: int) -> int:
        count = 0
        with gateway.connect() as client:
            while not over.is_set():
                if (turn + count) % 2:
                    assert stream(client) == text
                else:
                    body = {"model": "old", "messages": [{"role": "user", "content": "hi"}]}
                    answer = client.post("/v1/chat/completions", json=body, headers=bearer(MASTER_KEY))
                    assert answer.status_code == 200, answer.text
                count += 1
        return count

    with concurrent.futures.ThreadPoolExecutor(48) as pool:
        streams = [pool.submit(held) for _ in range(40)]
        providers.openai.wait_requests(40)
        loads = [pool.submit(load, turn) for turn in range(6)]
        try:
            for turn in range(20):
                add(gateway, f"m{turn}", first)
                assert ask(gateway, f"m{turn}").status_code == 200
                change = {"api_base": second.base, "api_key": second.key}
                gateway.manage("/model/update", {"model_info": {"id": f"id-m{turn}"}, "litellm_params": change})
                assert ask(gateway, f"m{turn}").status_code == 200
                if turn >= 3:
                    remove(gateway, f"m{turn - 3}")
                    assert ask(gateway, f"m{turn - 3}").status_code == 400
        finally:
            over.set()
            gate.open()
        assert {one.result(WAIT) for one in streams} == {text}
        assert all(one.result(WAIT) > 0 for one in loads)
    assert len(first.requests) == len(second.requests) == 20
    shown = {entry["model_name"] for entry in gateway.manage("/model/info")["data"]}
    assert shown == {"old", "m17", "m18", "m19"}


def test_stored_keys_stand_nowhere(start, providers, first, database) -> None:
    gateway = start(config_of(providers.openai, "old"), env=database)
    header = "the-value-of-a-header-5e"
    made = add(gateway, "new", first, extra_headers={"x-team": header})
    assert ask(gateway, "new").status_code == 200
    assert first.last.header("x-team") == header
    refused = gateway.manage_raw("/model/new", {"model_name": "bad", "litellm_params": first.params() | {"timeout": "soon"}})
    assert refused.status_code == 400 and "timeout" in refused.json()["error"]["message"]
    places = {
        "config_dump": gateway.admin("/config_dump?include_eds").text,
        "stats": gateway.admin("/stats").text,
        "answer": str(made),
        "refusal": refused.text,
        "model info": str(gateway.manage("/model/info")),
        "output": gateway.everything_printed(),
    }
    for path in gateway.state.rglob("*"):
        if path.is_file() and path.suffix != ".wasm":
            places[path.name] = path.read_bytes().decode(errors="replace")
    found = [place for place, text in places.items() for secret in (first.key, header) if secret in text]
    assert not found
    assert "id-new" in places["config_dump"] and "id-new" in places["ecds.json"], "these are the real ones"


def test_the_secret_is_asked_for(start, providers, first) -> None:
    gateway = start(config_of(providers.openai, "old"))
    add(gateway, "new", first)
    socket = next(path for path in gateway.sockets() if path.name == "ledger.sock")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://ledger", timeout=WAIT) as client:
        for headers in ({}, bearer(MASTER_KEY)):
            answer = client.get("/internal/models", headers=headers)
            assert answer.status_code == 401 and first.key not in answer.text
    assert ask(gateway, "new").status_code == 200
    for headers in ({}, bearer(MASTER_KEY)):
        answer = gateway.client.get("/internal/models", headers=headers)
        assert answer.status_code in (401, 404) and first.key not in answer.text


def test_stored_models_survive_a_restart(start, providers, first, database) -> None:
    config = config_of(providers.openai, "old")
    gateway = start(config, env=database)
    add(gateway, "new", first)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(WAIT) == 0
    again = start(config, env=database, state=gateway.state, port=gateway.port)
    assert ask(again, "new").status_code == 200
    assert ask(again, "old").status_code == 200
    # Before the first one takes the folder of both away.
    again.stop()


def test_a_ledger_that_is_away_takes_no_model_along(start, providers, first, second) -> None:
    gateway = start(config_of(providers.openai, "old"))
    add(gateway, "new", first)
    key = gateway.new_key()
    assert gateway.chat("new", headers=bearer(key)).status_code == 200
    old = gateway.ledger_pid()
    subprocess.run(["kill", "-9", str(old)], check=True)
    assert gateway.chat("new", headers=bearer(key)).status_code == 200
    wait_until(lambda: gateway.ledger_pid() != old, "a new ledger")
    wait_until(lambda: gateway.manage_raw("/model/info").status_code == 200, "the ledger to answer")
    add(gateway, "later", second)
    assert {ask(gateway, model).status_code for model in ("new", "later", "old")} == {200}


def test_a_reload_keeps_stored_models(start, providers, first) -> None:
    gateway = start(config_of(providers.openai, "old"))
    add(gateway, "new", first)
    gateway.write_config(config_of(providers.openai, "old", "other"))
    wait_until(lambda: ask(gateway, "other").status_code == 200, "the edit")
    assert {ask(gateway, model).status_code for model in ("new", "old")} == {200}
    gateway.write_config(config_of(providers.openai, "old", "other", store_model_in_db=False))
    wait_until(lambda: ask(gateway, "new").status_code == 400, "stored models to be gone")
    assert gateway.manage_raw("/model/delete", {"id": "id-new"}).status_code == 500


def test_a_bad_model_in_the_database_keeps_nobody_from_being_served(start, providers, first, postgres) -> None:
    config = config_of(providers.openai, "old")
    with_key = {"DATABASE_URL": postgres, "LITELLM_SALT_KEY": "sk-salt-one"}
    gateway = start(config, env=with_key)
    add(gateway, "sealed-otherwise", first)
    add(gateway, "twice", first)
    other = start(config, env=with_key | {"LITELLM_SALT_KEY": "sk-salt-two"})
    add(other, "good", first)
    assert {ask(other, model).status_code for model in ("good", "old")} == {200}
    assert ask(other, "sealed-otherwise").status_code == 400
    # A file that has the id itself.
    models = config["model_list"] + [deployment("mine", providers.openai.params(), id="id-twice")]
    gateway.write_config(config | {"model_list": models})
    wait_until(lambda: ask(gateway, "mine").status_code == 200, "the edit")
    assert ask(gateway, "sealed-otherwise").status_code == 200 and ask(gateway, "twice").status_code == 400
    add(gateway, "one-more", first)
    wait_until(lambda: "id-twice" in gateway.everything_printed(), "a word about the id")
    assert gateway.everything_printed().count("its id `id-twice`") == 1
    said = other.everything_printed()
    assert said.count("`id-sealed-otherwise` of the database is left out") == 1 and "LITELLM_SALT_KEY" in said


def test_variables_are_those_of_the_start(start, providers, first) -> None:
    gateway = start(config_of(providers.openai, "old"), env={"KNOWN_KEY": first.key})
    answer = gateway.manage_raw("/model/new", {"model_name": "new", "litellm_params": first.params() | {"api_key": "os.environ/UNKNOWN_KEY"}})
    assert answer.status_code == 400
    assert "`os.environ/UNKNOWN_KEY`" in answer.json()["error"]["message"] and "start the gateway again" in answer.text
    add(gateway, "new", first, api_key="os.environ/KNOWN_KEY")
    assert ask(gateway, "new").status_code == 200


def test_the_other_gateway_of_a_database_follows(start, providers, first, second, postgres) -> None:
    config = config_of(providers.openai, "old")
    one, two = (start(config, env={"DATABASE_URL": postgres}) for _ in range(2))
    add(one, "new", first)
    assert ask(one, "new").status_code == 200
    wait_until(lambda: ask(two, "new").status_code == 200, "the model on the other node", timeout=5)
    two.manage("/model/update", {"model_info": {"id": "id-new"}, "litellm_params": {"api_base": second.base, "api_key": second.key}})
    wait_until(lambda: ask(one, "new").status_code == 200 and second.requests, "the change on the other node", timeout=5)
    remove(one, "new")
    wait_until(lambda: ask(two, "new").status_code == 400, "the model to be gone on the other node", timeout=5)


@pytest.fixture
def lone_ledger(tmp_path, providers) -> Iterator[Callable[[dict], dict[str, str]]]:
    """Starts a ledger by itself, for gateways elsewhere; gives what their environment must hold."""
    processes = []

    def start(config: dict) -> tuple[str, dict[str, str]]:
        import yaml

        path, port = tmp_path / "ledger.yaml", free_port()
        path.write_text(yaml.safe_dump(config))
        secret = {"TOLLGATE_LEDGER_KEY": "a-secret-of-the-whole-fleet"}
        words = [str(BINARY), "ledger", "--config", str(path), "--listen", f"127.0.0.1:{port}", "--database_dir", str(tmp_path)]
        processes.append(subprocess.Popen(words, env=environment(secret)))
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                headers = bearer(secret["TOLLGATE_LEDGER_KEY"])
                return httpx.get(f"{url}/internal/ready", headers=headers, trust_env=False).status_code == 200
            return False

        wait_until(ready, "the ledger")
        return url, secret

    yield start
    for process in processes:
        process.terminate()
        assert process.wait(WAIT) == 0


def test_gateways_of_a_fleet_follow_their_ledger(lone_ledger, start, providers, first) -> None:
    config = config_of(providers.openai, "old")
    url, secret = lone_ledger(config)
    fleet = [start(config | {"tollgate_settings": {"ledger_url": url}}, env=secret) for _ in range(2)]
    add(fleet[0], "new", first, api_key="os.environ/NOT_HERE")
    for gateway in fleet:
        wait_until(lambda: ask(gateway, "new").status_code != 400, "the model", timeout=5)
        wait_until(lambda: "NOT_HERE" in gateway.everything_printed(), "a word about the variable")
    fleet[1].manage("/model/update", {"model_info": {"id": "id-new"}, "litellm_params": {"api_key": first.key}})
    for gateway in fleet:
        wait_until(lambda: ask(gateway, "new").status_code == 200, "the key", timeout=5)
    remove(fleet[0], "new")
    for gateway in fleet:
        wait_until(lambda: ask(gateway, "new").status_code == 400, "the model to be gone", timeout=5)
