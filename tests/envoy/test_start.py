"""What a start tells, and what it refuses: who is served and who is not, by what, where keys are kept, and who may come in."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from typing import Any

import pytest
import yaml

from gateway import MASTER_KEY, ROOT, Gateway, bearer, command, deployment, free_port, wait_until

SEED = ROOT / "tests/fixtures/config/proxy_server_config.yaml"


def served(providers: Any, **general: Any) -> dict:
    """One model, and these general settings."""
    config = {"model_list": [deployment("a", providers.openai.params(), id="a-1")]}
    return config | ({"general_settings": general} if general else {})


def refusal(tmp_path: pathlib.Path, config: dict | str | None, *arguments: str, env: dict | None = None) -> str:
    """What a start says that ends with 2."""
    words = ["--host", "127.0.0.1", "--port", str(free_port()), "--state_dir", str(tmp_path / "state"), *arguments]
    if config is not None:
        path = tmp_path / "config.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False))
        words += ["--config", str(path)]
    done = command(*words, env=env)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def says(gateway: Gateway, *parts: str) -> str:
    """Everything it printed, in which these stand."""
    printed = gateway.everything_printed()
    for part in parts:
        assert part in printed, f"{part!r} is not in\n{printed}"
    return printed


# -- who is served


def test_the_example_without_a_variable_says_what_is_missing(start):
    printed = says(start(SEED), "models: ", " served: ", "authentication: ", "database: SQLite in ", "state: ", "is not set")
    # The file and what is checked agree.
    checked = command("check", str(SEED))
    assert checked.returncode == 0, checked.stderr
    first = next(line for line in checked.stdout.splitlines() if line.startswith("models: "))
    assert first in printed


def test_a_file_whose_models_nobody_can_call_is_refused_by_check_and_start(tmp_path):
    models = {"one": "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", "two": "sagemaker/an-endpoint"}
    config = {"model_list": [deployment(name, {"model": model}) for name, model in models.items()]}
    told = refusal(tmp_path, config)
    assert "left out: `one`" in told and "expected at least one model that can be called" in told
    done = command("check", str(tmp_path / "config.yaml"))
    assert done.returncode == 2 and "models: 0 of 2 served" in done.stdout
    told = json.loads(command("check", str(tmp_path / "config.yaml"), "--json").stdout)
    assert told["serves"] is False and [entry["model_name"] for entry in told["models"]["left_out"]] == ["one", "two"]


def test_prompts_do_not_go_elsewhere_when_the_address_is_not_set(start, providers):
    lost = {"model": "openai/x", "api_key": "k", "api_base": "os.environ/ADDRESS_OF_NOBODY"}
    config = served(providers, master_key=MASTER_KEY)
    config["model_list"].append(deployment("lost", lost))
    gateway = start(config)
    says(gateway, "models: 1 of 2 served", "left out: `lost`", "ADDRESS_OF_NOBODY is not set")
    answer = gateway.chat("lost", headers=bearer(MASTER_KEY))
    assert answer.status_code >= 400 and gateway.chat("a", headers=bearer(MASTER_KEY)).status_code == 200


def test_files_that_litellm_loads_are_served(start, providers):
    """A byte order mark, keys that stand twice, YAML 1.1's numbers, an entry that says nothing."""
    params = providers.openai.params()
    text = "\ufeffmodel_list:\n- model_name: nobody\n- model_name: a\n  litellm_params:\n    tpm: 100_000\n    max_tokens: 1_0\n"
    text += "".join(f"    {name}: {json.dumps(value)}\n" for name, value in params.items())
    text += "    drop_params: [tool_choice]\n    user: 'yes'\nlitellm_settings: {num_retries: 7}\nlitellm_settings: {num_retries: 0}\n"
    text += f"general_settings:\n  master_key: {MASTER_KEY}\n"
    gateway = start(text)
    says(gateway, "`litellm_settings` stands twice, in line ", "models: 1 of 2 served: `a`", "it has no litellm_params")
    assert gateway.chat("a", headers=bearer(MASTER_KEY)).status_code == 200
    sent = json.loads(providers.openai.requests[-1].body)
    assert (sent["max_tokens"], sent["user"]) == (10, "yes")


