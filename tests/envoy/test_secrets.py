"""Keys stay where they belong: not in Envoy's configuration, not in statistics, logs or answers."""

from __future__ import annotations

from gateway import MASTER_KEY, deployment
from mock_provider import AnthropicMock, AzureMock, OpenAiMock

FROM_ENVIRONMENT = "sk-openai-from-environment-2a"
LITERAL = "sk-literal-in-file-3b"


def test_secrets_stand_nowhere(start, providers, mocks):
    referenced = mocks(OpenAiMock, name="referenced", key=FROM_ENVIRONMENT)
    literal = mocks(AzureMock, name="literal", key=LITERAL)
    other = mocks(AnthropicMock, name="other")
    config = {
        "model_list": [
            deployment("a", referenced.params() | {"api_key": "os.environ/THE_OPENAI_KEY"}),
            deployment("b", literal.params()),
            deployment("c", other.params()),
        ],
        "general_settings": {"master_key": "os.environ/THE_MASTER_KEY"},
    }
    gateway = start(config, env={"THE_OPENAI_KEY": FROM_ENVIRONMENT, "THE_MASTER_KEY": MASTER_KEY})
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    answers = [gateway.chat(model, headers=headers) for model in "abc"]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    referenced.script(referenced.error("auth"))
    answers.append(gateway.chat("a", headers=headers))

    places = {
        "config_dump": gateway.admin("/config_dump?include_eds").text,
        "stats": gateway.admin("/stats").text,
        "metrics": gateway.client.get("/metrics").text,
        "model info": gateway.client.get("/model/info", headers=headers).text,
        "routes": gateway.client.get("/routes").text,
        "answers": "".join(f"{answer.headers} {answer.text}" for answer in answers),
        "output": gateway.everything_printed(),
    }
    secrets = {"master key": MASTER_KEY, "from environment": FROM_ENVIRONMENT, "literal": LITERAL, "anthropic": other.key}
    found = [(secret, place) for place, text in places.items() for secret, value in secrets.items() if value in text]
    assert not found
    assert "tollgate" in places["config_dump"], "the dump is the real one"


def test_written_files_have_no_secrets_or_are_private(gateway, providers):
    for path in gateway.state.rglob("*"):
        if path.is_file() and path.suffix != ".wasm":
            text = path.read_bytes()
            for mock in providers.all():
                assert mock.key.encode() not in text or path.stat().st_mode & 0o077 == 0, path


def test_the_admin_interface_is_not_on_the_network(gateway):
    for path in ("/config_dump", "/quitquitquit", "/server_info", "/stats", "/admin"):
        assert gateway.client.get(path).status_code == 404
        assert gateway.client.post(path).status_code in (404, 405)
    assert gateway.chat("openai").status_code == 200