def test_no_file_but_a_database_serves_what_is_in_it(start, postgres, providers):
    env = {"DATABASE_URL": postgres, "LITELLM_MASTER_KEY": MASTER_KEY, "LITELLM_SALT_KEY": "salt"}
    gateway = start(None, env=env)
    printed = says(gateway, "0 of the database", "database: Postgres at ", "authentication: master key and virtual keys")
    assert postgres not in printed
    gateway.manage("/model/new", {"model_name": "a", "litellm_params": providers.openai.params()})
    wait_until(lambda: gateway.chat("a", headers=bearer(MASTER_KEY)).status_code == 200, "the model of the database is served")


def test_no_file_and_no_database_is_refused(tmp_path):
    assert "DATABASE_URL" in refusal(tmp_path, None)


# -- who may come in


def test_a_start_without_a_key_warns_and_names_the_address(start, providers):
    gateway = start(served(providers))
    says(gateway, f"everybody who reaches http://127.0.0.1:{gateway.port} can call every model", "authentication: NONE")
    assert gateway.chat("a").status_code == 200
    # Somebody makes a key. A ledger that takes the place of one that died does not shut the gateway.
    gateway.new_key()
    os.kill(gateway.ledger_pid(), signal.SIGKILL)
    wait_until(lambda: gateway.manage_raw("/key/list").status_code == 200, "the ledger is back")


@pytest.mark.parametrize("text", ["master_key: ''", "master_key:", "master_key: null", "masterkey: sk-1"])
def test_an_empty_or_misspelt_key_starts_nothing(tmp_path, text):
    model = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]\n"
    told = refusal(tmp_path, f"{model}general_settings:\n  {text}\n")
    assert "master_key" in told and "line 3" in told and "sk-1" not in told
    assert "LITELLM_MASTER_KEY" in refusal(tmp_path, model, env={"LITELLM_MASTER_KEY": ""})


def test_a_key_whose_variable_is_not_set_lets_nobody_in(start, providers):
    gateway = start(served(providers, master_key="os.environ/KEY_OF_NOBODY"))
    says(gateway, "KEY_OF_NOBODY is not set: no key is accepted until it is", "authentication: no key is accepted")
    for key in ("", "sk-x", "\\0unset"):
        assert gateway.chat("a", headers=bearer(key) if key else {}).status_code == 401


def test_no_reload_opens_the_gateway(start, providers, tmp_path):
    closed = served(providers, master_key=MASTER_KEY)
    gateway = start(closed)
    gateway.new_key()
    part = tmp_path / "part.yaml"
    part.write_text("general_settings: {}\n")
    rest = {"model_list": closed["model_list"]}
    for number, opened in enumerate([
        rest,
        rest | {"general_settings": None},
        rest | {"general_settings": {"master_key": None}},
        rest | {"general_settings": {"master_key": ""}},
        rest | {"general_settings": {"masterkey": MASTER_KEY}},
        closed | {"include": [str(part)]},
    ], start=1):
        gateway.write_config(opened)
        kept = "the earlier one stays in force"
        wait_until(lambda: gateway.everything_printed().count(kept) >= number, f"refused: {opened}")
        assert gateway.chat("a").status_code == 401
        assert gateway.client.get("/key/list").status_code == 401
        assert gateway.client.post("/key/generate", json={}).status_code == 401
        assert gateway.chat("a", headers=bearer(MASTER_KEY)).status_code == 200
    says(gateway, "restart to serve without a key")
    assert MASTER_KEY not in gateway.everything_printed()
    # What does not open it is taken over as ever.
    closed["model_list"].append(deployment("b", providers.openai.params(), id="b-1"))
    gateway.write_config(closed)
    wait_until(lambda: gateway.chat("b", headers=bearer(MASTER_KEY)).status_code == 200, "the new model is served")
    assert gateway.chat("b").status_code == 401


def test_a_reload_says_what_waits_for_the_next_start(start, providers):
    gateway = start(served(providers, master_key=MASTER_KEY))
    gateway.write_config(served(providers, master_key=MASTER_KEY, database_url="postgresql://u:s3cret@nobody/x"))
    words = "`general_settings.database_url` has changed and is used from the next start on"
    wait_until(lambda: words in gateway.log(), "a word about the database")
    assert "s3cret" not in gateway.everything_printed() and gateway.new_key()


def test_a_database_with_keys_is_not_opened_by_a_start(start, providers, tmp_path):
    state = tmp_path / "state"
    first = start(served(providers, master_key=MASTER_KEY), state=state)
    first.new_key()
    first.stop()
    told = refusal(tmp_path, served(providers))
    assert "the database has keys" in told and "--allow_open" in told
    assert start(served(providers), state=state, arguments=("--allow-open",)).chat("a").status_code == 200


# -- where it is kept


def test_keys_stay_when_the_address_changes(start, providers, tmp_path):
    state = tmp_path / "state"
    config = served(providers, master_key=MASTER_KEY)
    first = start(config, state=state)
    key = first.new_key()
    says(first, f"state: {state}")
    # Two at a time cannot share it, and the second is told who is there.
    told = refusal(tmp_path, config)
    assert "in use by another tollgate" in told and first.url in told
    first.stop()
    second = start(config, state=state)
    assert second.port != first.port
    assert second.chat("a", headers=bearer(key)).status_code == 200


def test_the_folder_of_an_earlier_version_is_taken_over(start, providers, tmp_path):
    state = tmp_path / "state"
    config = served(providers, master_key=MASTER_KEY)
    first = start(config, state=state)
    key = first.new_key()
    first.stop()
    earlier = state / "127.0.0.1-4000"
    earlier.mkdir()
    for file in state.glob("ledger.db*"):
        file.rename(earlier / file.name)
    second = start(config, state=state)
    says(second, f"the ledger of `{earlier}` is kept in `{state}` from now on")
    assert second.chat("a", headers=bearer(key)).status_code == 200


def test_a_health_check_needs_no_port(start, providers, tmp_path):
    state = tmp_path / "state"
    start(served(providers), state=state)
    env = {"TOLLGATE_STATE_DIR": str(state), "PORT": "1"}
    done = command("healthcheck", env=env)
    assert done.returncode == 0, done.stderr
    assert command("healthcheck", "--state-dir", str(tmp_path / "nothing"), env={"PORT": "1"}).returncode == 1


# -- how it is told


def test_dotenv_in_the_working_directory_is_read(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("# keys\nexport OPENAI_API_KEY='sk-of-dotenv'\nSET=inside\n")
    config = {
        "model_list": [deployment("a", {"model": "openai/a", "api_key": "os.environ/OPENAI_API_KEY"})],
        "general_settings": {"master_key": "os.environ/SET"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert "missing" not in command("check", "config.yaml").stdout
    assert "OPENAI_API_KEY is not set" in command("check", "config.yaml", env={"LITELLM_MODE": "PRODUCTION"}).stdout
    # What is set already stays: nothing is no master key.
    done = command("check", "config.yaml", env={"SET": " "})
    assert done.returncode == 2 and "master_key" in done.stderr


def test_a_flag_without_a_meaning_says_so(tmp_path):
    told = refusal(tmp_path, "model_list: []", "--max-requests-before-restart", "1000", "--use_v2_migration_resolver")
    assert "--max_requests_before_restart has no effect" in told and "--use_v2_migration_resolver has no effect" in told


def test_who_is_not_let_in_is_told_where_the_key_comes_from(start, providers):
    gateway = start(served(providers, master_key=MASTER_KEY))
    for how in ("--health", "--test"):
        done = command("--host", "127.0.0.1", "--port", str(gateway.port), how)
        assert done.returncode == 1 and "Set LITELLM_MASTER_KEY" in done.stderr, done.stderr
        done = command("--host", "127.0.0.1", "--port", str(gateway.port), how, env={"LITELLM_MASTER_KEY": MASTER_KEY})
        assert done.returncode == 0, done.stderr
